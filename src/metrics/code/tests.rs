//! Programs that pass, fail, hang and cheat; and the benchmarks' own solutions,
//! where the data are.

use std::path::Path;

use super::*;
use crate::sandbox::{Limits, Sandbox};

fn run(suite: &Suite, program: &str) -> Vec<(&'static str, String)> {
    let sandbox = Sandbox::open(Path::new("python3")).expect("python3 runs");
    let tested = suite.run(&sandbox, program, 1.0, &Limits::default()).expect("the sandbox works");
    tested.into_iter().map(|tested| (tested.verdict.name(), tested.message)).collect()
}

fn verdicts(suite: &Suite, program: &str) -> Vec<&'static str> {
    run(suite, program).into_iter().map(|(verdict, _)| verdict).collect()
}

fn asserts(tests: &[&str]) -> Suite {
    Suite::Snippets(tests.iter().map(|&test| test.to_owned()).collect())
}

#[test]
fn every_test_has_a_verdict_of_its_own() {
    let suite = asserts(&["assert f(1) == 2", "assert f(2) == 5, 'five'", "f('x')", "f(-1)", "assert f(0) == 1"]);
    let program = "def f(x):\n    print('noise')\n    while x == -1: pass\n    return x + 1";
    assert_eq!(verdicts(&suite, program), ["pass", "wrong_answer", "failed", "timeout", "pass"]);
    assert_eq!(run(&suite, program)[1].1, "five");
    let [first, ..] = &run(&suite, "def f(x: return")[..] else { panic!("five tests") };
    assert!(first.0 == "failed" && first.1.starts_with("SyntaxError"), "{first:?}");
}

#[test]
fn a_program_that_ends_early_passes_nothing() {
    let suite = asserts(&["assert f(1) == 1"]);
    for program in ["import os\nos._exit(0)", "import sys\nsys.exit(0)", "raise SystemExit", "import os\nos.abort()"] {
        assert_eq!(verdicts(&suite, program), ["failed"], "{program}");
    }
    let (verdict, message) = run(&suite, "def f(x):\n    import os\n    os._exit(0)").remove(0);
    assert_eq!((verdict, message.as_str()), ("failed", "ended early with code 0"));
    assert_eq!(
        verdicts(&suite, "while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
        ["timeout"]
    );
}

#[test]
fn outputs_are_compared_as_lines_and_numbers() {
    let pairs = [("3 4", "7\n"), ("1 1", " 2.0 \n\n"), ("0 0", "1"), ("x", "0")];
    let suite = Suite::Stdio(pairs.map(|(input, output)| (input.to_owned(), output.to_owned())).to_vec());
    assert_eq!(
        verdicts(&suite, "a, b = map(int, input().split())\nprint(a + b)"),
        ["pass", "pass", "wrong_answer", "failed"]
    );
    assert_eq!(verdicts(&Suite::Stdio(vec![(String::new(), "1".into())]), "while True: pass"), ["timeout"]);
    for (said, expected, same) in [
        ("1e3 0.10", "1000 .1", true),
        ("-0", "0.00", true),
        ("1\n2", "1 2", false),
        ("a 1", "a 1.0", false),
        ("12345678901234567890.1", "12345678901234567890.2", false),
    ] {
        assert_eq!(suite::same_output(said, expected), same, "{said} {expected}");
    }
}

#[test]
fn calls_are_compared_with_a_reference() {
    let plus = |task: &str, entry_point: &str, reference: &str, inputs: &str, atol: f64| {
        Suite::Plus(Plus {
            task: task.into(),
            reference: reference.into(),
            entry_point: entry_point.into(),
            inputs: vec![inputs.into()],
            atol,
        })
    };
    let half = plus("HumanEval/900", "f", "def f(x): return x / 2", "[[1], [3], [0]]", 0.0);
    assert_eq!(verdicts(&half, "def f(x): return x * 0.5 + 1e-9"), ["pass", "pass", "pass"]);
    assert_eq!(verdicts(&half, "def f(x): return int(x / 2)"), ["wrong_answer", "wrong_answer", "pass"]);
    let changes = plus("HumanEval/901", "f", "def f(x): x.append(1); return len(x)", "[[[]], [[5]]]", 0.0);
    assert_eq!(verdicts(&changes, "def f(x): x.append(2); return len(x)"), ["pass", "pass"]);
    // Mbpp/2 takes tuples, and its results are sets.
    let set = plus(
        "Mbpp/2",
        "similar_elements",
        "def similar_elements(a, b): return tuple(set(a) & set(b))",
        "[[[1, 2], [2, 1]]]",
        0.0,
    );
    assert_eq!(verdicts(&set, "def similar_elements(a, b):\n    assert type(a) == tuple\n    return [2, 1]"), ["pass"]);
}

#[test]
fn programs_are_found_in_answers() {
    let answer = "Sure.\n```python\n    a = 1\n```\nor\n```\nb\n```";
    assert_eq!(Extraction::FirstBlock.program(answer), "    a = 1\n");
    assert_eq!(Extraction::LastBlock.program(answer), "b\n");
    assert_eq!(Extraction::Whole.program(" a"), " a");
    assert_eq!(Extraction::FirstBlock.program(" \n no fence"), "no fence");
    assert_eq!(Extraction::OpencompassMbpp.program(answer), "a = 1");
    assert_eq!(Extraction::OpencompassMbpp.program("[BEGIN]\n 'x\\_1 = 2'\n[DONE] more"), "x_1 = 2");
    assert_eq!(Extraction::OpencompassMbpp.program("```python\ncut off"), "cut off");
}

#[test]
fn pass_at_k_counts_draws_without_a_pass() {
    // 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10.
    assert!((pass_at_k(5, 2, 2).expect("k is within n") - 0.7).abs() < 1e-12);
    assert_eq!(pass_at_k(5, 4, 2), Some(1.0));
    assert_eq!(pass_at_k(5, 0, 5), Some(0.0));
    assert!((pass_at_k(1000, 10, 1).expect("k is within n") - 0.01).abs() < 1e-12);
    assert_eq!([pass_at_k(5, 2, 0), pass_at_k(5, 2, 6), pass_at_k(5, 6, 1)], [None; 3]);
}
