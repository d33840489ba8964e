//! What reruns when one thing changes: the exact list of stages, on a pipeline
//! of the quickstart's shape.

use crate::harness::{FUSION, fused};

#[test]
fn beta_of_wrpo_reruns_wrpo_its_merges_their_evaluation_and_the_table() {
    let changed = fused().ran("fusion.yaml", &["--set", "wrpo.beta=0.5"]);
    assert_eq!(
        changed,
        [
            "answers[model=linear]",
            "answers[model=ties]",
            "answers[model=wrpo]",
            "evaluated",
            "graded",
            "linear",
            "tables.main",
            "ties",
            "wrpo",
        ]
    );
}

#[test]
fn a_merge_parameter_trains_nothing() {
    let changed = fused().ran("fusion.yaml", &["--set", "ties.how.density=0.3"]);
    assert_eq!(changed, ["answers[model=ties]", "evaluated", "graded", "tables.main", "ties"]);
}

#[test]
fn an_added_model_is_the_only_one_that_is_sampled() {
    let home = fused();
    home.write("added.yaml", FUSION.replace("model: [target, dpo,", "model: [owl, target, dpo,"));
    assert_eq!(home.ran("added.yaml", &[]), ["answers[model=owl]", "evaluated", "graded", "tables.main"]);
}

#[test]
fn a_comment_a_reordered_key_or_a_renamed_variable_reruns_nothing() {
    let home = fused();
    let target = "  target: {op: sft, inputs: {model: blank, examples: lessons.examples}, with: \
                  {train: {learning_rate: 1.0e-3, steps: 2, batch_size: 4}}}\n";
    let reordered = "  target: {with: {train: {batch_size: 4, steps: 2, learning_rate: 1.0e-3}}, \
                     inputs: {examples: lessons.examples, model: blank}, op: sft}\n";
    let moved = format!("stages:\n{reordered}");
    let edits = [
        ("comment", FUSION.replace("stages:\n", "# another comment\nstages: # and one more\n")),
        ("key", FUSION.replace(target, "").replace("stages:\n", &moved)),
        ("variable", FUSION.replace("  beta: 0.1", "  pull: 0.1").replace("${beta}", "${pull}")),
        ("stage", FUSION.replace("triples_reference", "reference_of_triples")),
    ];
    for (what, text) in edits {
        assert_ne!(text, FUSION, "{what}: the edit misses its place");
        let file = format!("{what}.yaml");
        home.write(&file, text);
        assert_eq!(home.ran(&file, &[]), [""; 0], "{what}");
    }
}

#[test]
fn another_question_with_the_same_answer_stops_there() {
    let home = fused();
    let other = FUSION.replace("WHERE source = 'target' ORDER BY", "WHERE source = 'target' AND sample >= 0 ORDER BY");
    assert_ne!(other, FUSION);
    home.write("question.yaml", other);
    assert_eq!(home.ran("question.yaml", &[]), ["own"]);
}

#[test]
fn plan_says_what_would_run_and_why() {
    let done = fused().fuseline(&["plan", "fusion.yaml", "--set", "wrpo.beta=0.7"]);
    assert_eq!(done.code, Some(5), "{}", done.stderr);
    let state = |stage: &str| {
        let line = done.stdout.lines().find(|line| line.split_whitespace().next() == Some(stage));
        line.unwrap_or_else(|| panic!("{stage} is missing in\n{}", done.stdout)).split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(state("wrpo")[..6], ["wrpo", "run", "beta", "0.1", "→", "0.7"]);
    assert_eq!(state("linear")[..5], ["linear", "maybe", "wrpo", "will", "run"]);
    assert_eq!(state("dpo"), ["dpo", "hit"]);
    assert!(done.stdout.ends_with("19 cached, 1 to run, 8 that may run\n"), "{}", done.stdout);
}
