//! A bucket in this process: as much of S3 as a store of small files needs, over
//! HTTP, failing as it is told. The XML API of Google's buckets is the same but for the
//! header of a create-only write.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Every request is an error of the server.
    Fails,
    /// Writing is refused.
    ReadOnly,
    /// Connections end in the middle of a large object.
    BreaksOff,
    /// Large objects are shorter than they are said to be elsewhere.
    Truncates,
    /// A bit of a large object is another.
    Corrupts,
    /// Large objects are said to be there and are not.
    Loses,
    /// What lists objects is no XML.
    Babbles,
}

/// Objects of fewer bytes are left as they are: manifests, which are asked for first.
const LARGE: usize = 4000;

#[derive(Default)]
struct Objects {
    whole: BTreeMap<String, Vec<u8>>,
    requests: usize,
}

/// A bucket that anyone on this machine may use until the program ends.
#[derive(Clone)]
pub struct Bucket {
    /// Where it listens.
    pub port: u16,
    objects: Arc<Mutex<Objects>>,
    trouble: Arc<Mutex<Trouble>>,
}

/// A request as far as it matters.
struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Bucket {
    /// An empty one.
    pub fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let bucket = Self { port, objects: Arc::default(), trouble: Arc::new(Mutex::new(Trouble::None)) };
        let served = bucket.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                // A client that goes away ends its thread.
                std::thread::spawn(move || served.serve(&stream));
            }
        });
        bucket
    }

    /// From now on this goes wrong.
    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().expect("free") = trouble;
    }

    /// How many objects have a name with this in it.
    pub fn count(&self, part: &str) -> usize {
        self.objects.lock().expect("free").whole.keys().filter(|name| name.contains(part)).count()
    }

    /// How often it was asked anything.
    pub fn requests(&self) -> usize {
        self.objects.lock().expect("free").requests
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let request = read(&mut reader)?;
            let trouble = *self.trouble.lock().expect("free");
            let (status, headers, body) = self.answer(&request, trouble);
            let mut length = body.len();
            let mut sent = if request.method == "HEAD" { Vec::new() } else { body };
            let mut ends = false;
            if request.method == "GET" && request.path.contains("/cas/") && sent.len() >= LARGE {
                match trouble {
                    Trouble::BreaksOff => {
                        sent.truncate(length / 2);
                        ends = true;
                    }
                    Trouble::Truncates => {
                        sent.truncate(length / 2);
                        length = sent.len();
                    }
                    Trouble::Corrupts => sent[length / 2] ^= 1,
                    _ => {}
                }
            }
            let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
            headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
            let mut stream = stream;
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(b"\r\n")).ok()?;
            stream.write_all(&sent).ok()?;
            if ends {
                return None;
            }
        }
    }

    fn answer(&self, request: &Request, trouble: Trouble) -> (&'static str, Vec<(&'static str, String)>, Vec<u8>) {
        let plain = |status| (status, Vec::new(), Vec::new());
        let tag = |bytes: &[u8]| ("ETag", format!("\"{}\"", fuseline_contract::Digest::of_bytes(bytes).hex()));
        let mut objects = self.objects.lock().expect("free");
        objects.requests += 1;
        let (path, query) = (request.path.clone(), |name: &str| request.query.get(name));
        let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
        if trouble == Trouble::Fails {
            return plain("500 Internal Server Error");
        }
        if trouble == Trouble::ReadOnly && !is_read {
            return plain("403 Forbidden");
        }
        match request.method.as_str() {
            "GET" if query("list-type").is_some() => {
                let text = if trouble == Trouble::Babbles { "<oops".to_owned() } else { list(&objects, request) };
                ("200 OK", Vec::new(), text.into_bytes())
            }
            "GET" | "HEAD" => {
                let lost = trouble == Trouble::Loses && request.method == "GET" && path.contains("/cas/");
                match objects.whole.get(&path).filter(|bytes| !(lost && bytes.len() >= LARGE)) {
                    Some(bytes) => ("200 OK", vec![tag(bytes), ("Last-Modified", DATE.to_owned())], bytes.clone()),
                    None => plain("404 Not Found"),
                }
            }
            "PUT"
                if CREATE_ONLY.iter().any(|header| request.headers.contains_key(*header))
                    && objects.whole.contains_key(&path) =>
            {
                plain("412 Precondition Failed")
            }
            "PUT" => {
                objects.whole.insert(path, request.body.clone());
                ("200 OK", vec![tag(&request.body)], Vec::new())
            }
            _ => plain("501 Not Implemented"),
        }
    }
}

/// Headers of a write where nothing may be yet.
const CREATE_ONLY: [&str; 2] = ["if-none-match", "x-goog-if-generation-match"];

/// When everything was written, as far as clients can tell.
const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

fn list(objects: &Objects, request: &Request) -> String {
    let prefix = request.query.get("prefix").map_or("", String::as_str);
    let bucket = format!("{}/", request.path.trim_end_matches('/'));
    let named = objects.whole.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(&bucket)?, bytes)));
    let mut text = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for (name, bytes) in named.filter(|(name, _)| name.starts_with(prefix)) {
        text.push_str(&format!(
            "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"x\"</ETag><Size>{}</Size></Contents>",
            bytes.len()
        ));
    }
    text + "</ListBucketResult>"
}

/// The next request of a connection; none when it ends.
fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => drop(headers.insert(name.to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = pairs.map(|(name, value)| (name.to_owned(), plain(value))).collect();
    Some(Request { method, path: plain(path), query, headers, body })
}

/// An address without its `%2F` and the like.
fn plain(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).expect("two digits");
        plain.push(char::from(code));
        plain.push_str(&part[2..]);
    }
    plain
}
