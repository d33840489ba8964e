//! The golden cases of both papers' rules, and their edges.

use serde_json::Value;

use super::*;

fn golden(prefix: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/selection.json");
    let text = std::fs::read_to_string(path).expect("the golden file");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let cases = file["cases"].as_array().expect("cases");
    let chosen: Vec<Value> =
        cases.iter().filter(|case| case["id"].as_str().expect("an id").starts_with(prefix)).cloned().collect();
    assert!(!chosen.is_empty(), "{prefix}");
    chosen
}

/// A field of every name, so that a misspelled one fails instead of being null.
fn get<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or_else(|| panic!("{name} is not in {value}"))
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn grid(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().expect("a list").iter().map(floats).collect()
}

fn samples(input: &Value, verdicts: Option<&str>) -> Vec<Vec<Candidate>> {
    let scores = grid(get(input, "rm_scores"));
    let correct = |source: usize, sample: usize| {
        verdicts.map(|name| get(input, name)[source][sample].as_bool().expect("a verdict"))
    };
    let row = |(source, row): (usize, &Vec<f64>)| {
        row.iter()
            .enumerate()
            .map(|(sample, score)| Candidate { score: *score, correct: correct(source, sample) })
            .collect()
    };
    scores.iter().enumerate().map(row).collect()
}

fn window(input: &Value) -> Option<Window> {
    input.get("margin_min").map(|min| Window {
        min: min.as_f64().expect("a number"),
        max: get(input, "margin_max").as_f64().expect("a number"),
    })
}

fn assert_pick(pick: Option<Pick>, expected: &Value, id: &str) {
    let expected: Option<(usize, usize)> = serde_json::from_value(expected.clone()).expect("two positions or null");
    assert_eq!(pick.map(|pick| (pick.source, pick.sample)), expected, "{id}");
}

fn assert_pairs(pairs: &[Pair], expected: &[Value], id: &str) {
    assert_eq!(pairs.len(), expected.len(), "{id}");
    for (pair, expected) in pairs.iter().zip(expected) {
        let position = |name: &str| get(expected, name).as_u64().expect("a position") as usize;
        assert_eq!(
            (pair.source, pair.chosen, pair.rejected),
            (position("source"), position("chosen"), position("rejected")),
            "{id}"
        );
        let margin = get(expected, "margin").as_f64().expect("a number");
        assert!((pair.margin - margin).abs() <= 1e-12, "{id}: {} {margin}", pair.margin);
    }
}

fn assert_pair_or_null(pairs: &[Pair], expected: &Value, id: &str) {
    let expected: Vec<Value> = if expected.is_null() { vec![] } else { vec![expected.clone()] };
    assert_pairs(pairs, &expected, id);
}

#[test]
fn golden_pairs_by_score() {
    let cases = golden("fusechat3_if_p");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let (id, input, expected) = (case["id"].as_str().expect("an id"), &case["input"], &case["expected"]);
        let selected = |pair_source| {
            let settings = Settings { window: window(input), pair_source, ..Settings::INSTRUCTIONS };
            select(&samples(input, None), &settings).expect("valid")
        };
        let all = selected(PairSource::All);
        let list = |name: &str| get(expected, name).as_array().expect("a list").clone();
        assert_pick(all.sft, get(expected, "sft_pick"), id);
        assert_pairs(&all.pairs, &list("pairs_all"), id);
        let eligible: Vec<Pair> = all.sources.iter().filter_map(|pair| pair.ok()).collect();
        assert_pairs(&eligible, &list("eligible_pairs"), id);
        assert_pair_or_null(&selected(PairSource::BestScore).pairs, get(expected, "pair_best_score"), id);
        assert_pair_or_null(&selected(PairSource::MaxMargin).pairs, get(expected, "pair_max_margin"), id);
        let part = if eligible.is_empty() { Part::Dropped(NoPrompt::NoPair) } else { Part::Either };
        assert_eq!(all.part, part, "{id}");
    }
}

#[test]
fn golden_window_ends_are_included() {
    for case in golden("fusechat3_if_window") {
        let settings = Settings { window: window(&case["input"]), ..Settings::INSTRUCTIONS };
        let selection = select(&samples(&case["input"], None), &settings).expect("valid");
        let eligible: Vec<usize> = selection.sources.iter().filter_map(|pair| Some(pair.ok()?.source)).collect();
        let expected: Vec<usize> =
            serde_json::from_value(get(&case["expected"], "eligible_sources").clone()).expect("positions");
        assert_eq!(eligible, expected);
        assert_eq!(selection.sources[1], Err(NoPair::MarginTooSmall(0.00390625)));
        assert_eq!(selection.sources[3], Err(NoPair::MarginTooLarge(0.25)));
    }
}

#[test]
fn golden_pairs_by_verdict() {
    let (math, code) = (golden("fusechat3_math"), golden("fusechat3_code"));
    assert_eq!((math.len(), code.len()), (5, 4));
    let rules = math.iter().map(|case| (case, "correct", Settings::MATHEMATICS));
    for (case, verdicts, settings) in rules.chain(code.iter().map(|case| (case, "passed", Settings::CODE))) {
        let (id, input, expected) = (case["id"].as_str().expect("an id"), &case["input"], &case["expected"]);
        assert_eq!(window(input), settings.window, "{id}");
        let selection = select(&samples(input, Some(verdicts)), &settings).expect("valid");
        assert_pick(selection.sft, get(expected, "sft_pick"), id);
        assert_pair_or_null(&selection.pairs, get(expected, "pair"), id);
        let part = match get(expected, "split").as_str().expect("a word") {
            "dpo" => Part::Preference,
            "sft" => Part::Sft,
            _ => Part::Dropped(NoPrompt::NoneCorrect),
        };
        assert_eq!(selection.part, part, "{id}");
    }
}

#[test]
fn golden_divisions_of_prompts() {
    for (prefix, share, rest) in [("fusechat3_prompt_split", "0.4", "dpo"), ("wrpo_prompt_split", "1/3", "po")] {
        for case in golden(prefix) {
            let share: Share = share.parse().expect("a share");
            let counts = |value: &Value| -> Vec<usize> { serde_json::from_value(value.clone()).expect("counts") };
            let prompts = counts(get(&case["input"], "prompts"));
            let sft: Vec<usize> = prompts.iter().map(|n| share.of(*n)).collect();
            assert_eq!(sft, counts(get(&case["expected"], "sft")));
            let others: Vec<usize> = prompts.iter().zip(&sft).map(|(n, sft)| n - sft).collect();
            assert_eq!(others, counts(get(&case["expected"], rest)));
        }
    }
    assert_eq!(Share::FUSECHAT3_SFT, "0.4".parse().expect("a share"));
    assert_eq!(Share::WRPO_SFT, "1/3".parse().expect("a share"));
}

#[test]
fn golden_triples() {
    let cases = golden("wrpo_w");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let (id, input, expected) = (case["id"].as_str().expect("an id"), &case["input"], &case["expected"]);
        let texts: Vec<&str> =
            get(input, "target_texts").as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let own = floats(get(input, "target_rm_scores"));
        let triple = triple(&grid(get(input, "source_rm_scores")), &own, &texts).expect("valid");
        assert_pick(triple.of_sources, get(expected, "y_ws"), id);
        assert_eq!(triple.own.is_ok(), get(expected, "keep").as_bool().expect("a verdict"), "{id}");
        let position = |name: &str| get(expected, name).as_u64().map(|position| position as usize);
        assert_eq!(triple.own.ok().map(|own| own.best), position("y_wt"), "{id}");
        assert_eq!(triple.own.ok().map(|own| own.worst), position("y_l"), "{id}");
    }
}

fn one_source(scores: &[f64]) -> Vec<Vec<Candidate>> {
    vec![scores.iter().map(|score| Candidate { score: *score, correct: None }).collect()]
}

#[test]
fn refusals_have_reasons() {
    let free = Settings { window: None, ..Settings::INSTRUCTIONS };
    let selection = select(&one_source(&[1.0, 1.0]), &free).expect("valid");
    assert_eq!(selection.sources, [Err(NoPair::SameScore)]);
    assert_eq!(selection.part, Part::Dropped(NoPrompt::NoPair));
    assert_eq!(selection.sft, Some(Pick { source: 0, sample: 0 }));
    for empty in [vec![], one_source(&[])] {
        let selection = select(&empty, &free).expect("valid");
        assert_eq!((selection.sft, selection.part), (None, Part::Dropped(NoPrompt::NoAnswer)));
    }
    assert_eq!(triple(&[vec![]], &[1.0], &["a"]).expect("valid").own, Err(NoTriple::NoSourceAnswer));
    assert_eq!(triple(&[vec![1.0]], &[], &[]).expect("valid").own, Err(NoTriple::NoOwnAnswer));
    assert_eq!(triple(&[vec![1.0]], &[1.0, 2.0], &["a", "a"]).expect("valid").own, Err(NoTriple::SameText));
    assert_eq!(triple(&[vec![1.0]], &[1.0, 1.0], &["a", "b"]).expect("valid").own, Err(NoTriple::SameScore));
}

#[test]
fn bad_input_is_an_error_with_its_place() {
    let error = select(&one_source(&[1.0, f64::NAN]), &Settings::INSTRUCTIONS).expect_err("not a number");
    assert!(error.to_string().contains("source 0, sample 1"), "{error}");
    let error = select(&one_source(&[1.0]), &Settings::CODE).expect_err("no verdict");
    assert_eq!(error, Error::VerdictMissing { source_index: 0, sample_index: 0, rule: "verdict" });
    let settings = Settings { window: Some(Window { min: 0.2, max: 0.1 }), ..Settings::CODE };
    assert_eq!(select(&[], &settings), Err(Error::EmptyWindow { min: 0.2, max: 0.1 }));
    assert!(triple(&[vec![1.0]], &[1.0], &[]).is_err());
    assert!(triple(&[vec![1.0]], &[f64::INFINITY], &["a"]).is_err());
}

#[test]
fn a_division_depends_on_ids_and_seed_alone() {
    let ids: Vec<String> = (0..100).map(|n| format!("prompt-{n}")).collect();
    let forward: Vec<&str> = ids.iter().map(String::as_str).collect();
    let backward: Vec<&str> = forward.iter().rev().copied().collect();
    let share: Share = "1/3".parse().expect("a share");
    let first = divide(&forward, share, 1).expect("no repetition");
    assert_eq!(first.iter().filter(|first| **first).count(), 33);
    let mut reversed = divide(&backward, share, 1).expect("no repetition");
    reversed.reverse();
    assert_eq!(reversed, first);
    assert_ne!(divide(&forward, share, 2).expect("no repetition"), first);
    assert_eq!(divide(&["a", "a"], share, 1), Err(Error::DuplicatePrompt { prompt_id: "a".into() }));
    assert_eq!(divide(&[], share, 1), Ok(vec![]));
}

#[test]
fn shares_are_read_from_numbers_and_texts() {
    let read = |json: &str| serde_json::from_str::<Share>(json);
    for (json, shown) in [("0.4", "2/5"), ("\"1/3\"", "1/3"), ("1", "1/1"), ("0", "0/1"), ("\" 2 / 4 \"", "1/2")] {
        let share = read(json).expect("a share");
        assert_eq!(share.to_string(), shown);
        assert_eq!(read(&serde_json::to_string(&share).expect("a text")).expect("a share"), share);
    }
    for bad in ["1.5", "-0.1", "\"4/3\"", "\"1/0\"", "\"\"", "\"half\"", "\"+1/3\"", "null"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
