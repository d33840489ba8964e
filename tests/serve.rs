//! `fuseline serve` and `chat`: the texts of `sample` over HTTP, and what a
//! server must stand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use crate::harness::{Done, Home};

/// A small model, and answers of it to prompts out of a file.
const PIPELINE: &str = "\
name: local
seed: 3
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 16}}}
  vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: byte_level_bpe, vocab_size: 290, chat: chatml}}
  blank:
    op: init_model
    inputs: {tokenizer: vocabulary}
    with: {family: llama, hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2, max_positions: 128}
  prompts: {op: load, with: {path: prompts.jsonl, as: prompt}}
  answers:
    op: sample
    inputs: {prompts: prompts, model: blank}
    with: {label: blank, n: 3, max_tokens: 24, temperature: 0.9, top_p: 0.95, top_k: 100, min_p: 0.001, repetition_penalty: 1.1, stop: [\"zq\"]}
";

fn local() -> Arc<Home> {
    static SHARED: Mutex<Weak<Home>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(home) = shared.upgrade() {
        return home;
    }
    let home = Arc::new(Home::new());
    let line = |number| format!("{{\"prompt\": \"say {number}\", \"prompt_id\": \"p{number:02}\"}}\n");
    home.write("prompts.jsonl", (0..25).map(line).collect::<String>());
    home.write("local.yaml", PIPELINE);
    home.ok(&["run", "local.yaml"]);
    *shared = Arc::downgrade(&home);
    home
}

/// A server that runs; it is killed with this value.
struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(home: &Home, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let arguments = [&["serve", "local.yaml", "blank", "--port", "0", "--threads", "1"], more].concat();
        let mut command = home.command(&arguments);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("blank is served at http://").and_then(|rest| rest.strip_suffix("/v1"));
        let Some(address) = address.map(str::to_owned) else {
            let mut said = String::new();
            let _ = process.stderr.take().expect("it is piped").read_to_string(&mut said);
            panic!("{line}{said}");
        };
        Self { process, address }
    }

    fn ask_with(&self, method: &str, path: &str, header: &str, body: &str) -> (u16, Value, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("answered");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).expect("JSON"), head.to_owned())
    }

    fn ask(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, reply, _) = self.ask_with("POST", path, "", &body.to_string());
        (status, reply)
    }

    /// Sends a signal and waits for the end.
    fn end(mut self, signal: &str) -> Done {
        let sent = std::process::Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("kill starts").success());
        let status = self.process.wait().expect("it ends");
        let mut stderr = String::new();
        self.process.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("a text");
        Done { code: status.code(), stdout: String::new(), stderr }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn our_client_and_our_server_give_the_texts_of_sample() {
    let home = local();
    let server = Served::start(&home, &[], &[]);
    let there = PIPELINE
        .replace("name: local", "name: there")
        .replace("model: blank}\n    with: {label: blank", "model: far}\n    with: {label: blank")
        + &format!(
            "  far: {{op: endpoint, with: {{url: 'http://blank.test/v1', model: blank, via: 'http://{}/v1', max_concurrency: 64}}}}\n",
            server.address
        );
    home.write("there.yaml", there);
    home.ok(&["run", "there.yaml"]);
    let rows = |file: &str| {
        let query =
            "SELECT prompt_id, sample, text, finish_reason, n_tokens, seed FROM answers ORDER BY prompt_id, sample";
        let text = home.ok(&["sql", file, query, "--format", "json"]);
        serde_json::from_str::<Vec<Value>>(&text).expect("rows")
    };
    let (here, there) = (rows("local.yaml"), rows("there.yaml"));
    assert_eq!(here.len(), 75);
    assert_eq!(here, there);
    let different: std::collections::BTreeSet<&str> = here.iter().filter_map(|row| row["text"].as_str()).collect();
    assert!(different.len() > 60, "answers differ: {}", different.len());
}

#[test]
fn the_interfaces_answer_as_openais_do() {
    let home = local();
    let server = Served::start(&home, &["--max-tokens", "30"], &[]);
    let (status, models, _) = server.ask_with("GET", "/v1/models", "", "");
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("blank")));
    assert_eq!(server.ask_with("GET", "/v1/models/blank", "", "").0, 200);
    let (status, health, _) = server.ask_with("GET", "/health", "", "");
    assert_eq!((status, health), (200, json!({"status": "ok", "pending": 0})));

    let turns = json!([{"role": "user", "content": "say 1"}]);
    let (status, reply) = server.ask(
        "/v1/chat/completions",
        json!({"model": "blank", "messages": turns, "n": 3, "seed": 5, "max_tokens": 9, "logprobs": true}),
    );
    assert_eq!(
        (status, &reply["object"], reply["choices"].as_array().map(Vec::len)),
        (200, &json!("chat.completion"), Some(3))
    );
    let mut written = 0;
    for (index, choice) in reply["choices"].as_array().expect("choices").iter().enumerate() {
        assert_eq!((&choice["index"], &choice["message"]["role"]), (&json!(index), &json!("assistant")));
        let tokens = choice["logprobs"]["content"].as_array().expect("log-probabilities");
        assert!(tokens.iter().all(|token| token["logprob"].as_f64().is_some_and(|logp| logp <= 0.0)), "{choice}");
        written += tokens.len();
    }
    assert_eq!(reply["usage"]["completion_tokens"], json!(written));
    // The second of three is the first of its own seed.
    let (_, one) = server.ask("/v1/chat/completions", json!({"messages": turns, "seed": 6, "max_tokens": 9}));
    assert_eq!(one["choices"][0]["message"], reply["choices"][1]["message"]);
    assert_eq!(one["choices"][0]["logprobs"], Value::Null);

    let texts = json!({"prompt": ["one", "two"], "n": 2, "temperature": 0, "max_tokens": 4, "logprobs": 1});
    let (status, reply) = server.ask("/v1/completions", texts);
    let choices = reply["choices"].as_array().expect("choices");
    assert_eq!((status, choices.len(), &choices[0]["text"]), (200, 4, &choices[1]["text"]));
    assert_eq!(choices[0]["logprobs"]["tokens"].as_array().map(Vec::len), Some(4));
    let (status, reply) = server.ask("/v1/completions", json!({"prompt": [5, 6, 7], "seed": 1}));
    assert_eq!((status, &reply["usage"]["prompt_tokens"]), (200, &json!(3)));
    // Without a limit the server's holds.
    let (_, reply) = server.ask("/v1/chat/completions", json!({"messages": turns, "ignore_eos": true}));
    assert_eq!(reply["usage"]["completion_tokens"], 30);
}

#[test]
fn what_cannot_be_answered_is_refused_with_the_reason() {
    let home = local();
    let server = Served::start(&home, &["--queue", "6", "--max-tokens", "30"], &[]);
    let refused = |path: &str, body: Value| {
        let (status, reply) = server.ask(path, body);
        (status, reply["error"]["message"].as_str().expect("a message").to_owned())
    };
    let chat = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        more.as_object().expect("a map").iter().for_each(|(name, value)| body[name] = value.clone());
        refused("/v1/chat/completions", body)
    };
    assert_eq!(chat(json!({"stream": true})), (400, "stream is not offered here".into()));
    assert_eq!(chat(json!({"model": "other"})).0, 404);
    assert_eq!(chat(json!({"max_tokens": 31})).1, "max_tokens is 31, and 30 are given at most (--max-tokens)");
    assert_eq!(chat(json!({"n": 71})).1, "71 answers are asked for, and 70 are taken at once (--queue)");
    let long = json!({"messages": [{"role": "user", "content": "very long ".repeat(200)}]});
    assert!(refused("/v1/chat/completions", long).1.ends_with("and 128 are taken with its answer"));
    let beyond = refused("/v1/completions", json!({"prompt": [9999]})).1;
    assert!(beyond.starts_with("token 9999 is beyond the vocabulary of 2"), "{beyond}");
    assert_eq!(refused("/v1/completions", json!({"prompt": [9], "temperature": "hot"})).0, 400);
    assert_eq!(refused("/v1/embeddings", json!({})).0, 404);
    assert_eq!(server.ask_with("GET", "/v1/chat/completions", "", "").0, 405);
    assert_eq!(server.ask_with("POST", "/v1/completions", "", "no JSON").0, 400);
    // It still answers.
    assert_eq!(server.ask("/v1/completions", json!({"prompt": "a"})).0, 200);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let home = local();
    let server = Served::start(&home, &["--queue", "1"], &[]);
    let body = json!({"prompt": "a", "n": 60, "ignore_eos": true, "max_tokens": 110}).to_string();
    // How long the first keeps the engine busy depends on the machine, so it may take more than one try.
    let seen = (0..50).any(|_| {
        std::thread::scope(|scope| {
            let first = scope.spawn(|| server.ask_with("POST", "/v1/completions", "", &body).0);
            while !first.is_finished() && server.ask_with("GET", "/health", "", "").1["pending"] == 0 {}
            let (status, reply, head) = server.ask_with("POST", "/v1/completions", "", &body);
            assert_eq!(first.join().expect("no panic"), 200);
            let full = status == 429;
            assert!(!full || (head.contains("retry-after: 1") && reply["error"]["message"] == "the queue is full"));
            full
        })
    });
    assert!(seen);
}

#[test]
fn a_token_is_asked_for_where_there_is_one() {
    let home = local();
    home.write("token", "sesame\n");
    for server in [
        Served::start(&home, &["--token-file", "token"], &[]),
        Served::start(&home, &[], &[("FUSELINE_SERVE_TOKEN", "sesame")]),
    ] {
        let ask = |header: &str| server.ask_with("POST", "/v1/completions", header, "{\"prompt\": \"a\"}").0;
        assert_eq!(ask(""), 401);
        assert_eq!(ask("authorization: Bearer sesam\r\n"), 401);
        assert_eq!(ask("authorization: Bearer sesame\r\n"), 200);
        assert_eq!(server.ask_with("GET", "/health", "", "").0, 200, "health is for everyone");
    }
}

#[test]
fn a_signal_ends_it_when_what_was_asked_is_answered() {
    let home = local();
    let server = Served::start(&home, &[], &[]);
    let body = json!({"prompt": "a", "n": 100, "ignore_eos": true, "max_tokens": 110}).to_string();
    let (send, answered) = std::sync::mpsc::channel();
    let address = server.address.clone();
    let asking = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let length = body.len();
        let text =
            format!("POST /v1/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("answered");
        send.send(reply).expect("it is waited for");
    });
    while server.ask_with("GET", "/health", "", "").1["pending"] == 0 && !asking.is_finished() {}
    let done = server.end("-TERM");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let reply = answered.recv().expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
    asking.join().expect("no panic");
}

#[test]
fn what_cannot_be_served_is_told_with_what_to_type() {
    let home = local();
    let said = |arguments: &[&str]| {
        let done = home.fuseline(arguments);
        (done.code, done.stderr)
    };
    let (code, text) = said(&["serve", "nowhere"]);
    assert!(code == Some(2) && text.contains("nowhere is no model folder\n  help: give a folder"), "{text}");
    let (code, text) = said(&["serve", "local.yaml"]);
    assert!(code == Some(2) && text.contains("help: name the stage that made the model"), "{text}");
    let (code, text) = said(&["serve", "local.yaml", "answers"]);
    assert!(code == Some(2) && text.contains("answers makes no model folder"), "{text}");
    let (code, text) = said(&["serve", "local.yaml", "blank", "--token-file", "missing"]);
    assert!(code == Some(2) && text.contains("failed to read the token from missing"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, text) = said(&["serve", "local.yaml", "blank", "--port", &port]);
    assert!(code == Some(3) && text.contains("failed to listen on 127.0.0.1:") && text.contains("--port"), "{text}");
}

#[test]
fn a_conversation_goes_on_from_what_was_said() {
    let home = local();
    let talk = |more: &[&str], lines: &str| {
        let arguments = [&["chat", "local.yaml", "blank", "--max-tokens", "8"], more].concat();
        let mut command = home.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        process.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("said");
        let done = Done::of(process.wait_with_output().expect("it ends"));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stdout
    };
    let drawn = ["--temperature", "1", "--seed", "4"];
    let once = talk(&drawn, "hello\n");
    assert!(!once.trim().is_empty());
    let twice = talk(&drawn, "hello\nhello\n");
    assert!(twice.starts_with(&once) && twice.len() > once.len(), "{once:?} {twice:?}");
    let anew = talk(&drawn, "hello\n/new\n\nhello\n/exit\nmore\n");
    assert_eq!(anew, once.repeat(2), "a conversation that begins anew says the same");
    let (five, six) = (talk(&["--seed", "5"], "hello\n"), talk(&["--seed", "6"], "hello\n"));
    assert!(five == talk(&["--seed", "5"], "hello\n") && five != six);
    let told = "be brief ".repeat(100);
    let refused = talk(&["--seed", "4", "--system", &told], "hello\n");
    assert!(refused.contains("and 128 are taken with its answer"), "the model is told that first: {refused}");
    let long = talk(&drawn, &format!("{}\nhello\n", "very long ".repeat(100)));
    assert!(
        long.contains("and 128 are taken with its answer; type /new to begin anew)") && long.ends_with(&once),
        "{long}"
    );
}
