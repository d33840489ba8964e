//! What is sampled and scored: the same by however many threads, long prompts by their policy, figures as transformers
//! and lm-evaluation-harness have them.

use serde_json::Value;

use crate::harness::Home;

/// A random model with a tokenizer of 256 bytes, a context of 64 tokens, and what transformers says of some texts.
const GOLDEN: &str = "tests/golden/perplexity";

/// A home with that model, and a pipeline of these stages behind `model`.
fn home(stages: &str) -> Home {
    let home = Home::new();
    std::fs::create_dir(home.path("model")).expect("a folder of our own");
    for entry in std::fs::read_dir(crate::root().join(GOLDEN)).expect("the golden folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let folder = if ["texts.jsonl", "expected.json"].contains(&name.as_str()) { "" } else { "model" };
        std::fs::copy(&path, home.path(folder).join(&name)).expect("copied");
    }
    let head = "name: sampling\nseed: 5\nstages:\n  model: {op: import_model, with: {from: model}}\n";
    home.write("p.yaml", format!("{head}{stages}"));
    home
}

fn rows(home: &Home, query: &str) -> Vec<Value> {
    let text = home.ok(&["sql", "p.yaml", query, "--format", "json"]);
    serde_json::from_str(&text).expect("a list of rows")
}

/// One prompt of each length in bytes.
fn prompts(home: &Home, lengths: &[usize]) {
    let line = |length: &usize| {
        // The template adds a line's end: as many tokens as bytes.
        let text: String = ('a'..='z').cycle().take(length - 1).collect();
        format!("{{\"prompt\": \"{text}\", \"prompt_id\": \"p{length}\"}}\n")
    };
    home.write("prompts.jsonl", lengths.iter().map(line).collect::<String>());
}

const PROMPTS: &str = "  prompts: {op: load, with: {path: prompts.jsonl, as: prompt}}\n";

#[test]
fn perplexity_is_that_of_transformers_and_of_lm_eval() {
    let home = home(
        "  texts: {op: load, with: {path: texts.jsonl}}\n  \
         rolling: {op: perplexity, inputs: {texts: texts, model: model}, with: {label: tiny}}\n  \
         strided: {op: perplexity, inputs: {texts: texts, model: model}, \
         with: {label: tiny, length: 48, stride: 20, begin: false}}\n",
    );
    home.ok(&["run", "p.yaml"]);
    let text = std::fs::read_to_string(home.path("expected.json")).expect("figures");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    for stage in ["rolling", "strided"] {
        let found = rows(&home, &format!("SELECT task, metric, value, n FROM {stage} ORDER BY task, metric"));
        assert_eq!(found.len(), 10);
        for row in found {
            let (task, metric) = (row["task"].as_str().expect("a task"), row["metric"].as_str().expect("a metric"));
            let (value, expected) = (row["value"].as_f64(), expected[stage][task][metric].as_f64());
            let (value, expected) = (value.expect("a figure"), expected.expect("a golden figure"));
            // Float32 rounding of 7 nats a token; where words are long, exp takes it six times over.
            assert!((value / expected - 1.0).abs() < 1e-4, "{stage}, {task}, {metric}: {value}, not {expected}");
        }
    }
    let sums =
        rows(&home, "SELECT sum(nats) / sum(n_scored) AS nll, count(*) AS n FROM strided.texts WHERE domain = 'long'");
    let nll = expected["strided"]["long"]["nll"].as_f64().expect("a figure");
    assert!((sums[0]["nll"].as_f64().expect("a figure") - nll).abs() < 1e-4);
}

/// ASK-10 and ASK-15: what is sampled and scored does not move with threads, nor with what is asked besides.
#[test]
fn ask_10_15_answers_and_scores_are_the_same_by_any_number_of_threads() {
    let stages = |cpus: u32, file: &str| {
        format!(
            "  prompts: {{op: load, with: {{path: {file}, as: prompt}}}}\n  \
             said:\n    op: sample\n    memo: off\n    resources: {{cpus: {cpus}}}\n    \
             inputs: {{prompts: prompts, model: model}}\n    \
             with: {{label: tiny, n: 3, max_tokens: 12, temperature: 0.7, presence_penalty: 0.4, frequency_penalty: 0.2, logprobs: true}}\n  \
             scored:\n    op: logprobs\n    memo: off\n    resources: {{cpus: {cpus}}}\n    \
             inputs: {{texts: said, model: model}}\n    with: {{label: tiny, per_token: true, top_k: 2}}\n"
        )
    };
    let query = "SELECT prompt_id, sample, text, seed, logps FROM said WHERE prompt_id = 'p9'";
    let of = |cpus, lengths: &[usize]| {
        let home = home(&stages(cpus, "prompts.jsonl"));
        prompts(&home, lengths);
        home.ok(&["run", "p.yaml"]);
        let scores = "SELECT l.logp_sum, l.logps, l.top_ids, l.top_logps FROM scored l ORDER BY l.logp_sum";
        (rows(&home, query), rows(&home, scores))
    };
    let (said, scores) = of(1, &[3, 9, 17, 22]);
    assert_eq!((said.len(), scores.len()), (3, 12));
    assert_eq!(of(2, &[3, 9, 17, 22]), (said.clone(), scores.clone()));
    assert_eq!(of(2, &[20, 9]).0, said, "beside other prompts");
    for row in scores {
        let list = |name: &str| row[name].as_array().expect("a list").clone();
        for (logp, (ids, top)) in list("logps").iter().zip(list("top_ids").iter().zip(list("top_logps"))) {
            let top: Vec<f64> = top.as_array().expect("a list").iter().map(|x| x.as_f64().expect("nats")).collect();
            assert_eq!((ids.as_array().map(Vec::len), top.len()), (Some(2), 2));
            assert!(top[0] >= top[1] && logp.as_f64().expect("nats") <= top[0]);
            assert!(top[0].exp() + top[1].exp() < 1.0 + 1e-6);
        }
    }
}

#[test]
fn long_prompts_fail_are_cut_or_are_left_out() {
    let home = home(&format!(
        "{PROMPTS}  said: {{op: sample, inputs: {{prompts: prompts, model: model}}, with: {{label: tiny, n: 2, max_tokens: 8}}}}\n"
    ));
    prompts(&home, &[20, 60, 70, 90]);
    let failed = home.fuseline(&["run", "p.yaml"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("4 of 8 rows failed: prompt \"p70\": it has 70 tokens and the model takes 64"),
        "{}",
        failed.stderr
    );
    let counted = |policy: &str, table: &str| {
        let set = format!("said.too_long={policy}");
        home.ok(&["run", "p.yaml", "--set", &set]);
        let query = format!("SELECT prompt_id, count(*) AS n FROM {table} GROUP BY prompt_id ORDER BY prompt_id");
        let text = home.ok(&["sql", "p.yaml", &query, "--set", &set, "--format", "csv"]);
        text.replace("\r\n", " ").trim().replace("prompt_id,n ", "")
    };
    assert_eq!(counted("skip", "said"), "p20,2 p60,2");
    assert_eq!(counted("skip", "said.failed"), "p70,2 p90,2");
    assert_eq!(counted("truncate_left", "said"), "p20,2 p60,2 p70,2 p90,2");
    let query = "SELECT max(n_tokens) AS n FROM said";
    let text = home.ok(&["sql", "p.yaml", query, "--set", "said.too_long=truncate_left", "--format", "csv"]);
    assert_eq!(text, "n\r\n8\r\n", "there is room for a whole answer");
}

#[test]
fn bad_parameters_of_scoring_are_named() {
    let home = home(&format!(
        "{PROMPTS}  said: {{op: sample, inputs: {{prompts: prompts, model: model}}, with: {{label: tiny, max_tokens: 8, too_long: cut}}}}\n  \
         p: {{op: perplexity, inputs: {{texts: prompts, model: model}}, with: {{label: tiny, length: 8, stride: 8}}}}\n"
    ));
    prompts(&home, &[20]);
    let checked = home.fuseline(&["check", "p.yaml"]);
    assert_eq!(checked.code, Some(2));
    for said in ["too_long", "truncate_left", "stride", "it must be less, or be left out"] {
        assert!(checked.stderr.contains(said), "{said}: {}", checked.stderr);
    }
}
