//! A server of OpenAI's interfaces that fails on purpose. It counts what it is
//! asked and what it would bill for.
// Several test programs include this file, each of which uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

/// What the server does with one request.
pub enum Act {
    /// Answers as a model would.
    Answer,
    /// Answers when so long has passed.
    AnswerAfter(Duration),
    /// Answers with this text.
    AnswerWith(String),
    /// Gives this status, headers and body.
    Say(u16, &'static str, &'static str),
    /// Promises a whole answer and gives half of it.
    Half,
    /// Takes the request and closes the connection.
    Close,
    /// Says nothing until the other side gives up.
    Stall,
}

/// What came in.
pub struct Asked {
    /// Which request of all, from zero.
    pub number: usize,
    /// How often this very body came before.
    pub again: usize,
    /// The path.
    pub path: String,
    /// The `authorization` header.
    pub key: Option<String>,
    /// The body.
    pub body: Value,
}

impl Asked {
    /// The last turn, or the text to go on from.
    pub fn text(&self) -> &str {
        let turns = self.body["messages"].as_array();
        let said = turns.and_then(|turns| turns.last()).map(|turn| &turn["content"]);
        said.unwrap_or(&self.body["prompt"]).as_str().unwrap_or_default()
    }
}

#[derive(Default)]
struct Seen {
    bodies: BTreeMap<String, usize>,
    billed: Vec<(u64, u64)>,
    now: usize,
}

/// The server; it ends with this value.
pub struct Server {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    total: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ending: Arc<(Mutex<bool>, Condvar)>,
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Starts one that does as it is told for each request.
    pub fn start(act: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            seen: Arc::default(),
            total: Arc::default(),
            most: Arc::default(),
            ending: Arc::default(),
            ended: Arc::default(),
        };
        let act: Arc<dyn Fn(&Asked) -> Act + Send + Sync> = Arc::new(act);
        let (seen, total, most) = (server.seen.clone(), server.total.clone(), server.most.clone());
        let (ending, ended) = (server.ending.clone(), server.ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (act, seen, total, most, ending) =
                    (act.clone(), seen.clone(), total.clone(), most.clone(), ending.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &*act, &seen, &total, &most, &ending);
                });
            }
        });
        server
    }

    /// Its address, up to `/v1`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Requests that came in.
    pub fn asked(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }

    /// The most that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Tokens read and written of all answers that were begun.
    pub fn billed(&self) -> (u64, u64) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.billed.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// How many different bodies came in, and how often the most frequent did.
    pub fn bodies(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.bodies.len(), seen.bodies.values().copied().max().unwrap_or(0))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        *self.ending.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ending.1.notify_all();
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: TcpStream,
    act: &dyn Fn(&Asked) -> Act,
    seen: &Mutex<Seen>,
    total: &AtomicUsize,
    most: &AtomicUsize,
    ending: &(Mutex<bool>, Condvar),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut key) = (0, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "authorization" => key = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let (again, now) = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.bodies.entry(text.clone()).or_default();
            *count += 1;
            let again = *count - 1;
            seen.now += 1;
            (again, seen.now)
        };
        most.fetch_max(now, Ordering::SeqCst);
        let body = serde_json::from_str(&text).unwrap_or_default();
        let asked = Asked { number: total.fetch_add(1, Ordering::SeqCst), again, path, key, body };
        let done = reply(&mut stream, &asked, act(&asked), seen, ending);
        seen.lock().unwrap_or_else(PoisonError::into_inner).now -= 1;
        if !done? {
            return Ok(());
        }
    }
}

/// Gives a reply; whether the connection goes on.
fn reply(
    stream: &mut TcpStream,
    asked: &Asked,
    act: Act,
    seen: &Mutex<Seen>,
    ending: &(Mutex<bool>, Condvar),
) -> std::io::Result<bool> {
    let (answer, usage) = match &act {
        Act::AnswerWith(text) => answer(asked, text.clone()),
        _ => answer(asked, echo(asked)),
    };
    let bill = || seen.lock().unwrap_or_else(PoisonError::into_inner).billed.push(usage);
    let whole = |status: u16, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
    };
    match act {
        Act::Answer | Act::AnswerWith(_) => {
            bill();
            stream.write_all(whole(200, "", &answer).as_bytes())?;
        }
        Act::AnswerAfter(time) => {
            bill();
            std::thread::sleep(time);
            stream.write_all(whole(200, "", &answer).as_bytes())?;
        }
        Act::Say(status, headers, body) => stream.write_all(whole(status, headers, body).as_bytes())?,
        Act::Half => {
            bill();
            let text = whole(200, "", &answer);
            stream.write_all(&text.as_bytes()[..text.len() - answer.len() / 2])?;
            return Ok(false);
        }
        Act::Close => {
            bill();
            return Ok(false);
        }
        Act::Stall => {
            bill();
            let mut over = ending.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                over = ending.1.wait(over).unwrap_or_else(PoisonError::into_inner);
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the model says by itself: what it was asked, with the seed.
fn echo(asked: &Asked) -> String {
    let seed = asked.body["seed"].as_i64().map(|seed| format!(" {seed}")).unwrap_or_default();
    format!("you said {}{seed}", asked.text())
}

/// A reply with a text, and its bill. A word is a token.
fn answer(asked: &Asked, text: String) -> (String, (u64, u64)) {
    let words = |text: &str| text.split_whitespace().count() as u64;
    let usage = (words(asked.text()) + 4, words(&text));
    let choice = match asked.path.ends_with("/chat/completions") {
        true => json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}),
        false => json!({"index": 0, "text": text, "finish_reason": "stop"}),
    };
    let body = json!({"object": "chat.completion", "choices": [choice],
        "usage": {"prompt_tokens": usage.0, "completion_tokens": usage.1}});
    (body.to_string(), usage)
}
