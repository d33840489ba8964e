//! BLEU and ROUGE beside sacrebleu's and rouge_score's figures on made-up texts;
//! `tests/golden/make_overlap.py` made them.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
    corpora: Vec<f64>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    reference: String,
    bleu: f64,
    rouge1: f64,
    rouge2: f64,
    #[serde(rename = "rougeL")]
    rouge_l: f64,
}

#[test]
fn bleu_and_rouge_are_those_of_the_originals() {
    let golden: Golden = serde_json::from_str(include_str!("../../../tests/golden/overlap.json")).expect("JSON");
    // Sums and logarithms in another order: a few units of the last place.
    let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-12 * theirs.abs().max(1.0);
    let counts: Vec<BleuCounts> = golden.rows.iter().map(|row| BleuCounts::of(&row.text, &row.reference)).collect();
    for (row, counts) in golden.rows.iter().zip(&counts) {
        let (text, reference) = (&row.text, &row.reference);
        assert!(close(counts.sentence(), row.bleu), "BLEU {text:?} {reference:?}: {} {}", counts.sentence(), row.bleu);
        assert!(close(rouge_n(text, reference, 1), row.rouge1), "ROUGE-1 {text:?} {reference:?}");
        assert!(close(rouge_n(text, reference, 2), row.rouge2), "ROUGE-2 {text:?} {reference:?}");
        assert!(close(rouge_l(text, reference), row.rouge_l), "ROUGE-L {text:?} {reference:?}");
    }
    let corpus = |counts: &mut dyn Iterator<Item = &BleuCounts>| {
        let mut sum = BleuCounts::default();
        counts.for_each(|counts| sum.add(counts));
        sum.corpus()
    };
    let parts = [
        corpus(&mut counts.iter().step_by(2)),
        corpus(&mut counts.iter().skip(1).step_by(2)),
        corpus(&mut counts.iter().take(3)),
        corpus(&mut counts.iter()),
    ];
    for (ours, theirs) in parts.into_iter().zip(golden.corpora) {
        assert!(close(ours, theirs), "{ours} {theirs}");
    }
}

#[test]
fn huge_texts_are_compared() {
    let text = "a b ".repeat(1 << 20);
    assert!(BleuCounts::of(&text, &text).corpus() > 99.9);
    assert_eq!(rouge_n(&text, "c", 1), 0.0);
}
