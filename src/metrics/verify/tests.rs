//! What holds of all verifiers, and how often the graders agree with the
//! verdicts that the programs they are named for gave on real answers.

use proptest::prelude::*;

use super::*;

/// Readers of letters.
const CHOICES: [&str; 5] = ["mmlu_pro", "mmlu_pro_first", "simple_evals", "zero_eval", "arc_chat"];

#[test]
fn every_verifier_is_found_and_accepts_its_own_reference() {
    for verifier in ALL {
        let found = find(verifier.name).expect("it is listed");
        // Each grader finds the answer in one of these places, and is of numbers or of letters.
        let (reference, wrong) = if CHOICES.contains(&found.name) { ("C", "B") } else { ("42", "43") };
        let places = ["@", r"\boxed{@}", "answer is @", "Answer: @", "answer: @"];
        let place =
            places.iter().find(|place| (found.extract)(&place.replace('@', reference)).as_deref() == Some(reference));
        let place = place.expect("one of these");
        let judge = |response: &str| found.verify(reference, response).expect("a reference");
        assert!(judge(&place.replace('@', reference)).correct, "{}", verifier.name);
        let judged = judge(&place.replace('@', wrong));
        assert!(!judged.correct && judged.extracted.as_deref() == Some(wrong), "{}", verifier.name);
        assert_eq!(judge(""), Verdict { extracted: None, correct: false }, "{}", verifier.name);
    }
    assert!(find("guess").expect_err("no such verifier").to_string().contains("exact, numeric, gsm8k"));
}

/// The same answers under graders that take more and more for equal.
#[test]
fn graders_differ_where_their_rules_do() {
    let right = |reference: &str, answer: &str| -> Vec<&str> {
        let response = format!(r"So it is $\boxed{{{answer}}}$.");
        let names = ["opencompass", "fuseeval", "hendrycks", "minerva", "prm800k", "math_verify"];
        names
            .into_iter()
            .filter(|name| find(name).expect("listed").verify(reference, &response).expect("judged").correct)
            .collect()
    };
    let all = ["opencompass", "fuseeval", "hendrycks", "minerva", "prm800k", "math_verify"];
    assert_eq!(right(r"\frac{1}{2}", r"\dfrac12"), all);
    assert_eq!(right(r"\frac{1}{2}", "0.5"), ["fuseeval", "hendrycks", "minerva", "prm800k", "math_verify"]);
    assert_eq!(right(r"\frac{3}{2}", "1.5"), ["fuseeval", "minerva", "prm800k", "math_verify"]);
    assert_eq!(right(r"2\sqrt{3}", r"\sqrt{12}"), ["fuseeval", "minerva", "prm800k", "math_verify"]);
    assert_eq!(right("x^2+2x+1", "(x+1)^2"), ["fuseeval", "minerva", "prm800k", "math_verify"]);
    assert_eq!(right("(1,2)", r"(1, \frac{4}{2})"), ["fuseeval", "math_verify"]);
    assert_eq!(right("5", "500"), ["fuseeval"], "off by a factor of a hundred");
    assert_eq!(right("33.333", r"\frac{100}{3}"), ["fuseeval"], "to 1e-4");
    assert_eq!(right("1,2", "2,1"), ["math_verify"]);
    assert_eq!(right("5", "6"), [""; 0]);
}

/// Verdicts of the programs themselves on made-up answers; `tests/golden/make_math_grades.py` made them.
#[test]
fn graders_judge_as_the_programs_do_that_they_are_named_for() {
    let golden = include_str!("../../../tests/golden/math_grades.json");
    let rows: Vec<serde_json::Value> = serde_json::from_str(golden).expect("JSON");
    let mut differ = Vec::new();
    for row in &rows {
        let [reference, answer] = ["reference", "answer"].map(|name| row[name].as_str().expect("a text"));
        let response = format!(r"After some work the result is $\boxed{{{answer}}}$.");
        for name in ["hendrycks", "prm800k", "math_verify"] {
            let verdict = find(name).expect("listed").verify(reference, &response).expect("judged");
            if Some(verdict.correct) != row[name].as_bool() {
                differ.push(format!("{name}: {reference} and {answer}: {verdict:?}"));
            }
        }
    }
    assert_eq!(rows.len(), 107);
    assert_eq!(differ, [""; 0]);
}

#[test]
fn huge_and_hostile_responses_are_judged() {
    let judge = |piece: &str, n_bytes: usize| {
        let response = piece.repeat(n_bytes / piece.len());
        for verifier in ALL {
            verifier.verify("42", &response).expect("the reference is a number");
            verifier.verify("42", &format!(r"\boxed{{{response}}}")).expect("the reference is a number");
        }
    };
    judge(r"\text{", 10 << 20);
    for piece in [
        "9",
        r"\boxed{",
        "}",
        "$",
        r"\[ ",
        "answer is ",
        "final answer is: ",
        "1,",
        r"\frac{1}{",
        "((",
        "= ",
        "- ",
        "é",
    ] {
        judge(piece, 1 << 18);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_response_is_judged(response in "(\\PC|\\\\boxed\\{|\\\\text\\{|\\\\frac|\\\\sqrt|\\$|answer is |Final Answer: |[0-9.,%{}\\[\\]() \n]){0,80}", reference in "[0-9x+^{}(),/\\\\ .-]{1,20}") {
        for verifier in ALL {
            let extracted = (verifier.extract)(&response);
            if let Ok(verdict) = verifier.verify(&reference, &response) {
                prop_assert_eq!(&verdict.extracted, &extracted);
            }
        }
    }
}
