//! The worker's side of `fuseline serve` and `chat`.

use std::io::IsTerminal;
use std::path::Path;

use fuseline_lm::Audience;
use fuseline_lm::generate::Params;
use fuseline_serve::{Error, Result, Server, Settings, chat};

use crate::handover::{Room, Task};

/// The variable that holds the token which clients of a server must send.
const TOKEN: &str = "FUSELINE_SERVE_TOKEN";

/// Does a task; gives the exit code.
pub fn run(task: &str) -> u8 {
    let task: Task = match serde_json::from_str(task) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("error: fuseline-worker is of another version: {error}\n  help: cargo build --release");
            return 3;
        }
    };
    match perform(task) {
        Ok(()) => 0,
        Err(error) => {
            let (code, text) = (exit_code(&error), error.to_string());
            let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            eprintln!("error: {message}");
            if !hint.is_empty() {
                eprintln!("  help: {hint}");
            }
            code
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Model(error) => match error.audience() {
            Audience::Input => 2,
            Audience::Environment => 3,
            Audience::Bug => 4,
        },
        Error::Token { .. } | Error::Setting { .. } => 2,
        Error::Listen { .. } | Error::System { .. } => 3,
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Serve { folder, name, host, port, token_file, max_tokens, room } => {
            let token = token(token_file.as_deref())?;
            let is_open = token.is_none();
            let settings = Settings { folder, name, host, port, token, max_tokens, room: room_of(room) };
            let name = settings.name.clone();
            let server = Server::open(settings)?;
            let (address, stopper) = (server.address(), server.stopper());
            if is_open && !address.ip().is_loopback() {
                eprintln!("warning: anyone who reaches {address} may use the model: set {TOKEN} or --token-file");
            }
            let mut asked = false;
            let handler = move || {
                if std::mem::replace(&mut asked, true) {
                    std::process::exit(130);
                }
                eprintln!("ending: what was asked is answered; press Ctrl-C again to end at once");
                stopper.stop();
            };
            if let Err(error) = ctrlc::set_handler(handler) {
                eprintln!("warning: Ctrl-C will end it at once: {error}");
            }
            println!("{name} is served at http://{address}/v1");
            server.run()
        }
        Task::Chat { folder, system, temperature, top_p, max_tokens, seed, room } => {
            let params = Params { temperature, top_p, max_tokens, ..Params::default() };
            let prompt = if std::io::stdin().is_terminal() { "> " } else { "" };
            let settings = chat::Settings { system, params, seed, room: room_of(room), prompt };
            chat::chat(&folder, &settings, &mut std::io::stdin().lock(), &mut std::io::stdout().lock())
        }
    }
}

fn room_of(room: Room) -> fuseline_serve::Room {
    let threads = match room.threads {
        0 => std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        threads => threads,
    };
    fuseline_serve::Room { queue: room.queue, context: room.context, threads }
}

/// The token that clients must send: a file's, or the environment's.
fn token(file: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = file else {
        return Ok(std::env::var(TOKEN).ok().filter(|token| !token.is_empty()));
    };
    let wrong = |problem: String| Error::Token { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        token => Ok(Some(token.to_owned())),
    }
}
