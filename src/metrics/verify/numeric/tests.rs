//! Hand-made cases, and the recorded answers of real models where they are.

use super::*;

fn extracted(response: &str) -> String {
    extract(response).unwrap_or_default()
}

fn correct(reference: &str, response: &str) -> bool {
    VERIFIER.verify(reference, response).expect("the reference is a number").correct
}

#[test]
fn the_answer_is_found_in_its_places() {
    assert_eq!(extracted("so 3 + 4 = 7.\n#### 7"), "7");
    assert_eq!(extracted("#### 7\nI checked 2 things"), "7");
    assert_eq!(extracted(r"we get \boxed{12} after 3 steps"), "12");
    assert_eq!(extracted(r"first \boxed{1}, then \boxed{\text{about } 2{,}500 \text{ km}} in 3 days"), "2500");
    assert_eq!(extracted(r"\boxed{x = 5}"), "5");
    assert_eq!(extracted(r"\boxed{2 \times 3 = 6 \text{ eggs}}"), "6");
    assert_eq!(extracted("The answer is 18 dollars for 9 eggs."), "18");
    assert_eq!(extracted("The final answer is: $18$. I hope it helps 100%"), "18");
    assert_eq!(extracted("**Answer:** 3 of 4"), "3");
    assert_eq!(extracted("The answer to question 3 is 5"), "5");
    assert_eq!(extracted("She has 3 and 4, so 7 in all."), "7");
    assert_eq!(extracted("The answer is unclear, 7 or 8"), "7");
    assert_eq!(extracted("The answer is unclear.\nPerhaps 8"), "8");
    assert_eq!(extracted(r"cut off \boxed{1"), "1");
    assert_eq!(extracted("none"), "");
}

#[test]
fn numbers_are_read_whole() {
    assert_eq!(extracted("it costs $1,234.50."), "1234.50");
    assert_eq!(extracted("it is -5"), "-5");
    assert_eq!(extracted("it is -$5"), "-5");
    assert_eq!(extracted("\u{2212}5"), "-5");
    assert_eq!(extracted("10-3"), "3");
    assert_eq!(extracted("in 1, 2, 3"), "3");
    assert_eq!(extracted("1,2345"), "2345");
    assert_eq!(extracted("in 1,2"), "2");
    assert_eq!(extracted("1,234,567.5km"), "1234567.5");
    assert_eq!(extracted("₹1,00,000"), "100000");
    assert_eq!(extracted(r"\frac{3}{4}"), "3/4");
    assert_eq!(extracted(r"-\dfrac34"), "-3/4");
    assert_eq!(extracted("three is .5"), ".5");
    assert_eq!(extracted("at 7."), "7");
}

#[test]
fn values_are_compared_not_texts() {
    assert!(correct("#### 1,000", "1000.00"));
    assert!(correct("1/2", "0.5"));
    assert!(correct("0.5", r"\boxed{\frac{1}{2}}"));
    assert!(correct("50", "50%"));
    assert!(correct("18", "€18"));
    assert!(correct("-4", "the answer is -8/2"));
    assert!(!correct("1/3", "0.33"));
    assert!(!correct("5", "-5"));
    assert!(!correct("5", "1/0"));
    assert!(!correct("5", "5000000000000000000000000000000000000000000000000"));
    assert!(!correct("5", ""));
}

#[test]
fn a_reference_without_a_number_is_an_error() {
    let error = VERIFIER.verify("a whale", "5").expect_err("no number");
    assert!(error.to_string().contains("\"a whale\" holds no number"), "{error}");
    assert!(VERIFIER.verify("1/0", "5").is_err());
}

/// Agreement with the verdicts that OpenCompass recorded for 3,144 answers of three models to GSM8K.
#[test]
fn recorded_answers_get_the_recorded_verdict() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/source_responses/gsm8k.parquet");
    let Ok(file) = std::fs::File::open(path) else {
        println!("skipped: ../shared/data/source_responses/gsm8k.parquet is not there");
        return;
    };
    let reader = SerializedFileReader::new(file).expect("a Parquet file");
    let fields = reader.metadata().file_metadata().schema_descr();
    let column = |name: &str| fields.columns().iter().position(|column| column.name() == name).expect("the column");
    let [reference, response, score, mathematics] =
        ["reference_answer", "response", "score", "fuseeval_correct"].map(column);
    let (mut n_rows, mut n_agree, mut n_checked, mut n_agree_checked) = (0, 0, 0, 0);
    for row in reader.get_row_iter(None).expect("rows") {
        let row = row.expect("a row");
        let text = |index: usize| row.get_string(index).expect("a text").as_str();
        let verdict = VERIFIER.verify(text(reference), text(response)).expect("GSM8K's references are numbers");
        let recorded = row.get_double(score).expect("a score") > 0.5;
        n_rows += 1;
        n_agree += i32::from(verdict.correct == recorded);
        if let Ok(recorded) = row.get_bool(mathematics) {
            n_checked += 1;
            n_agree_checked += i32::from(verdict.correct == recorded);
        }
        if verdict.correct != recorded {
            let end: String = text(response).chars().rev().take(160).collect::<Vec<_>>().into_iter().rev().collect();
            println!("{recorded} != {verdict:?}, reference {:?}: {end:?}", text(reference));
        }
    }
    println!("{n_agree} of {n_rows} agree with OpenCompass, {n_agree_checked} of {n_checked} with FuseEval");
    assert_eq!(n_rows, 3144);
    assert!(f64::from(n_agree) >= 0.98 * f64::from(n_rows));
}
