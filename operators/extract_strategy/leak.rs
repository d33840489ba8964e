//! Whether a strategy gives away what it should let others find.
//!
//! Our design (no paper fixes it): a strategy leaks if it holds the reference
//! answer as a sequence of words and numbers, a number of three or more digits,
//! or an equation with numbers on both sides; unless the question has the same.

use std::collections::BTreeSet;

/// Why a strategy leaks, if it does.
pub(super) fn leak(strategy: &str, question: &str, reference: Option<&str>) -> Option<String> {
    let (said, asked) = (tokens(strategy), tokens(question));
    let answer = reference.map(tokens).unwrap_or_default();
    if !answer.is_empty() && holds(&said, &answer) && !holds(&asked, &answer) {
        return Some(format!("it holds the answer {:?}", answer.join(" ")));
    }
    let known: BTreeSet<&str> = asked.iter().map(String::as_str).collect();
    let is_long = |token: &&String| {
        token.bytes().filter(u8::is_ascii_digit).count() >= 3
            && token.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    if let Some(number) = said.iter().filter(is_long).find(|number| !known.contains(number.as_str())) {
        return Some(format!("it holds the number {number}, which the question lacks"));
    }
    let has_digit = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
    let mut clauses = strategy.split(['\n', ';', ',', '?', '!']).flat_map(|clause| clause.split(". "));
    let equation =
        clauses.find(|clause| clause.split_once('=').is_some_and(|(left, right)| has_digit(left) && has_digit(right)));
    equation.map(|equation| format!("it holds the equation {:?}", equation.trim()))
}

/// Words in lower case, and numbers without the commas within them.
fn tokens(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut found: Vec<String> = Vec::new();
    let mut word = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let digit_after = letters.get(at + 1).is_some_and(char::is_ascii_digit);
        let in_number = !word.is_empty() && word.ends_with(|c: char| c.is_ascii_digit()) && digit_after;
        match letter {
            ',' if in_number => {}
            '.' if in_number && !word.contains('.') => word.push('.'),
            letter if letter.is_alphanumeric() => {
                // `2x` is a number and a word.
                let border = word.chars().last().is_some_and(|last| last.is_ascii_digit() != letter.is_ascii_digit());
                if border && !word.ends_with('.') {
                    found.push(std::mem::take(&mut word));
                }
                word.extend(letter.to_lowercase());
            }
            _ => found.push(std::mem::take(&mut word)),
        }
    }
    found.push(word);
    found.retain(|word| !word.is_empty());
    found
}

fn holds(text: &[String], part: &[String]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_and_numbers() {
        let of = |text: &str| tokens(text).join("|");
        assert_eq!(of("The sum is 1,234.50, or 2x."), "the|sum|is|1234.50|or|2|x");
        assert_eq!(of("\\frac{1}{2} = 0.5"), "frac|1|2|0.5");
        assert_eq!(of("in 3 steps, 4 of them. 5"), "in|3|steps|4|of|them|5");
        assert_eq!(of(""), "");
    }

    #[test]
    fn the_answer_leaks_unless_the_question_has_it() {
        let asked = "Ann has 12 apples and eats 5. How many are left?";
        assert_eq!(leak("Subtract what is eaten.", asked, Some("7")), None);
        assert_eq!(leak("You should get 7.", asked, Some("7")).as_deref(), Some("it holds the answer \"7\""));
        assert_eq!(leak("You should get 17 or 70.", asked, Some("7")), None, "a part of a number is not it");
        assert_eq!(leak("Begin with 12.", asked, Some("12")), None);
        assert!(leak("It is \\frac{3}{4}.", asked, Some("$\\frac{3}{4}$")).is_some());
        assert!(leak("It is 1,200 in all", "How many?", Some("1200")).is_some());
        assert_eq!(leak("Anything", asked, None), None);
    }

    #[test]
    fn long_numbers_and_equations_leak() {
        let asked = "What is 365 times 4?";
        assert_eq!(leak("Multiply 365 by the count", asked, None), None);
        let long = leak("You reach 1460 in the end", asked, None);
        assert_eq!(long.as_deref(), Some("it holds the number 1460, which the question lacks"));
        assert!(leak("Use 3.14 for pi", asked, None).is_some(), "three digits");
        assert_eq!(leak("Use 99 of them", asked, None), None);
        let equation = leak("Multiply, then 4 * 3 = 12. Go on", asked, None);
        assert_eq!(equation.as_deref(), Some("it holds the equation \"then 4 * 3 = 12\""));
        assert_eq!(leak("Let x = 3; solve for y = z. Then 5", asked, None), None);
    }
}
