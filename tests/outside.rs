//! Servers and clients that nobody here wrote: our client asks `transformers
//! serve`, and OpenAI's own client asks `fuseline serve`. Both need what `make
//! peers` installs; without it these tests say so and pass.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Done, Home};

/// A small model that was trained a little, and its greedy answers.
const PIPELINE: &str = "\
name: local
seed: 3
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 24}}}
  vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: byte_level_bpe, vocab_size: 300, chat: chatml}}
  blank:
    op: init_model
    inputs: {tokenizer: vocabulary}
    with: {family: llama, hidden_size: 32, intermediate_size: 64, layers: 2, heads: 2, max_positions: 256}
  tutor: {op: sft, inputs: {examples: lessons.examples, model: blank}, with: {train: {steps: 12, batch_size: 8, learning_rate: 3.0e-3}}}
  prompts: {op: load, with: {path: prompts.jsonl, as: prompt}}
  answers:
    op: sample
    inputs: {prompts: prompts, model: tutor}
    with: {label: tutor, max_tokens: 20, temperature: 0}
";

fn local() -> Home {
    let home = Home::new();
    let line =
        |number| format!("{{\"prompt\": \"reverse the word number {number}\", \"prompt_id\": \"p{number:02}\"}}\n");
    home.write("prompts.jsonl", (0..10).map(line).collect::<String>());
    home.write("local.yaml", PIPELINE);
    home.ok(&["run", "local.yaml"]);
    home
}

/// The Python of the peers, if it has all that is needed.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("FUSELINE_PEERS_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| crate::root().join(".peers/venv/bin/python"));
    let has = Command::new(&python).args(["-c", "import transformers, fastapi, uvicorn, openai"]).output();
    let found = has.is_ok_and(|done| done.status.success());
    if !found {
        println!("skipped: no Python with transformers[serving]; make peers, or set FUSELINE_PEERS_PYTHON");
    }
    found.then_some(python)
}

/// A process that is killed with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn texts(home: &Home, file: &str) -> Vec<Value> {
    let query = "SELECT prompt_id, text, finish_reason, n_tokens FROM answers ORDER BY prompt_id, sample";
    serde_json::from_str(&home.ok(&["sql", file, query, "--format", "json"])).expect("rows")
}

#[test]
fn transformers_serve_gives_the_greedy_texts_of_sample() {
    let Some(python) = python() else { return };
    let home = local();
    let model = home.ok(&["path", "local.yaml", "tutor"]).trim().to_owned();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let port = free.port().to_string();
    let mut server = Command::new(&python);
    server
        .args(["-c", "from transformers.cli.transformers import main; main()", "serve", "--host", "127.0.0.1"])
        .args(["--port", &port, "--device", "cpu", "--dtype", "float32"])
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", home.path("hf"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(home.path("server.log")).expect("a log"));
    let mut server = Running(server.spawn().expect("Python starts"));
    let log = || std::fs::read_to_string(home.path("server.log")).unwrap_or_default();
    while TcpStream::connect(free).is_err() {
        assert_eq!(server.0.try_wait().expect("its state"), None, "it ended: {}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let there = |name: &str, sampling: &str| {
        let text = PIPELINE.replace("name: local", &format!("name: {name}")).replace(
            "prompts: prompts, model: tutor}\n    with: {label: tutor, max_tokens: 20, temperature: 0}",
            &format!("prompts: prompts, model: far}}\n    with: {{label: tutor, max_tokens: 20, {sampling}}}"),
        ) + &format!(
            "  far: {{op: endpoint, with: {{url: 'http://tutor.test/v1', model: '{model}', via: 'http://127.0.0.1:{port}/v1', max_concurrency: 4}}}}\n"
        );
        let file = format!("{name}.yaml");
        home.write(&file, text);
        let done = home.fuseline(&["run", &file]);
        assert_eq!(done.code, Some(0), "{}\n{}", done.stderr, log());
        file
    };
    let greedy = there("greedy", "temperature: 0");
    let (here, far) = (texts(&home, "local.yaml"), texts(&home, &greedy));
    for (here, far) in here.iter().zip(&far) {
        assert_eq!((&here["prompt_id"], &here["text"]), (&far["prompt_id"], &far["text"]), "{here} {far}");
        assert_eq!(here["finish_reason"], far["finish_reason"], "{here} {far}");
    }
    assert_eq!(here.len(), 10);
    // Draws are its own: they are there, counted, and remembered.
    let drawn = there("drawn", "n: 2, temperature: 0.9, top_p: 0.9");
    assert!(texts(&home, &drawn).iter().all(|row| row["n_tokens"].as_u64() > Some(0)));
    drop(server);
    assert_eq!(home.fuseline(&["run", &drawn, "--set", "answers.label=other"]).code, Some(0), "no server is needed");
}

#[test]
fn openais_own_client_understands_our_server() {
    let Some(python) = python() else { return };
    let home = local();
    let mut server = home.command(&["serve", "local.yaml", "tutor", "--port", "0"]);
    server.env("FUSELINE_SERVE_TOKEN", "sesame").stdout(Stdio::piped());
    let mut server = Running(server.spawn().expect("the program starts"));
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let url = line.trim().strip_prefix("tutor is served at ").expect("an address").to_owned();
    let script = "\
import sys, json, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key='sesame', max_retries=0)
turns = [{'role': 'user', 'content': 'reverse the word number 3'}]
chat = client.chat.completions.create(model='tutor', messages=turns, temperature=0, max_tokens=20, logprobs=True)
text = client.completions.create(model='tutor', prompt='reverse', n=2, seed=1, max_tokens=5)
names = [model.id for model in client.models.list()]
try:
    openai.OpenAI(base_url=sys.argv[1], api_key='wrong', max_retries=0).models.list()
    refused = 'no'
except openai.AuthenticationError as error:
    refused = str(error.status_code)
try:
    client.chat.completions.create(model='tutor', messages=turns, stream=True)
    streamed = 'yes'
except openai.BadRequestError as error:
    streamed = error.body['message']
print(json.dumps([chat.choices[0].message.content, len(chat.choices[0].logprobs.content) == chat.usage.completion_tokens,
    len(text.choices), names, refused, streamed]))
";
    let done = Command::new(python).args(["-c", script, &url]).output().expect("Python starts");
    let done = Done::of(done);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let here = texts(&home, "local.yaml");
    assert_eq!(said[0], here[3]["text"]);
    assert_eq!(
        said.to_string().split_once(',').map(|(_, rest)| rest),
        Some("true,2,[\"tutor\"],\"401\",\"stream is not offered here\"]")
    );
}
