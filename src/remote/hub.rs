//! Files of models and datasets on the Hugging Face Hub: which commit a name
//! stands for, and that commit's files in the cache that the Hub's own library
//! uses, so that neither fetches what the other has.
//!
//! A download that was cut off goes on where it ended. Nothing is taken for whole
//! before its size, and its SHA-256 where the Hub tells it, are right.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE};
use reqwest::{Response, Url};
use serde_json::Value;

use crate::error::{Error, chain};
use crate::limits::{draw, pause};

/// The Hub itself.
const HUB: &str = "https://huggingface.co";
/// The revision of a name without one.
const MAIN: &str = "main";
/// Files that are fetched at once.
const AT_ONCE: usize = 4;
/// Tries of one request without a byte of progress.
const TRIES: u32 = 5;
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// How often it is looked whether somebody else has finished a file.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A connection that gives nothing for so long is lost.
const SILENCE: Duration = Duration::from_secs(60);

/// Where the Hub and its cache are, and as whom it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The Hub's address.
    pub endpoint: String,
    /// The cache: a folder for every repository.
    pub cache: PathBuf,
    /// The token of a user, for what is private or gated.
    pub token: Option<String>,
    /// Nothing is asked: what is not in the cache is missing.
    pub offline: bool,
}

/// The environment variables that [`Place::find`] looks at.
pub const VARIABLES: &[&str] =
    &["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HOME", "XDG_CACHE_HOME"];

impl Place {
    /// What an environment says, as the Hub's own library reads it.
    pub fn find(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let cache = || get("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache().unwrap_or_else(|| PathBuf::from(get("HOME").unwrap_or_default()).join(".cache"));
        let home = get("HF_HOME").map_or_else(|| cache.join("huggingface"), PathBuf::from);
        let read = |path: PathBuf| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let on = |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
        Self {
            endpoint: get("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned()).trim_end_matches('/').to_owned(),
            cache: get("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            token: get("HF_TOKEN").or_else(|| read(home.join("token"))).filter(|token| !token.is_empty()),
            offline: get("HF_HUB_OFFLINE").is_some_and(on),
        }
    }
}

/// What kind of repository it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Model or dataset.
    pub kind: Kind,
    /// `ORG/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// A file in it; empty for all of it.
    pub path: String,
}

/// What names begin with.
pub const SCHEME: &str = "hf://";

impl Name {
    /// Reads `hf://[datasets/]ORG/NAME[@REVISION][/PATH]`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::HubName { name: text.to_owned(), problem: problem.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with hf://"))?;
        let (kind, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (Kind::Dataset, rest),
            None => (Kind::Model, rest.strip_prefix("models/").unwrap_or(rest)),
        };
        let mut parts = rest.splitn(3, '/');
        let (organisation, named, path) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (name, revision) = named.split_once('@').unwrap_or((named, MAIN));
        // A branch with a slash is written with %2F, as elsewhere.
        let revision = revision.replace("%2F", "/").replace("%2f", "/");
        let is_word = |word: &str| {
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            !word.is_empty() && plain && !word.starts_with('.')
        };
        if !is_word(organisation) || !is_word(name) {
            return Err(wrong("it lacks ORG/NAME"));
        }
        if revision.is_empty() || !revision.split('/').all(is_word) {
            return Err(wrong("what follows @ is no branch, tag or commit"));
        }
        if !path.is_empty() && !is_inside(path) {
            return Err(wrong("its path leads elsewhere"));
        }
        Ok(Self { kind, repository: format!("{organisation}/{name}"), revision, path: path.to_owned() })
    }

    /// Whether the revision is a commit, which never moves.
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The name with a commit in the place of its revision.
    pub fn at(&self, commit: &str) -> String {
        let kind = if self.kind == Kind::Dataset { "datasets/" } else { "" };
        let path = if self.path.is_empty() { String::new() } else { format!("/{}", self.path) };
        format!("{SCHEME}{kind}{}@{commit}{path}", self.repository)
    }

    fn folder(&self) -> String {
        let kind = if self.kind == Kind::Dataset { "datasets" } else { "models" };
        format!("{kind}--{}", self.repository.replace('/', "--"))
    }

    fn shown(&self) -> String {
        self.at(&self.revision)
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a path of a repository stays below it.
fn is_inside(path: &str) -> bool {
    !path.contains('\\') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A commit and its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Forty hexadecimal digits.
    pub id: String,
    /// Paths and, where known, sizes.
    pub files: Vec<(String, Option<u64>)>,
}

/// The Hub, as one asks it.
pub struct Hub {
    place: Place,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// Told of bytes that came, of so many in all; breaks to stop.
pub type OnBytes<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

impl Hub {
    /// Prepares to ask; nothing is sent yet.
    pub fn open(place: Place) -> Result<Self, Error> {
        let failed = |detail: String| Error::Client { detail };
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
            .user_agent(concat!("fuseline/", env!("CARGO_PKG_VERSION")));
        let host = Url::parse(&place.endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
        if host.is_some_and(|host| crate::limits::is_here(&host)) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| failed(chain(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { place, http, runtime: runtime.map_err(|error| failed(error.to_string()))? })
    }

    /// The commit that a name stands for now, and its files; offline, as of the last time it was asked.
    pub fn resolve(&self, name: &Name) -> Result<Commit, Error> {
        let folder = self.place.cache.join(name.folder());
        let reference = folder.join("refs").join(&name.revision);
        if self.place.offline {
            let known = fs::read_to_string(&reference).ok().map(|text| text.trim().to_owned());
            let id = known.filter(|id| is_commit(id)).or_else(|| name.is_pinned().then(|| name.revision.clone()));
            let snapshot = id.as_ref().map(|id| folder.join("snapshots").join(id)).filter(|path| path.is_dir());
            let (Some(id), Some(snapshot)) = (id, snapshot) else { return Err(self.missing(name)) };
            let mut files = Vec::new();
            list(&snapshot, "", &mut files);
            return Ok(Commit { id, files });
        }
        let kind = if name.kind == Kind::Dataset { "datasets" } else { "models" };
        let revision = name.revision.replace('/', "%2F");
        let url = format!("{}/api/{kind}/{}/revision/{revision}?blobs=true", self.place.endpoint, name.repository);
        let body = self.runtime.block_on(self.text(name, &url))?;
        let unreadable = || Error::HubDown { name: name.shown(), why: format!("{url} gives no commit and files") };
        let body: Value = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        let id = body["sha"].as_str().filter(|id| is_commit(id)).ok_or_else(unreadable)?.to_owned();
        let listed = body["siblings"].as_array().ok_or_else(unreadable)?.iter();
        let file = |file: &Value| Some((file["rfilename"].as_str()?.to_owned(), file["size"].as_u64()));
        let files: Vec<_> = listed.filter_map(file).filter(|(path, _)| is_inside(path)).collect();
        if !name.is_pinned() {
            write_whole(&reference, id.as_bytes())?;
        }
        Ok(Commit { id, files })
    }

    /// Brings files of a commit into the cache; gives the folder with all of it that is there.
    pub fn fetch(
        &self,
        name: &Name,
        commit: &str,
        files: &[(String, Option<u64>)],
        on_bytes: OnBytes<'_>,
    ) -> Result<PathBuf, Error> {
        let folder = self.place.cache.join(name.folder());
        let snapshot = folder.join("snapshots").join(commit);
        let missing: Vec<_> = files.iter().filter(|(path, _)| !snapshot.join(path).exists()).collect();
        if missing.is_empty() {
            return Ok(snapshot);
        }
        if self.place.offline {
            return Err(self.missing(&Name { path: missing[0].0.clone(), ..name.clone() }));
        }
        let total = missing.iter().filter_map(|(_, size)| *size).sum();
        let (done, on_bytes, stopped) = (Cell::new(0), RefCell::new(on_bytes), Cell::new(false));
        let count = |n: i64| {
            done.set(done.get() + n);
            let control = (on_bytes.borrow_mut())(done.get().max(0) as u64, total);
            stopped.set(stopped.get() || control.is_break());
            if stopped.get() { Err(Error::Stopped) } else { Ok(()) }
        };
        let fetch = |file: &'_ (String, Option<u64>)| {
            let (path, size) = file.clone();
            let (folder, snapshot, count) = (&folder, &snapshot, &count);
            async move { self.file(name, commit, (&path, size), (folder, snapshot), count).await }
        };
        let all = futures::stream::iter(missing.into_iter().map(fetch)).buffer_unordered(AT_ONCE).try_collect::<()>();
        self.runtime.block_on(all)?;
        Ok(snapshot)
    }

    fn missing(&self, name: &Name) -> Error {
        Error::HubOffline { name: name.shown(), cache: self.place.cache.clone() }
    }

    /// One file into the cache.
    async fn file(
        &self,
        name: &Name,
        commit: &str,
        (path, size): (&str, Option<u64>),
        (folder, snapshot): (&Path, &Path),
        count: &dyn Fn(i64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let kind = if name.kind == Kind::Dataset { "datasets/" } else { "" };
        let mut url = Url::parse(&format!("{}/{kind}{}/resolve/{commit}/", self.place.endpoint, name.repository))
            .map_err(|error| Error::HubName { name: name.shown(), problem: error.to_string() })?;
        url.path_segments_mut()
            .map_err(|()| Error::HubName { name: name.shown(), problem: "HF_ENDPOINT is no address".to_owned() })?
            .pop_if_empty()
            .extend(path.split('/'));
        let about = Name { path: path.to_owned(), ..name.clone() };
        let mut tries = 0;
        // What is there of it, once its name in the cache is known.
        let mut part: Option<Part> = None;
        loop {
            let have = part.as_ref().map_or(0, |part| part.length);
            let tried = self.open_stream(&url, have).await;
            let why = match tried {
                Err(why) => why,
                Ok(mut stream) => {
                    if let Some(error) = refusal(&about, stream.status) {
                        return Err(error);
                    }
                    match self.take(&mut stream, &mut part, folder, size, count).await {
                        Taken::Whole(blob) => return link(&blob, folder, &snapshot.join(path)),
                        Taken::Failed(error) => return Err(error),
                        Taken::Cut(why) => why,
                        Taken::Busy { blob, tag } => {
                            part = loop {
                                count(0)?;
                                tokio::time::sleep(LOOK_EVERY).await;
                                let free = Part::open(&blob, tag.clone())?;
                                if blob.exists() {
                                    return link(&blob, folder, &snapshot.join(path));
                                }
                                if free.is_some() {
                                    break free;
                                }
                            };
                            continue;
                        }
                    }
                }
            };
            let now = part.as_ref().map_or(0, |part| part.length);
            tries = if now > have { 1 } else { tries + 1 };
            if tries >= TRIES {
                return Err(Error::HubDown { name: about.shown(), why });
            }
            tokio::time::sleep(pause(tries, draw())).await;
        }
    }

    /// Takes what a reply gives into the part that is there.
    async fn take(
        &self,
        stream: &mut Stream,
        part: &mut Option<Part>,
        folder: &Path,
        size: Option<u64>,
        count: &dyn Fn(i64) -> Result<(), Error>,
    ) -> Taken {
        let status = stream.status;
        if !matches!(status, 200 | 206 | 416) {
            return Taken::Cut(format!("status {status}"));
        }
        let Some(tag) = stream.tag.clone() else { return Taken::Cut("it has no ETag".to_owned()) };
        let blob = folder.join("blobs").join(&tag);
        if part.as_ref().is_none_or(|part| part.tag != tag) {
            if blob.exists() {
                return Taken::Whole(blob);
            }
            match Part::open(&blob, tag.clone()) {
                Ok(None) => return Taken::Busy { blob, tag },
                // Who had it has just finished it.
                Ok(Some(_)) if blob.exists() => return Taken::Whole(blob),
                Ok(Some(opened)) => *part = Some(opened),
                Err(error) => return Taken::Failed(error),
            }
            let opened = part.as_mut().expect("it was just put there");
            if opened.length > 0 {
                // The reply begins at the beginning; the next one where this part ends.
                return match count(opened.length as i64) {
                    Ok(()) => Taken::Cut("it goes on from a part".to_owned()),
                    Err(error) => Taken::Failed(error),
                };
            }
        }
        let opened = part.as_mut().expect("it is there or was just put there");
        if status != 206 && opened.length > 0 {
            // The server does not give parts, or ours is longer than the file.
            let begun = -(opened.length as i64);
            if let Err(error) = opened.restart().and_then(|()| count(begun)) {
                return Taken::Failed(error);
            }
            if status == 416 {
                return Taken::Cut("the part did not fit".to_owned());
            }
        }
        loop {
            match stream.reply.chunk().await {
                Ok(Some(bytes)) => {
                    if let Err(error) = opened.add(&bytes).and_then(|()| count(bytes.len() as i64)) {
                        return Taken::Failed(error);
                    }
                }
                Ok(None) => break,
                Err(error) => return Taken::Cut(chain(&error)),
            }
        }
        let expected = size.or(stream.size);
        if expected.is_some_and(|expected| opened.length < expected) {
            return Taken::Cut(format!("{} of {} bytes came", opened.length, expected.unwrap_or_default()));
        }
        match opened.finish(&blob, expected) {
            Ok(true) => Taken::Whole(blob),
            Ok(false) => {
                let begun = -(opened.length as i64);
                match opened.restart().and_then(|()| count(begun)) {
                    Ok(()) => Taken::Cut("what came is not what was announced".to_owned()),
                    Err(error) => Taken::Failed(error),
                }
            }
            Err(error) => Taken::Failed(error),
        }
    }

    /// A reply to a request for a file from a byte on, through redirects.
    async fn open_stream(&self, url: &Url, from: u64) -> Result<Stream, String> {
        let (mut url, host) = (url.clone(), url.host_str().map(str::to_owned));
        let (mut tag, mut size) = (None, None);
        for _ in 0..REDIRECTS {
            let mut request = self.http.get(url.clone());
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            // The token is the Hub's alone.
            if let Some(token) = self.place.token.as_ref().filter(|_| url.host_str().map(str::to_owned) == host) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let reply = request.send().await.map_err(|error| chain(&error))?;
            let headers = reply.headers();
            tag = tag.or_else(|| text_of(headers, "x-linked-etag").map(|tag| plain_tag(&tag)));
            size = size.or_else(|| text_of(headers, "x-linked-size").and_then(|size| size.parse().ok()));
            let status = reply.status().as_u16();
            if (300..400).contains(&status) {
                let to = text_of(headers, LOCATION.as_str()).ok_or("a redirect leads nowhere")?;
                url = url.join(&to).map_err(|error| format!("a redirect leads nowhere: {error}"))?;
                continue;
            }
            tag = tag.or_else(|| text_of(headers, ETAG.as_str()).map(|tag| plain_tag(&tag)));
            if status == 200 {
                size = size.or_else(|| text_of(headers, CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok()));
            }
            let tag = tag.filter(|tag| {
                !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            });
            return Ok(Stream { status, tag, size, reply });
        }
        Err("too many redirects".to_owned())
    }

    /// The body of an answer of the Hub's interface.
    async fn text(&self, name: &Name, url: &str) -> Result<Vec<u8>, Error> {
        let parsed =
            Url::parse(url).map_err(|error| Error::HubName { name: name.shown(), problem: error.to_string() })?;
        let mut tries = 0;
        loop {
            let why = match self.open_stream(&parsed, 0).await {
                Err(why) => why,
                Ok(stream) => {
                    if let Some(error) = refusal(name, stream.status) {
                        return Err(error);
                    }
                    match (stream.status, stream.reply.bytes().await) {
                        (200, Ok(body)) => return Ok(body.to_vec()),
                        (200, Err(error)) => chain(&error),
                        (status, _) => format!("status {status}"),
                    }
                }
            };
            tries += 1;
            if tries >= TRIES {
                return Err(Error::HubDown { name: name.shown(), why });
            }
            tokio::time::sleep(pause(tries, draw())).await;
        }
    }
}

/// A reply with what its headers tell of the whole file.
struct Stream {
    status: u16,
    tag: Option<String>,
    size: Option<u64>,
    reply: Response,
}

enum Taken {
    Whole(PathBuf),
    Cut(String),
    Failed(Error),
    /// Another process, or another file with the same content, is at it.
    Busy {
        blob: PathBuf,
        tag: String,
    },
}

/// A file that is not whole yet. Its lock is this process's, so that two do not write one.
struct Part {
    tag: String,
    path: PathBuf,
    file: File,
    length: u64,
}

impl Part {
    /// Opens what is there of a blob; nothing if somebody else writes it.
    fn open(blob: &Path, tag: String) -> Result<Option<Self>, Error> {
        let path = blob.with_file_name(format!("{tag}.incomplete"));
        let open = || {
            fs::create_dir_all(blob.parent().expect("it is in a folder"))?;
            let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let length = file.seek(SeekFrom::End(0))?;
            Ok(Some((file, length)))
        };
        let opened = open().map_err(|source| Error::HubFile { path: path.clone(), source })?;
        Ok(opened.map(|(file, length)| Self { tag, path, file, length }))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::HubFile { path: self.path.clone(), source }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|source| self.failed(source))?;
        self.length = 0;
        Ok(())
    }

    /// Gives it its name, if it is what was announced.
    fn finish(&mut self, blob: &Path, expected: Option<u64>) -> Result<bool, Error> {
        // A tag of 64 digits is the SHA-256 of the content.
        let sums = self.tag.len() == 64 && self.tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sound = expected.is_none_or(|expected| expected == self.length)
            && (!sums || self.sha256().map_err(|source| self.failed(source))? == self.tag);
        if sound {
            self.file.sync_all().and_then(|()| fs::rename(&self.path, blob)).map_err(|source| self.failed(source))?;
        }
        Ok(sound)
    }

    fn sha256(&mut self) -> std::io::Result<String> {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut piece = vec![0; 1 << 20];
        self.file.rewind()?;
        loop {
            let n = self.file.read(&mut piece)?;
            if n == 0 {
                break;
            }
            context.update(&piece[..n]);
        }
        Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn plain_tag(tag: &str) -> String {
    tag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// What a status means that no other try changes.
fn refusal(name: &Name, status: u16) -> Option<Error> {
    match status {
        401 | 403 => Some(Error::HubRefused { name: name.shown(), status }),
        404 => Some(Error::HubMissing { name: name.shown() }),
        _ => None,
    }
}

/// Makes a file of the cache a file of a snapshot.
fn link(blob: &Path, folder: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::HubFile { path: to.to_owned(), source };
    let parent = to.parent().expect("a snapshot's file is in a folder");
    fs::create_dir_all(parent).map_err(failed)?;
    let depth = parent.strip_prefix(folder).map_or(0, |inner| inner.components().count());
    let target: PathBuf = std::iter::repeat_n("..", depth).collect();
    let target = target.join("blobs").join(blob.file_name().expect("a blob has a name"));
    match std::os::unix::fs::symlink(target, to) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Writes a small file as a whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        fs::create_dir_all(path.parent().expect("it is in a folder"))?;
        fs::write(&new, bytes)?;
        fs::rename(&new, path)
    };
    write().map_err(|source| Error::HubFile { path: path.to_owned(), source })
}

/// Files below a folder, by their paths in it.
fn list(folder: &Path, within: &str, files: &mut Vec<(String, Option<u64>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{within}{}", entry.file_name().to_string_lossy());
        match fs::metadata(entry.path()) {
            Ok(found) if found.is_dir() => list(&entry.path(), &format!("{name}/"), files),
            Ok(found) => files.push((name, Some(found.len()))),
            // A link whose blob is gone.
            Err(_) => {}
        }
    }
    files.sort();
}

#[cfg(test)]
mod tests;
