//! A server that speaks as much of the Hub's HTTP as files need: the interface
//! that names a revision's commit and files, downloads by redirect with ranges,
//! a token for what is private. It counts, and cuts downloads on purpose.
// Several test programs include this file, each of which uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

/// Files longer than this are large ones, which live elsewhere.
const LARGE: usize = 1000;

/// What the server holds and what it was asked.
#[derive(Default)]
pub struct Held {
    /// By `models/ORG/NAME` or `datasets/ORG/NAME`: revisions to commits, commits to files.
    pub repositories: BTreeMap<String, Repository>,
    /// The token that names with `private` in them need.
    pub token: Option<String>,
    /// Downloads that are cut in the middle from now on.
    pub cuts: usize,
    /// Whether the content of large files is given wrongly, from now on so often.
    pub lies: usize,
    /// Every path that was asked for, with the first byte.
    pub asked: Vec<(String, u64)>,
}

/// A repository.
#[derive(Default, Clone)]
pub struct Repository {
    /// Branches and tags.
    pub revisions: BTreeMap<String, String>,
    /// The files of each commit.
    pub commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// The server; it ends with this value.
pub struct Hub {
    port: u16,
    held: Arc<Mutex<Held>>,
    bytes: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Hub {
    /// Starts an empty one.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let hub = Self { port, held: Arc::default(), bytes: Arc::default(), ended: Arc::default() };
        let (held, bytes, ended) = (hub.held.clone(), hub.bytes.clone(), hub.ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (held, bytes) = (held.clone(), bytes.clone());
                std::thread::spawn(move || {
                    let _ = serve(&stream, port, &held, &bytes);
                });
            }
        });
        hub
    }

    /// What `HF_ENDPOINT` must be.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Looks at or changes what it holds.
    pub fn held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a commit of files at the head of a revision.
    pub fn push(&self, repository: &str, revision: &str, files: &[(&str, &[u8])]) -> String {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
        let text = format!("{repository} {files:?}");
        let commit = hash(text.as_bytes())[..40].to_owned();
        self.held(|held| {
            let repository = held.repositories.entry(repository.to_owned()).or_default();
            repository.revisions.insert(revision.to_owned(), commit.clone());
            repository.commits.insert(commit.clone(), files);
        });
        commit
    }

    /// Bytes of files that were sent.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// SHA-256, written down.
pub fn hash(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(stream: &TcpStream, port: u16, held: &Mutex<Held>, bytes: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
        let (mut from, mut token) = (0_u64, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    let first = value.strip_prefix("bytes=").and_then(|range| range.split('-').next());
                    from = first.and_then(|first| first.parse().ok()).unwrap_or(0);
                }
                "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
        let mut now = held.lock().unwrap_or_else(PoisonError::into_inner);
        now.asked.push((path.clone(), from));
        if path.contains("private") && (token.is_none() || token != now.token) {
            drop(now);
            stream.write_all(b"HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let Some(found) = find(&now, &path) else {
            drop(now);
            stream.write_all(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        match found {
            Found::Listing(body) => {
                drop(now);
                let length = body.len();
                stream.write_all(format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes())?;
            }
            Found::Elsewhere(sum, length) => {
                drop(now);
                let to = format!("http://localhost:{port}/cdn/{sum}");
                let head = format!(
                    "HTTP/1.1 302 X\r\nlocation: {to}\r\nx-linked-etag: \"{sum}\"\r\nx-linked-size: {length}\r\ncontent-length: 0\r\n\r\n"
                );
                stream.write_all(head.as_bytes())?;
            }
            Found::File(mut content) => {
                let is_large = content.len() > LARGE;
                let cut = is_large && now.cuts > 0;
                now.cuts -= usize::from(cut);
                if is_large && now.lies > 0 {
                    now.lies -= 1;
                    content[0] ^= 1;
                }
                drop(now);
                // Somebody who is elsewhere must not learn the token.
                if path.starts_with("cdn/") && token.is_some() {
                    stream.write_all(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n")?;
                    continue;
                }
                let sum = hash(&content);
                let first = (from as usize).min(content.len());
                let rest = &content[first..];
                if from > 0 && rest.is_empty() {
                    stream.write_all(b"HTTP/1.1 416 X\r\ncontent-length: 0\r\netag: \"x\"\r\n\r\n")?;
                    continue;
                }
                let status = if from > 0 { 206 } else { 200 };
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\netag: \"{}\"\r\n\r\n",
                    rest.len(),
                    &sum[..40]
                );
                stream.write_all(head.as_bytes())?;
                let sent = if cut { &rest[..rest.len() / 2] } else { rest };
                stream.write_all(sent)?;
                bytes.fetch_add(sent.len(), Ordering::SeqCst);
                if cut {
                    return Ok(());
                }
            }
        }
    }
}

enum Found {
    Listing(String),
    Elsewhere(String, usize),
    File(Vec<u8>),
}

fn find(held: &Held, path: &str) -> Option<Found> {
    let all = || {
        held.repositories.values().flat_map(|repository| repository.commits.values().flat_map(|files| files.values()))
    };
    if let Some(sum) = path.strip_prefix("cdn/") {
        return all().find(|content| hash(content) == sum).map(|content| Found::File(content.clone()));
    }
    let commit_of = |repository: &Repository, revision: &str| {
        let named = repository.revisions.get(revision).cloned();
        named.or_else(|| repository.commits.contains_key(revision).then(|| revision.to_owned()))
    };
    if let Some(rest) = path.strip_prefix("api/") {
        let (repository, revision) = rest.split_once("/revision/")?;
        let repository = held.repositories.get(repository)?;
        let commit = commit_of(repository, &revision.replace("%2F", "/"))?;
        let files = repository.commits[&commit].iter();
        let siblings: Vec<_> = files.map(|(name, content)| json!({"rfilename": name, "size": content.len()})).collect();
        return Some(Found::Listing(json!({"sha": commit, "siblings": siblings}).to_string()));
    }
    let (repository, rest) = path.split_once("/resolve/")?;
    let (commit, file) = rest.split_once('/')?;
    let models = format!("models/{repository}");
    let repository = held.repositories.get(repository).or_else(|| held.repositories.get(&models))?;
    let content = repository.commits.get(commit)?.get(file)?;
    Some(match content.len() > LARGE {
        true => Found::Elsewhere(hash(content), content.len()),
        false => Found::File(content.clone()),
    })
}
