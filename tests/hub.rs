//! Models and datasets of the Hub in pipelines, against a server that speaks the
//! Hub's HTTP: what is fetched, what is recorded, what is asked when.

mod server;

use serde_json::Value;

use crate::harness::{Done, Home};
use server::Hub;

const MODEL: &str = "\
name: made
seed: 3
stages:
  lessons: {op: make_dataset, with: {split: train, tasks: {reverse_word: 8}}}
  vocabulary: {op: train_tokenizer, inputs: {texts: lessons.examples}, with: {kind: byte_level_bpe, vocab_size: 290, chat: chatml}}
  blank:
    op: init_model
    inputs: {tokenizer: vocabulary}
    with: {family: llama, hidden_size: 16, intermediate_size: 16, layers: 1, heads: 2, max_positions: 64}
";

/// A home that uses a Hub.
struct Study {
    home: Home,
    hub: Hub,
}

impl Study {
    fn new() -> Self {
        Self { home: Home::new(), hub: Hub::start() }
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
        let mut command = self.home.command(arguments);
        command.env("HF_ENDPOINT", self.hub.url()).env("HF_HOME", self.home.path("hf")).env_remove("HF_TOKEN");
        command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").envs(environment.iter().copied());
        Done::of(command.output().expect("the program starts"))
    }

    fn ok(&self, arguments: &[&str]) -> Done {
        let done = self.run(arguments, &[]);
        assert_eq!(done.code, Some(0), "fuseline {}\n{}", arguments.join(" "), done.stderr);
        done
    }

    fn asked(&self) -> usize {
        self.hub.held(|held| held.asked.len())
    }
}

#[test]
fn a_model_of_the_hub_is_a_model_and_its_commit_is_recorded() {
    let study = Study::new();
    study.home.write("made.yaml", MODEL);
    study.ok(&["run", "made.yaml"]);
    let folder = study.ok(&["path", "made.yaml", "blank"]).stdout;
    let read = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(entry.path()).expect("a file"))
    };
    let own: Vec<(String, Vec<u8>)> =
        std::fs::read_dir(folder.trim()).expect("a folder").map(|entry| read(entry.expect("an entry"))).collect();
    let push = |more: &[(&str, &[u8])]| {
        let own = own.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let files: Vec<(&str, &[u8])> = own.chain(more.iter().copied()).collect();
        study.hub.push("models/org/tiny", "main", &files)
    };
    let first = push(&[("pytorch_model.bin", &[7; 5000]), ("onnx/model.onnx", &[8; 5000])]);
    let text = |from: &str| {
        format!(
            "name: p\nstages:\n  prompts: {{op: sql, with: {{sql: \"SELECT 'p' AS prompt_id, [{{'role': 'user', 'content': 'hi'}}] AS messages\"}}}}\n  \
             tiny: {{op: import_model, with: {{from: '{from}'}}}}\n"
        )
    };
    study.home.write("p.yaml", text("hf://org/tiny"));
    // The download is cut twice on its way.
    study.hub.held(|held| held.cuts = 2);
    let done = study.ok(&["run", "p.yaml", "--target", "tiny"]);
    assert!(done.stderr.contains(&format!("hf://org/tiny is now hf://org/tiny@{first}")), "{}", done.stderr);
    let paths = study.hub.held(|held| held.asked.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>().join(" "));
    assert!(!paths.contains("pytorch_model") && !paths.contains("onnx"), "{paths}");
    let imported = study.ok(&["path", "p.yaml", "tiny"]).stdout;
    for (name, bytes) in &own {
        assert_eq!(&std::fs::read(std::path::Path::new(imported.trim()).join(name)).expect("there"), bytes, "{name}");
    }
    let why = study.ok(&["why", "p.yaml", "tiny"]).stdout;
    assert!(why.contains(&format!("out of hf://org/tiny@{first}")), "{why}");
    study.ok(&["export", "p.yaml", "tiny", "out"]);
    let lineage = crate::files(&study.home.path("out"), "").into_iter();
    let told = lineage.filter_map(|path| std::fs::read_to_string(path).ok());
    assert!(told.into_iter().any(|text| text.contains(&format!("hf://org/tiny@{first}"))), "lineage has the commit");

    // A branch that moves does not move a result; who forces it follows.
    let second = push(&[("generation_config_2.json", b"{}")]);
    let before = study.asked();
    study.ok(&["run", "p.yaml", "--target", "tiny"]);
    assert_eq!(study.asked(), before, "a hit asks nobody");
    study.ok(&["run", "p.yaml", "--target", "tiny", "--force", "tiny"]);
    let why = study.ok(&["why", "p.yaml", "tiny"]).stdout;
    assert!(why.contains(&format!("out of hf://org/tiny@{second}")), "{why}");
    // A commit is one for ever, and what is in the cache is there without a network.
    study.home.write("p.yaml", text(&format!("hf://org/tiny@{first}")));
    let offline = [("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", "http://127.0.0.1:9")];
    let done = study.run(&["run", "p.yaml", "--target", "tiny"], &offline);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(!done.stderr.contains("is now"), "{}", done.stderr);
}

#[test]
fn a_split_of_a_dataset_is_its_files_in_order_and_nothing_else() {
    let study = Study::new();
    let lines =
        |numbers: std::ops::Range<u32>| -> String { numbers.map(|n| format!("{{\"prompt\": \"{n}?\"}}\n")).collect() };
    let (a, b, c) = (lines(0..3), lines(3..5), lines(5..9));
    let files: [(&str, &[u8]); 5] = [
        ("main/train-00001-of-00002.jsonl", b.as_bytes()),
        ("main/train-00000-of-00002.jsonl", a.as_bytes()),
        ("main/test-00000-of-00001.jsonl", c.as_bytes()),
        ("other/train.csv", b"prompt\nx?\n"),
        ("README.md", b"hello"),
    ];
    let commit = study.hub.push("datasets/org/sums", "main", &files);
    let load = |path: &str, more: &str| {
        study.home.write(
            "p.yaml",
            format!("name: p\nstages:\n  rows: {{op: load, with: {{path: '{path}', as: prompt{more}}}}}\n"),
        );
        let done = study.run(&["run", "p.yaml"], &[]);
        if done.code != Some(0) {
            return Err((done.code, done.stderr));
        }
        let query = "SELECT messages[1]['content'] AS text FROM rows";
        let rows: Vec<Value> =
            serde_json::from_str(&study.ok(&["sql", "p.yaml", query, "--format", "json"]).stdout).expect("rows");
        Ok(rows.iter().map(|row| row["text"].as_str().expect("a text").to_owned()).collect::<Vec<_>>())
    };
    let numbers = |numbers: std::ops::Range<u32>| numbers.map(|n| format!("{n}?")).collect::<Vec<_>>();
    assert_eq!(load("hf://datasets/org/sums", ", split: test"), Ok(numbers(5..9)));
    let asked = study.hub.held(|held| held.asked.iter().filter(|(path, _)| path.contains("train")).count());
    assert_eq!(asked, 0, "only the split's files are fetched");
    assert_eq!(load("hf://datasets/org/sums", ", split: train, subset: main"), Ok(numbers(0..5)));
    let file = format!("hf://datasets/org/sums@{commit}/other/train.csv");
    assert_eq!(load(&file, ""), Ok(vec!["x?".to_owned()]));
    for (path, more, words) in [
        ("hf://datasets/org/sums", ", split: train", "lies in several folders: main, other"),
        ("hf://datasets/org/sums", ", split: dev", "has no file for the split \"dev\""),
        ("hf://datasets/org/sums", "", "is missing: which part of the dataset"),
        (
            "hf://datasets/org/sums@main/main/none.csv",
            "",
            "hf://datasets/org/sums@main/main/none.csv has no file main/none.csv",
        ),
        ("hf://org/sums", ", split: test", "is not a dataset: hf://datasets/ORG/NAME"),
        ("hf://datasets/org/none", ", split: test", "hf://datasets/org/none@main is not on the Hub, or is private"),
        ("here.csv", ", split: test", "belongs to a whole dataset"),
    ] {
        let (code, said) = load(path, more).expect_err(words);
        assert!(code == Some(2) && said.contains(words), "{words}: {said}");
    }
}
