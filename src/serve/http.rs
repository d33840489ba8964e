//! As much of HTTP/1.1 as an interface of JSON needs: requests with a length,
//! replies with one, connections that stay open. Every part of a request is
//! bounded. Must not know what is asked.
//!
//! Why not a framework: the one for hyper would switch on features of the HTTP
//! client that the whole tree is built with.

use std::io::{self, BufRead, Read, Write};

use serde_json::{Value, json};

/// The bytes of a request's line and headers at most.
const HEAD: u64 = 32 << 10;

/// A request.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// The path, without a query.
    pub path: String,
    /// What follows `Bearer`.
    pub token: Option<String>,
    /// Whether the other side wants to go on with this connection.
    pub keep_alive: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, PartialEq)]
pub struct Reply {
    /// HTTP's status.
    pub status: u16,
    /// Seconds after which to come back.
    pub retry_after: Option<u32>,
    /// The body.
    pub body: Value,
}

impl Reply {
    /// A success.
    pub fn ok(body: Value) -> Self {
        Self { status: 200, retry_after: None, body }
    }

    /// A failure, in the form that OpenAI's clients read.
    pub fn error(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            401 => "authentication_error",
            429 | 503 => "overloaded_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let body = json!({"error": {"message": message.into(), "type": kind, "param": null, "code": null}});
        Self { status, retry_after: None, body }
    }
}

/// What came over a connection.
#[derive(Debug, PartialEq)]
pub enum Read1 {
    /// A request.
    Request(Request),
    /// Nothing more.
    End,
    /// Something that is to be answered with this, and then closed.
    Refused(Reply),
}

/// Reads one request; of its body at most `longest` bytes. `ask_on` is written where the other side waits to be asked for it.
pub fn read(from: &mut impl BufRead, ask_on: &mut impl Write, longest: usize) -> io::Result<Read1> {
    let refuse = |status, message: &str| Ok(Read1::Refused(Reply::error(status, message)));
    let mut left = HEAD;
    let Some(line) = line(from, &mut left)? else { return Ok(Read1::End) };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return refuse(400, "the request has no line of method, path and version");
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return refuse(505, "expected HTTP/1.1");
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut request =
        Request { method: method.to_owned(), path, token: None, keep_alive: version == "HTTP/1.1", body: Vec::new() };
    let (mut length, mut waits) = (None, false);
    loop {
        let Some(header) = self::line(from, &mut left)? else {
            return if left == 0 { refuse(431, "the headers are longer than 32 KiB") } else { Ok(Read1::End) };
        };
        if header.is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else { return refuse(400, "a header has no colon") };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => match (value.parse::<usize>(), length) {
                (Ok(n), None) if value.bytes().all(|byte| byte.is_ascii_digit()) => length = Some(n),
                _ => return refuse(400, "content-length is no number, or stands there twice"),
            },
            "transfer-encoding" => return refuse(411, "send the body with a content-length"),
            "authorization" => {
                let word = value.split_once(' ').filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
                request.token = word.map(|(_, token)| token.trim().to_owned());
            }
            "connection" if value.eq_ignore_ascii_case("close") => request.keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => request.keep_alive = true,
            "expect" => waits = true,
            _ => {}
        }
    }
    let length = length.unwrap_or(0);
    if length > longest {
        return refuse(413, &format!("the body has {length} bytes, and {longest} are taken"));
    }
    if waits && length > 0 {
        ask_on.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        ask_on.flush()?;
    }
    request.body = vec![0; length];
    from.read_exact(&mut request.body)?;
    Ok(Read1::Request(request))
}

/// A line without its end; nothing at the end of input or of what is left.
fn line(from: &mut impl BufRead, left: &mut u64) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let n = from.by_ref().take(*left).read_until(b'\n', &mut bytes)? as u64;
    *left -= n;
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    bytes.pop_if(|last| *last == b'\r');
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Writes a reply; `keep_alive` says whether the connection goes on.
pub fn write(to: &mut impl Write, reply: &Reply, keep_alive: bool) -> io::Result<()> {
    let reason = match reply.status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    };
    let body = reply.body.to_string();
    let retry = reply.retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let login = if reply.status == 401 { "www-authenticate: Bearer\r\n" } else { "" };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let text = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {connection}\r\n{retry}{login}\r\n{body}",
        reply.status,
        body.len(),
    );
    to.write_all(text.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Read1 {
        read(&mut text.as_bytes(), &mut io::sink(), 10).expect("memory can be read")
    }

    fn status(text: &str) -> u16 {
        match of(text) {
            Read1::Refused(reply) => reply.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_read_one_after_the_other() {
        let text =
            "POST /v1/x?y=1 HTTP/1.1\r\nContent-Length: 2\r\nAuthorization: bearer  abc\r\n\r\n{}GET / HTTP/1.0\n\n";
        let mut from = text.as_bytes();
        let mut next = || read(&mut from, &mut io::sink(), 10).expect("memory can be read");
        let first = Request {
            method: "POST".into(),
            path: "/v1/x".into(),
            token: Some("abc".into()),
            keep_alive: true,
            body: b"{}".to_vec(),
        };
        assert_eq!(next(), Read1::Request(first));
        let Read1::Request(second) = next() else { panic!("a request") };
        assert!(!second.keep_alive && second.body.is_empty());
        assert_eq!(next(), Read1::End);
    }

    #[test]
    fn what_is_no_request_or_too_large_is_refused() {
        assert_eq!(status("hello\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/3\r\n\r\n"), 505);
        assert_eq!(status("POST / HTTP/1.1\r\ncontent-length: 11\r\n\r\n"), 413);
        assert_eq!(status("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n"), 400);
        assert_eq!(status("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx"), 400);
        assert_eq!(status("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"), 411);
        assert_eq!(status("GET / HTTP/1.1\r\nno colon\r\n\r\n"), 400);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(40_000))), 431);
        assert!(read(&mut "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nx".as_bytes(), &mut io::sink(), 10).is_err());
    }

    #[test]
    fn a_client_that_waits_is_asked_for_its_body() {
        let mut asked = Vec::new();
        let text = "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx";
        read(&mut text.as_bytes(), &mut asked, 10).expect("read");
        assert_eq!(asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn replies_say_their_length_and_when_to_come_back() {
        let mut text = Vec::new();
        let reply = Reply { retry_after: Some(2), ..Reply::error(429, "full") };
        write(&mut text, &reply, false).expect("written");
        let text = String::from_utf8(text).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("429 Too Many Requests") && head.contains("retry-after: 2"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())) && head.contains("connection: close"));
        assert!(body.contains("\"type\":\"overloaded_error\""), "{body}");
    }
}
