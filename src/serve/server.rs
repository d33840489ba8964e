//! The server: connections, who may ask, what is asked of which path, and an
//! end in good order.

use std::io::{BufReader, BufWriter};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuseline_lm::generate::Sample;
use serde_json::{Value, json};

use crate::engine::{Engine, Refusal, Room};
use crate::error::{Error, Result};
use crate::http::{self, Read1, Reply, Request};
use crate::wire::{self, About, Asked, Choice};

/// The bytes of a request's body at most.
const BODY: usize = 16 << 20;
/// A connection that says nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(60);
/// When a full server asks to come back.
const COME_BACK: u32 = 1;
/// Connections at once, each with a thread; more are told to come back.
const CONNECTIONS: usize = 512;

/// How a server is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The model's folder.
    pub folder: PathBuf,
    /// The name under which it is asked for.
    pub name: String,
    /// The host to listen on.
    pub host: String,
    /// The port; 0 for any that is free.
    pub port: u16,
    /// What clients must send as a bearer token.
    pub token: Option<String>,
    /// Tokens of an answer at most, also where a request asks for more.
    pub max_tokens: usize,
    /// How much waits and how long a prompt may be.
    pub room: Room,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
}

struct Shared {
    engine: Engine,
    stopper: Stopper,
    settings: Settings,
    started: u64,
    requests: AtomicU64,
    connections: AtomicUsize,
    /// Requests that are read and not answered yet.
    busy: (Mutex<usize>, Condvar),
}

/// Ends a server from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
}

impl Stopper {
    /// Takes no more connections; what was asked is answered.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Server {
    /// Loads the model and listens; nothing is answered yet.
    pub fn open(settings: Settings) -> Result<Self> {
        let address = format!("{}:{}", settings.host, settings.port);
        let listener = TcpListener::bind((settings.host.as_str(), settings.port))
            .map_err(|source| Error::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::System { what: "read the address", source })?;
        let engine = Engine::start(&settings.folder, settings.room)?;
        let stop = Arc::<AtomicBool>::default();
        let shared = Shared {
            engine,
            stopper: Stopper { stop: stop.clone(), address },
            settings,
            started: now(),
            requests: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            busy: Default::default(),
        };
        Ok(Self { listener, shared: Arc::new(shared), stop })
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.shared.stopper.address
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.shared.stopper.clone()
    }

    /// Answers until it is stopped and all that was asked is answered.
    pub fn run(self) -> Result<()> {
        for stream in self.listener.incoming() {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            // A connection that ended before it began, or too many open files: the next one may do.
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let shared = self.shared.clone();
            if shared.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
                let _ = http::write(&mut &stream, &full("too many connections"), false);
                shared.connections.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let serve = move || {
                let _ = connection(&shared, &stream);
                shared.connections.fetch_sub(1, Ordering::SeqCst);
            };
            if let Err(error) = std::thread::Builder::new().name("connection".to_owned()).spawn(serve) {
                self.shared.connections.fetch_sub(1, Ordering::SeqCst);
                eprintln!("warning: a connection has no thread: {error}");
            }
        }
        drop(self.listener);
        let ended = self.shared.engine.end();
        let (busy, idle) = &self.shared.busy;
        let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy > 0 {
            busy = idle.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        ended
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn full(message: &str) -> Reply {
    Reply { retry_after: Some(COME_BACK), ..Reply::error(429, message) }
}

fn connection(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let (mut from, mut to) = (BufReader::new(stream), BufWriter::new(stream));
    loop {
        let request = match http::read(&mut from, &mut to, BODY)? {
            Read1::End => return Ok(()),
            Read1::Refused(reply) => return http::write(&mut to, &reply, false),
            Read1::Request(request) => request,
        };
        let _busy = Busy::begin(shared);
        let reply = answer(shared, &request);
        http::write(&mut to, &reply, request.keep_alive)?;
        if !request.keep_alive {
            return Ok(());
        }
    }
}

/// A request under way.
struct Busy<'a>(&'a Shared);

impl<'a> Busy<'a> {
    fn begin(shared: &'a Shared) -> Self {
        *shared.busy.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(shared)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *self.0.busy.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.busy.1.notify_all();
    }
}

fn answer(shared: &Shared, request: &Request) -> Reply {
    if request.path == "/health" {
        return match shared.engine.is_alive() {
            true => Reply::ok(json!({"status": "ok", "pending": shared.engine.pending()})),
            false => Reply::error(503, "the server is ending"),
        };
    }
    if let Some(token) = &shared.settings.token
        && !request.token.as_ref().is_some_and(|given| is_same(given, token))
    {
        return Reply::error(401, "send the server's token: Authorization: Bearer TOKEN");
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/v1/models") => Reply::ok(json!({"object": "list", "data": [model(shared)]})),
        ("POST", "/v1/chat/completions") => wire::chat(&request.body)
            .map_or_else(|problem| Reply::error(400, problem), |asked| generate(shared, asked, true)),
        ("POST", "/v1/completions") => wire::completions(&request.body)
            .map_or_else(|problem| Reply::error(400, problem), |asked| generate(shared, asked, false)),
        ("GET" | "HEAD", path) if path.strip_prefix("/v1/models/").is_some_and(|name| name == shared.settings.name) => {
            Reply::ok(model(shared))
        }
        (_, "/v1/chat/completions" | "/v1/completions" | "/v1/models") => {
            Reply::error(405, format!("{} is not for {}", request.method, request.path))
        }
        (_, path) => Reply::error(
            404,
            format!("there is no {path}; there are /v1/chat/completions, /v1/completions, /v1/models and /health"),
        ),
    }
}

/// Compares in a time that does not tell how much is right.
fn is_same(given: &str, token: &str) -> bool {
    let differing = given.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == token.len() && differing == 0
}

fn model(shared: &Shared) -> Value {
    json!({"id": shared.settings.name, "object": "model", "created": shared.started, "owned_by": "fuseline"})
}

fn generate(shared: &Shared, asked: Asked, is_chat: bool) -> Reply {
    let (engine, settings) = (&shared.engine, &shared.settings);
    if let Some(name) = asked.model.as_ref().filter(|name| **name != settings.name) {
        return Reply::error(404, format!("the model {name:?} is not served here; this is {:?}", settings.name));
    }
    let mut params = asked.params;
    if asked.limited && params.max_tokens > settings.max_tokens {
        let (wanted, most) = (params.max_tokens, settings.max_tokens);
        return Reply::error(400, format!("max_tokens is {wanted}, and {most} are given at most (--max-tokens)"));
    }
    params.max_tokens = params.max_tokens.min(settings.max_tokens);
    let number = shared.requests.fetch_add(1, Ordering::SeqCst);
    let first_seed = asked.seed.unwrap_or_else(random);
    let seeds = |index: usize| first_seed.wrapping_add(index as u64);
    let samples: Vec<Sample> = (0..asked.n).map(|index| Sample { index, seed: seeds(index as usize) }).collect();
    let encoded: std::result::Result<Vec<Vec<u32>>, String> =
        asked.prompts.iter().map(|prompt| engine.encode(prompt)).collect();
    let prompts = match encoded {
        Ok(prompts) => prompts,
        Err(problem) => return Reply::error(400, problem),
    };
    match engine.admit(prompts.len() * samples.len()) {
        Ok(()) => {}
        Err(Refusal::Wrong(problem)) => return Reply::error(400, problem),
        Err(Refusal::Full) => return full("the queue is full"),
        Err(Refusal::Ending) => return Reply::error(503, "the server is ending"),
    }
    let prompt_tokens = prompts.iter().map(Vec::len).sum();
    let submit = |ids| engine.submit(ids, samples.clone(), params.clone());
    let waiting: Vec<_> = prompts.into_iter().map(submit).collect();
    let mut choices = Vec::new();
    for (place, completions) in waiting.into_iter().enumerate() {
        for _ in 0..asked.n {
            let Ok(completion) = completions.recv() else {
                shared.stopper.stop();
                return Reply::error(500, "the model failed; see what the server wrote");
            };
            let tokens = if params.logprobs { engine.pieces(&completion.ids) } else { Vec::new() };
            let index = place * asked.n as usize + completion.sample as usize;
            choices.push(Choice { index, completion, tokens });
        }
    }
    choices.sort_by_key(|choice| choice.index);
    let id = format!("fuseline-{}-{number}", shared.started);
    let about = About { id: &id, model: &settings.name, created: now(), prompt_tokens };
    Reply::ok(if is_chat { wire::chat_reply(&about, &choices) } else { wire::completions_reply(&about, &choices) })
}

/// The seed of a request that names none.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
