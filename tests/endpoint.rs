//! Models that answer elsewhere, against a server that fails on purpose: what is
//! asked, what is paid for, what is kept.

pub mod server;

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Done, Home};
use server::{Act, Asked, Server};

/// A pipeline that asks an endpoint. `how` are further parameters of the
/// endpoint, `sampling` those of `sample`.
fn pipeline(home: &Home, server: &Server, prompts: usize, how: &str, sampling: &str) {
    let line = |number| format!("{{\"prompt\": \"say {number:03}\", \"prompt_id\": \"p{number}\"}}\n");
    home.write("prompts.jsonl", (0..prompts).map(line).collect::<String>());
    let via = server.url();
    home.write(
        "p.yaml",
        format!(
            "name: p\nseed: 5\nstages:\n  prompts: {{op: load, with: {{path: prompts.jsonl, as: prompt}}}}\n  \
             teacher: {{op: endpoint, with: {{url: 'http://model.test/v1', model: tutor, via: '{via}', {how}}}}}\n  \
             answers:\n    op: sample\n    inputs: {{prompts: prompts, model: teacher}}\n    retry: {{times: 0}}\n    \
             with: {{label: tutor, max_tokens: 16, {sampling}}}\n"
        ),
    );
}

fn rows(home: &Home, query: &str) -> Vec<Value> {
    serde_json::from_str(&home.ok(&["sql", "p.yaml", query, "--format", "json"])).expect("a list of rows")
}

#[test]
fn ask_6_every_row_is_paid_for_once_and_a_further_prompt_costs_its_own() {
    let (home, server) = (Home::new(), Server::start(|_| Act::Answer));
    pipeline(&home, &server, 30, "max_concurrency: 64", "n: 2");
    home.ok(&["run", "p.yaml"]);
    assert_eq!((server.asked(), server.bodies()), (60, (60, 1)));
    let first =
        rows(&home, "SELECT text, finish_reason, n_tokens, seed, source FROM answers ORDER BY prompt_id, sample")
            .remove(0);
    let seed = first["seed"].as_i64().expect("a seed");
    let text = format!("you said say 000 {seed}");
    assert_eq!(first, json!({"text": text, "finish_reason": "stop", "n_tokens": 5, "seed": seed, "source": "tutor"}));
    home.ok(&["run", "p.yaml", "--set", "answers.label=other"]);
    assert_eq!(server.asked(), 60, "another label asks nobody");
    pipeline(&home, &server, 35, "max_concurrency: 64", "n: 3");
    home.ok(&["run", "p.yaml"]);
    assert_eq!((server.asked(), server.bodies()), (105, (105, 1)));
    let used = "SELECT tokens_in, tokens_out, price_usd FROM system.stages WHERE stage = 'answers' AND outcome = 'ran'";
    let sum = |name: &str| rows(&home, used).iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
    assert_eq!((sum("tokens_in"), sum("tokens_out")), server.billed());
}

#[test]
fn asking_an_endpoint_starts_no_worker() {
    let (home, server) = (Home::new(), Server::start(|_| Act::Answer));
    pipeline(&home, &server, 2, "", "n: 1");
    // A copy of the program whose worker cannot be started.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let driver = folder.path().join("fuseline");
    std::fs::hard_link(env!("CARGO_BIN_EXE_fuseline"), &driver).expect("one file system");
    std::fs::write(folder.path().join("fuseline-worker"), "no program").expect("written");
    let done = Done::of(home.command_of(&driver, &["run", "p.yaml"]).output().expect("the copy starts"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(server.asked(), 2);
}

#[test]
fn ask_7_questions_that_fail_are_rows_of_their_own_and_never_remembered() {
    let refuse = |asked: &Asked| match asked.text() {
        "say 001" => Act::Say(400, "", "{\"error\": {\"message\": \"too long\"}}"),
        _ => Act::Answer,
    };
    let (home, server) = (Home::new(), Server::start(refuse));
    pipeline(&home, &server, 4, "", "n: 2");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let words = "2 of 8 rows failed: prompt \"p1\": the endpoint refuses it: status 400: too long";
    assert!(done.stderr.contains(words), "{}", done.stderr);
    assert_eq!(server.asked(), 8);
    pipeline(&home, &server, 4, "", "n: 2, max_failed_rows: 2");
    home.ok(&["run", "p.yaml"]);
    assert_eq!(server.asked(), 10, "those that failed are asked again, and no other");
    let failed = rows(&home, "SELECT prompt_id, sample, reason FROM answers.failed ORDER BY sample");
    let reason = "the endpoint refuses it: status 400: too long";
    assert_eq!(failed, [0, 1].map(|sample| json!({"prompt_id": "p1", "sample": sample, "reason": reason})));
}

#[test]
fn ask_5_a_killed_run_pays_at_most_for_what_was_under_way() {
    let (home, server) = (Home::new(), Server::start(|_| Act::AnswerAfter(Duration::from_millis(20))));
    pipeline(&home, &server, 200, "max_concurrency: 4", "n: 1");
    let mut run = home.command(&["run", "p.yaml"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    while server.asked() < 60 {
        std::thread::sleep(Duration::from_millis(2));
    }
    run.kill().expect("the run can be killed");
    run.wait().expect("the run ends");
    let before = server.asked();
    assert!(before < 200, "the run is too short to be killed");
    home.ok(&["run", "p.yaml"]);
    let (different, most) = server.bodies();
    assert!(different == 200 && most <= 2, "{different}, {most}");
    assert!(server.asked() <= 204, "{} for 200 rows, 4 at a time", server.asked());
}

#[test]
fn the_spending_limit_holds_over_runs_and_answers_are_kept() {
    let (home, server) = (Home::new(), Server::start(|_| Act::AnswerAfter(Duration::from_millis(1))));
    // A question costs 0.00106 $, and 0.017 $ at worst.
    let how = |limit: &str| format!("max_concurrency: 64, prices: {{input: 10, output: 200}}, max_usd: {limit}");
    let billed = || (server.billed().0 as f64 * 10.0 + server.billed().1 as f64 * 200.0) / 1e6;
    pipeline(&home, &server, 100, &how("0.05"), "n: 1");
    for _ in 0..2 {
        let done = home.fuseline(&["run", "p.yaml"]);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(
            done.stderr.contains("the spending limit of $0.05 does not cover the next question"),
            "{}",
            done.stderr
        );
        assert!(done.stderr.contains("raise max_usd"), "{}", done.stderr);
        assert!(billed() <= 0.05, "{}", billed());
    }
    let paid = server.asked();
    assert!((10..100).contains(&paid), "{paid}");
    pipeline(&home, &server, 100, &how("1"), "n: 1");
    home.ok(&["run", "p.yaml"]);
    assert_eq!((server.asked(), server.bodies()), (100, (100, 1)), "nothing is paid for twice");
    let spent = rows(&home, "SELECT sum(price_usd) AS usd FROM system.attempts WHERE stage = 'answers'");
    let usd = spent[0]["usd"].as_f64().expect("a sum");
    assert!((usd - billed()).abs() < 1e-9, "{usd} {}", billed());
}

#[test]
fn how_an_endpoint_is_asked_holds_as_it_stands_now() {
    // A busy moment, then an answer that comes late.
    let act = |asked: &Asked| match asked.again {
        0 => Act::Say(500, "", "busy"),
        1 => Act::Stall,
        _ => Act::Answer,
    };
    let (home, server) = (Home::new(), Server::start(act));
    let run = |how: &str| {
        pipeline(&home, &server, 1, how, "n: 1, temperature: 0");
        home.fuseline(&["run", "p.yaml"])
    };
    let once = run("max_attempts: 1");
    assert_eq!(once.code, Some(3), "{}", once.stderr);
    assert!(once.stderr.contains("does not answer: status 500: busy, 1 times"), "{}", once.stderr);
    // The result of `teacher` is an earlier one, its limits are not.
    let late = run("max_attempts: 1, timeout_seconds: 0.2");
    assert!(late.stderr.contains("no whole answer within 0.2 s, 1 times"), "{}", late.stderr);
    let done =
        run("max_attempts: 1, prices: {input: 1, output: 2}, connect_timeout_seconds: 3, requests_per_minute: 600");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(server.asked(), 3);
    let usd = &rows(&home, "SELECT price_usd FROM system.stages WHERE stage = 'answers' AND outcome = 'ran'")[0];
    assert_eq!(usd["price_usd"], json!(1.4e-5), "6 tokens read and 4 written");
    // Nothing of it is in a key.
    assert_eq!(home.ran("p.yaml", &[]), [""; 0]);
}

#[test]
fn limits_of_a_minute_and_at_once_reach_the_client() {
    let (home, server) = (Home::new(), Server::start(|_| Act::AnswerAfter(Duration::from_millis(20))));
    pipeline(&home, &server, 12, "max_concurrency: 3", "n: 1");
    home.ok(&["run", "p.yaml"]);
    assert_eq!((server.asked(), server.most_at_once()), (12, 3));
    let begun = std::time::Instant::now();
    pipeline(&home, &server, 12, "requests_per_minute: 600", "n: 2");
    home.ok(&["run", "p.yaml"]);
    assert!(begun.elapsed() >= Duration::from_millis(1100), "twelve requests, a tenth of a second apart");
}

#[test]
fn a_connection_that_nobody_takes_is_given_up() {
    // Addresses for documentation (RFC 5737): nobody is there, or the network says so at once.
    let (home, server) = (Home::new(), Server::start(|_| Act::Answer));
    pipeline(&home, &server, 1, "max_attempts: 1, connect_timeout_seconds: 0.2", "n: 1");
    let text = std::fs::read_to_string(home.path("p.yaml")).expect("read");
    home.write("p.yaml", text.replace(&server.url(), "http://192.0.2.1:81/v1"));
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(3), "{}", done.stderr);
    assert!(done.stderr.contains("http://192.0.2.1:81/v1/chat/completions does not answer"), "{}", done.stderr);
}

#[test]
fn the_key_goes_to_the_server_and_nowhere_else() {
    let check = |asked: &Asked| match asked.key.as_deref() {
        Some("Bearer sk-hunter2-hunter2") => Act::Answer,
        other => {
            Act::Say(401, "", if other.is_none() { "{\"error\": \"no key\"}" } else { "{\"error\": \"bad key\"}" })
        }
    };
    let (home, server) = (Home::new(), Server::start(check));
    pipeline(&home, &server, 2, "api_key: !secret TUTOR_KEY", "n: 1");
    let run = |key: Option<&str>| {
        let mut command = home.command(&["run", "p.yaml"]);
        key.map(|key| command.env("TUTOR_KEY", key));
        Done::of(command.output().expect("the program starts"))
    };
    let missing = run(None);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    assert!(missing.stderr.contains("the secret TUTOR_KEY is not set"), "{}", missing.stderr);
    let wrong = run(Some("sk-wrong"));
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("refuses all questions: 401: bad key"), "{}", wrong.stderr);
    let right = run(Some("sk-hunter2-hunter2"));
    assert_eq!(right.code, Some(0), "{}", right.stderr);
    for path in crate::files(&home.path("store"), "") {
        let bytes = std::fs::read(&path).expect("a file of the store");
        assert!(!bytes.windows(10).any(|window| window == b"sk-hunter2"), "{}", path.display());
    }
}

#[test]
fn an_endpoint_is_refused_where_weights_are_needed() {
    let (home, server) = (Home::new(), Server::start(|_| Act::Answer));
    pipeline(&home, &server, 1, "", "n: 1");
    let text = std::fs::read_to_string(home.path("p.yaml")).expect("read");
    home.write(
        "p.yaml",
        text + "  scored: {op: logprobs, inputs: {texts: answers, model: teacher}, with: {label: t}}\n",
    );
    let done = home.fuseline(&["check", "p.yaml"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("an endpoint is not a model"), "{}", done.stderr);
    assert!(done.stderr.contains("p.yaml:11:"), "{}", done.stderr);
}

#[test]
fn answers_can_be_asked_to_follow_a_schema() {
    let want = |asked: &Asked| match asked.body.pointer("/response_format/json_schema/schema/type") {
        Some(kind) if kind == "object" => Act::Answer,
        _ => Act::Say(400, "", "{\"error\": \"no schema\"}"),
    };
    let (home, server) = (Home::new(), Server::start(want));
    home.write("schema.json", "{\"type\": \"object\"}");
    pipeline(&home, &server, 1, "json_schema: schema.json, max_tokens_name: max_completion_tokens", "n: 1");
    home.ok(&["run", "p.yaml"]);
    home.write("schema.json", "[1]");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("schema.json is no JSON Schema: expected an object"), "{}", done.stderr);
    home.write("schema.json", "{\"type\": \"string\"}");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert!(done.stderr.contains("no schema"), "another schema is another question: {}", done.stderr);
}

#[test]
fn completions_are_asked_with_the_bare_text() {
    let bare = |asked: &Asked| match (asked.path.as_str(), asked.body["prompt"].as_str(), &asked.body["seed"]) {
        ("/v1/completions", Some("say 000"), Value::Null) => Act::Answer,
        _ => Act::Say(400, "", "{}"),
    };
    let (home, server) = (Home::new(), Server::start(bare));
    pipeline(&home, &server, 1, "api: completions, send_seed: false", "n: 1");
    home.ok(&["run", "p.yaml"]);
    assert_eq!(rows(&home, "SELECT text FROM answers")[0]["text"], "you said say 000");
}
