//! Tests and intervals against SciPy and statsmodels, on the generated cases of `tests/golden/statistics.json`.

use serde_json::Value;

use super::*;

#[test]
fn figures_are_those_of_scipy_and_statsmodels() {
    let text = include_str!("../../../tests/golden/statistics.json");
    let golden: Value = serde_json::from_str(text).expect("the golden file is JSON");
    let mut n_cases = 0;
    let mut each = |kind: &str, check: &mut dyn FnMut(&[f64]) -> Vec<(f64, f64)>| {
        for case in golden[kind].as_array().expect("cases") {
            let numbers: Vec<f64> = serde_json::from_value(case.clone()).expect("numbers");
            for (found, expected) in check(&numbers) {
                let near = (found - expected).abs() <= 1e-9 * expected.abs().max(1e-3);
                assert!(near, "{kind} {numbers:?}: {found}, {expected}");
            }
            n_cases += 1;
        }
    };
    each("clopper_pearson", &mut |case| {
        let found = clopper_pearson(case[0] as u64, case[1] as u64, case[2]).expect("trials");
        vec![(found.low, case[3]), (found.high, case[4])]
    });
    each("wilson", &mut |case| {
        let found = wilson(case[0], case[1]).expect("trials");
        vec![(found.low, case[2]), (found.high, case[3])]
    });
    each("mcnemar", &mut |case| {
        let (b, c) = (case[0] as u64, case[1] as u64);
        vec![(mcnemar_exact(b, c), case[2]), (mcnemar_corrected(b, c), case[3])]
    });
    each("beta", &mut |case| {
        vec![(incomplete_beta(case[0], case[1], case[2]), case[3]), (beta_quantile(case[0], case[1], case[2]), case[4])]
    });
    each("normal", &mut |case| vec![(normal_tail(case[0]), case[1]), (normal_quantile(case[2]), case[3])]);
    each("chi_square", &mut |case| vec![(chi_square_tail(case[0], case[1]), case[2])]);
    each("binomial", &mut |case| vec![(binomial_below(case[0] as u64, case[1] as u64, case[2]), case[3])]);
    each("detectable", &mut |case| {
        vec![(minimum_detectable_difference(case[0], case[1], case[2], case[3]).expect("valid"), case[4])]
    });
    each("sign_flip_all", &mut |case| {
        let (expected, differences) = case.split_last().expect("numbers");
        vec![(sign_flip(differences, 1, 0), *expected)]
    });
    assert!(n_cases >= 900, "{n_cases}");
    for case in golden["corrections"].as_array().expect("cases") {
        let list = |name: &str| -> Vec<f64> { serde_json::from_value(case[name].clone()).expect("numbers") };
        for (found, expected) in [(holm(&list("p")), list("holm")), (benjamini_hochberg(&list("p")), list("fdr_bh"))] {
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
            assert_eq!(found.len(), expected.len());
        }
    }
    for case in golden["clusters"].as_array().expect("cases") {
        let values: Vec<f64> = serde_json::from_value(case["values"].clone()).expect("numbers");
        let labels: Vec<String> = serde_json::from_value(case["clusters"].clone()).expect("labels");
        let pairs = || values.iter().copied().zip(labels.iter().map(String::as_str));
        for (correction, name) in [(SmallSample::None, "plain"), (SmallSample::Corrected, "corrected")] {
            let found = clustered_standard_error(pairs(), correction).expect("values");
            assert!((found - case[name].as_f64().expect("a number")).abs() < 1e-9, "{name}: {found}");
        }
    }
}
