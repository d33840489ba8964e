//! A conversation in a terminal, or of lines from a pipe.

use std::io::{BufRead, Write};
use std::path::Path;

use fuseline_lm::generate::{Params, Sample};
use fuseline_lm::template::Message;

use crate::engine::{Engine, Room};
use crate::error::{Error, Result};
use crate::wire::Prompt;

/// How a conversation is held.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the model is told first.
    pub system: Option<String>,
    /// How tokens are chosen.
    pub params: Params,
    /// The seed of a conversation's first answer; each further one has the next number.
    pub seed: u64,
    /// The engine's room.
    pub room: Room,
    /// What stands before a person's line; empty where nobody looks.
    pub prompt: &'static str,
}

/// Reads turns, one a line, and writes answers, until the input ends. `/new` begins anew, `/exit` ends it.
pub fn chat(folder: &Path, settings: &Settings, from: &mut dyn BufRead, to: &mut dyn Write) -> Result<()> {
    let engine = Engine::start(folder, settings.room)?;
    if !engine.takes_chats() {
        return Err(Error::Setting {
            problem: "the model has no chat template\nhint: add chat_template.jinja to its folder".to_owned(),
        });
    }
    let system = settings.system.iter().map(|text| Message::new("system", text.as_str()));
    let beginning: Vec<Message> = system.collect();
    let mut turns = beginning.clone();
    let failed = |source| Error::System { what: "read or write the conversation", source };
    loop {
        write!(to, "{}", settings.prompt).and_then(|()| to.flush()).map_err(failed)?;
        let mut line = String::new();
        if from.read_line(&mut line).map_err(failed)? == 0 {
            break;
        }
        let said = line.trim();
        match said {
            "" => continue,
            "/exit" => break,
            "/new" => {
                turns = beginning.clone();
                continue;
            }
            _ => turns.push(Message::new("user", said)),
        }
        let answered = turns.iter().filter(|turn| turn.role == "assistant").count() as u64;
        let sample = Sample { index: 0, seed: settings.seed.wrapping_add(answered) };
        let ids = match engine.encode(&Prompt::Chat(turns.clone())) {
            Ok(ids) => ids,
            Err(problem) => {
                turns.pop();
                writeln!(to, "({problem}; type /new to begin anew)").map_err(failed)?;
                continue;
            }
        };
        if engine.admit(1).is_err() {
            break;
        }
        let answer = engine.submit(ids, vec![sample], settings.params.clone()).recv();
        // The engine's own error is told when it ends.
        let Ok(answer) = answer else { break };
        writeln!(to, "{}", answer.text).map_err(failed)?;
        turns.push(Message::new("assistant", answer.text));
    }
    engine.end()
}
