//! Answers judged by a model: by an endpoint whose taste is known, and by a
//! model of ours that knows nothing.

use serde_json::{Value, json};

use crate::endpoint::server::{Act, Asked, Server};
use crate::harness::Home;

/// Answers to four prompts, of a model and of its baseline.
fn answers(home: &Home) {
    let row = |prompt: &str, source: &str, text: &str| {
        let turns = json!([{"role": "user", "content": format!("question {prompt}")}]);
        format!("{}\n", json!({"prompt_id": prompt, "messages": turns, "source": source, "sample": 0, "text": text}))
    };
    let ours = [("p1", "good"), ("p2", "poor"), ("p3", "fair"), ("p4", "biased")];
    let theirs = [("p4", "biased"), ("p3", "fair"), ("p2", "good"), ("p1", "poor")];
    home.write("ours.jsonl", ours.map(|(prompt, text)| row(prompt, "owl", text)).concat());
    home.write("theirs.jsonl", theirs.map(|(prompt, text)| row(prompt, "fox", text)).concat());
}

fn pipeline(home: &Home, judge: &str, inputs: &str, with: &str) {
    home.write(
        "p.yaml",
        format!(
            "name: p\nseed: 5\nstages:\n  ours: {{op: load, with: {{path: ours.jsonl, as: response}}}}\n  \
             theirs: {{op: load, with: {{path: theirs.jsonl, as: response}}}}\n{judge}  \
             judged: {{op: judge, retry: {{times: 0}}, inputs: {{responses: ours, model: critic{inputs}}}, with: {{label: critic, {with}}}}}\n"
        ),
    );
}

fn rows(home: &Home, query: &str) -> Vec<Value> {
    serde_json::from_str(&home.ok(&["sql", "p.yaml", query, "--format", "json"])).expect("a list of rows")
}

/// What stands between two marks of a prompt.
fn within<'t>(text: &'t str, mark: &str) -> &'t str {
    let from = text.split_once(&format!("<{mark}>\n")).map_or("", |(_, rest)| rest);
    from.split_once(&format!("\n</{mark}>")).map_or("", |(inner, _)| inner)
}

fn critic(server: &Server) -> String {
    format!(
        "  critic: {{op: endpoint, with: {{url: 'http://critic.test/v1', model: critic, via: '{}'}}}}\n",
        server.url()
    )
}

#[test]
fn pairs_are_compared_in_both_orders_and_a_judge_of_places_gives_ties() {
    let taste = |asked: &Asked| {
        let (a, b) = (within(asked.text(), "answer_a"), within(asked.text(), "answer_b"));
        let verdict = match (a, b) {
            ("good", "poor") | ("biased", _) => "A",
            ("poor", "good") => "B",
            _ => "tie",
        };
        Act::AnswerWith(format!("{a} beside {b}.\n**Verdict: {verdict}**"))
    };
    let (home, server) = (Home::new(), Server::start(taste));
    answers(&home);
    pipeline(&home, &critic(&server), ", baseline: theirs", "mode: pairwise");
    home.ok(&["run", "p.yaml"]);
    assert_eq!((server.asked(), server.bodies()), (6, (6, 1)), "both orders of equal answers are one question");
    let query = "SELECT prompt_id, source, reward, verdict, against, consistent, scorer FROM judged ORDER BY prompt_id";
    let row = |prompt: &str, reward: f64, verdict: &str, consistent: bool| {
        json!({"prompt_id": prompt, "source": "owl", "reward": reward, "verdict": verdict, "against": "fox",
            "consistent": consistent, "scorer": "critic"})
    };
    let expected = [
        row("p1", 1.0, "win", true),
        row("p2", 0.0, "loss", true),
        row("p3", 0.5, "tie", true),
        row("p4", 0.5, "tie", false),
    ];
    assert_eq!(rows(&home, query), expected);
    let reason = &rows(&home, "SELECT reason FROM judged WHERE prompt_id = 'p1'")[0]["reason"];
    assert_eq!(reason, "good beside poor.\n---\npoor beside good.");
    // Replies are remembered whatever the stage is called and whoever is the label.
    home.ok(&["run", "p.yaml", "--set", "judged.label=other"]);
    assert_eq!(server.asked(), 6);
    pipeline(&home, &critic(&server), ", baseline: theirs", "mode: pairwise, swap: false");
    home.ok(&["run", "p.yaml"]);
    assert_eq!(server.asked(), 6, "one order of two is remembered");
    assert_eq!(rows(&home, "SELECT verdict FROM judged WHERE prompt_id = 'p4'")[0]["verdict"], "win");
    pipeline(&home, &critic(&server), ", baseline: theirs", "mode: pairwise, swap: false, criteria: kindness");
    home.ok(&["run", "p.yaml"]);
    assert_eq!(server.asked(), 10, "other criteria are another question");
}

#[test]
fn answers_are_graded_and_those_without_a_verdict_are_failed_rows() {
    let taste = |asked: &Asked| match within(asked.text(), "answer") {
        "good" => Act::AnswerWith("Right.\nVerdict: 9".into()),
        "poor" => Act::AnswerWith("Wrong.\nVerdict: 2/10".into()),
        "fair" => Act::AnswerWith("I would rather not say.".into()),
        _ => Act::Say(400, "", "{\"error\": \"no\"}"),
    };
    let (home, server) = (Home::new(), Server::start(taste));
    answers(&home);
    pipeline(&home, &critic(&server), "", "mode: single");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let words =
        "2 of 4 rows failed: prompt \"p3\": the judge gave no verdict; its reply ends with \"I would rather not say.\"";
    assert!(done.stderr.contains(words), "{}", done.stderr);
    assert_eq!(server.asked(), 4);
    pipeline(&home, &critic(&server), "", "mode: single, max_failed_rows: 2");
    home.ok(&["run", "p.yaml"]);
    assert_eq!(server.asked(), 5, "only what was not answered is asked again");
    let judged = rows(&home, "SELECT prompt_id, reward, verdict, reason FROM judged ORDER BY prompt_id");
    let expected = [
        json!({"prompt_id": "p1", "reward": 9.0, "verdict": "9", "reason": "Right."}),
        json!({"prompt_id": "p2", "reward": 2.0, "verdict": "2", "reason": "Wrong."}),
    ];
    assert_eq!(judged, expected);
    let failed = rows(&home, "SELECT prompt_id, source, sample FROM judged.failed ORDER BY prompt_id");
    assert_eq!(failed, ["p3", "p4"].map(|prompt| json!({"prompt_id": prompt, "source": "owl", "sample": 0})));
}

#[test]
fn a_model_of_ours_may_judge() {
    let home = Home::new();
    answers(&home);
    let model = "  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 16}}}\n  \
        vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: byte_level_bpe, vocab_size: 290, chat: chatml}}\n  \
        critic:\n    op: init_model\n    inputs: {tokenizer: vocabulary}\n    \
        with: {family: llama, hidden_size: 16, intermediate_size: 16, layers: 1, heads: 2, max_positions: 2048}\n";
    pipeline(&home, model, "", "mode: single, max_tokens: 5, max_failed_rows: 4");
    let events = home.ok(&["run", "p.yaml", "--json"]);
    let ended =
        events.lines().find(|line| line.contains("stage_ended") && line.contains("\"judged\"")).expect("it ended");
    let ended: Value = serde_json::from_str(ended).expect("JSON");
    assert_eq!(ended["memo"]["fresh"], 4);
    assert!(ended["usage"]["tokens_out"].as_u64() > Some(0), "{ended}");
    let failed = rows(&home, "SELECT reason FROM judged.failed");
    assert_eq!(failed.len(), 4, "it knows of no verdicts");
    assert!(
        failed.iter().all(|row| row["reason"].as_str().is_some_and(|why| why.starts_with("the judge gave no verdict")))
    );
    // Without replies there is nothing to compute.
    home.ok(&["run", "p.yaml", "--set", "judged.label=other"]);
    let again = home.ok(&[
        "sql",
        "p.yaml",
        "SELECT rows_fresh, rows_reused FROM system.stages WHERE stage = 'judged' ORDER BY started",
        "--format",
        "csv",
    ]);
    assert_eq!(again.lines().collect::<Vec<_>>(), ["rows_fresh,rows_reused", "4,0", "0,4"]);
}

/// What a model says of how a problem is solved.
fn strategy(approach: &str) -> Act {
    let steps = ["Find what is there.", "Take away what is gone."];
    let said = json!({"problem_type": "Taking away.", "approach": approach, "steps": steps});
    Act::AnswerWith(format!("Here it is:\n```json\n{said}\n```"))
}

#[test]
fn strategies_that_leak_are_out_and_the_best_rated_is_chosen() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let drawn = AtomicUsize::new(0);
    let teacher = move |asked: &Asked| {
        let text = asked.text();
        if text.starts_with("Rate this strategy") {
            let clean = if within(text, "strategy").contains("carefully") { 4 } else { 5 };
            return Act::AnswerWith(json!({"general": 5, "faithful": 5, "helpful": 5, "clean": clean}).to_string());
        }
        match drawn.fetch_add(1, Ordering::SeqCst) {
            0 => strategy("The result is 7."),
            1 => strategy("Subtract one count from the other, and do so carefully."),
            2 => Act::AnswerWith("I cannot.".into()),
            3 => strategy("Subtract one count from the other, whatever they are."),
            4 => strategy("Subtract one count from the other."),
            _ => strategy("For example 9 - 4 = 5."),
        }
    };
    let (home, server) = (Home::new(), Server::start(teacher));
    let problem = |id: &str| {
        let turns =
            json!([{"role": "user", "content": format!("Ann has 12 apples and eats {id}. How many are left?")}]);
        format!(
            "{}\n",
            json!({"prompt_id": id, "messages": turns, "source": "r1", "sample": 0, "text": "12 - 5 = 7", "reference": "7"})
        )
    };
    home.write("solved.jsonl", problem("five"));
    let write = |more: &str| {
        home.write(
            "p.yaml",
            format!(
                "name: p\nseed: 5\nstages:\n  solved: {{op: load, with: {{path: solved.jsonl, as: response}}}}\n  \
                 teacher: {{op: endpoint, with: {{url: 'http://teacher.test/v1', model: t, via: '{}', max_concurrency: 1}}}}\n  \
                 told: {{op: extract_strategy, inputs: {{solutions: solved, model: teacher}}, with: {{{more}}}}}\n",
                server.url()
            ),
        );
    };
    write("candidates: 5");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("1 of 5 rows failed: prompt \"five\": the reply has no JSON"), "{}", done.stderr);
    assert_eq!(server.asked(), 8, "five candidates, and a rating of each that leaks nothing");
    write("candidates: 5, max_failed_rows: 1");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert!(done.stderr.contains("1 of 4 candidates leak; 0 of 1 problems have no strategy"), "{}", done.stderr);
    assert_eq!(server.asked(), 8, "all of it is remembered");
    let query =
        "SELECT candidate, approach, total, leak, chosen, array_length(steps) AS steps FROM told ORDER BY candidate";
    let row = |candidate: u32, approach: &str, total: Value, leak: Value, chosen: bool| json!({"candidate": candidate, "approach": approach, "total": total, "leak": leak, "chosen": chosen, "steps": 2});
    let subtract = "Subtract one count from the other";
    assert_eq!(
        rows(&home, query),
        [
            row(0, "The result is 7.", Value::Null, json!("it holds the answer \"7\""), false),
            row(1, &format!("{subtract}, and do so carefully."), json!(19), Value::Null, false),
            row(3, &format!("{subtract}, whatever they are."), json!(20), Value::Null, false),
            row(4, &format!("{subtract}."), json!(20), Value::Null, true),
        ]
    );
    let failed = rows(&home, "SELECT * FROM told.failed");
    assert_eq!(failed, [json!({"prompt_id": "five", "candidate": 2, "reason": "the reply has no JSON"})]);
    // A further problem costs its own, and one more candidate one more.
    home.write("solved.jsonl", problem("five") + &problem("six"));
    write("candidates: 6, rank: false, max_failed_rows: 1");
    let done = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(server.asked(), 8 + 1 + 6);
    assert!(done.stderr.contains("8 of 11 candidates leak; 1 of 2 problems have no strategy"), "{}", done.stderr);
    let chosen = rows(&home, "SELECT prompt_id, candidate, total FROM told WHERE chosen");
    assert_eq!(chosen, [json!({"prompt_id": "five", "candidate": 1, "total": null})]);
}
