//! Cases whose verdicts are Math-Verify's own (0.9.0), see `tests/golden/make_math_grades.py`, and where answers stand.

use super::*;

fn extracted(response: &str) -> String {
    extract(response).unwrap_or_default()
}

#[test]
fn answers_are_looked_for_by_rank() {
    assert_eq!(extracted(r"So $x = 2$, and the final answer is $3$. I hope it is correct. \boxed{4}"), "3");
    assert_eq!(extracted(r"It is $\boxed{\frac{1}{2}}$, since $2 \cdot 3 = 6$."), r"\frac{1}{2}");
    assert_eq!(extracted(r"We get \boxed{1} and \boxed{2}."), "1,2");
    assert_eq!(extracted(r"Here \boxed{1} is a step on the long way that leads to \boxed{2}."), "2");
    assert_eq!(extracted("The answer is $7$ and there are 8 others"), "7");
    assert_eq!(extracted("First 5, then 1,200 dollars"), "1200");
    assert_eq!(extracted("It rose by 15%"), r"15\%");
    assert_eq!(extracted("Both $x=1$ and $x=2$ do"), "x=1,x=2");
    assert_eq!(extracted("no number"), "");
}

#[test]
fn spaces_of_several_bytes_are_spaces() {
    assert_eq!(extracted("answer is \u{2000}"), "");
    assert_eq!(extracted("the answer is\u{2003}[7]\u{2003}so"), extracted("the answer is [7] so"));
}

#[test]
fn units_fonts_and_boxes_do_not_count() {
    assert_eq!(extracted(r"\boxed{12 \text{ cm}^2}"), "12");
    assert_eq!(extracted(r"\boxed{18\ \mathrm{dollars}}"), "18");
    assert_eq!(extracted(r"\boxed{\$5 million}"), "5 million");
    assert_eq!(extracted(r"\boxed{12\text{ and }13}"), "12,13");
    assert_eq!(extracted(r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}"), r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}");
}

#[test]
fn decimals_percentages_and_sets_have_rules_of_their_own() {
    assert!(equal(r"\frac{1}{3}", "0.333333"));
    assert!(!equal(r"\frac{1}{3}", "0.33"));
    assert!(equal("9", r"9\%"));
    assert!(equal("0.09", r"9\%"));
    assert!(equal("1,000", "1000"));
    assert!(equal("1,2", "2,1"));
    assert!(!equal("(1,2,3)", "3,2,1"));
    assert!(!equal("5", ""));
}
