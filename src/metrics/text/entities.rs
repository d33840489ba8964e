//! Values of a knowledge base in a response, from which Entity-F1 is made: how
//! well a system of task-oriented dialogue names what it was asked for.
//!
//! The rules of the three data sets are those of PaddlePaddle/Knover
//! (`projects/Q-TOD/evaluate.py`), which MAKER and MK-TOD (arXiv 2310.08877)
//! use; values of one length, unordered there, come in alphabetical order.

use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;

use crate::Error;

/// How values are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntityRules {
    /// CamRest676: a value counts where it is a substring, unless it is part of a longer one that was found.
    Camrest,
    /// Stanford's multi-domain dialogues: the same, hours and temperatures brought to one form.
    Smd,
    /// MultiWOZ: what was found is taken out before shorter values are tried; numbers of choices are written `choice-3`.
    Multiwoz,
}

impl FromStr for EntityRules {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "camrest" => Ok(Self::Camrest),
            "smd" => Ok(Self::Smd),
            "multiwoz" => Ok(Self::Multiwoz),
            _ => Err(Error::UnknownEntityRules { name: name.to_owned() }),
        }
    }
}

/// Values that SMD's responses name besides those of its knowledge bases.
const SMD_VALUES: &[&str] =
    &["yoga", "tennis", "swimming", "football", " lab ", "doctor", "optometrist", "dentist", "jill", "jack"];
/// What a number of choices stands behind.
const CHOICE: &str = "choice-";

/// A list of values, ready to be looked for.
#[derive(Debug, Clone)]
pub struct Entities {
    rules: EntityRules,
    /// In lower case, the longest first.
    values: Vec<String>,
}

impl Entities {
    /// Prepares the values of a knowledge base.
    pub fn new<'v>(values: impl IntoIterator<Item = &'v str>, rules: EntityRules) -> Self {
        let mut values: Vec<String> = values.into_iter().map(str::to_lowercase).collect();
        if rules == EntityRules::Smd {
            values.extend(SMD_VALUES.iter().map(|&value| value.to_owned()));
            values.extend((1..=20).map(|day| format!("{day}{}", ordinal(day))));
            // Alone it would be found within words.
            values.iter_mut().filter(|value| *value == "hr").for_each(|value| *value = " hr ".into());
        }
        values.retain(|value| !value.is_empty());
        values.sort_by(|a, b| b.chars().count().cmp(&a.chars().count()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { rules, values }
    }

    /// The values that a response names, the longest first, each once.
    pub fn find(&self, response: &str) -> Vec<String> {
        let text = format!(" {response} ").to_lowercase();
        match self.rules {
            EntityRules::Camrest => self.longest(&text),
            EntityRules::Smd => self.longest(&one_form(text)),
            EntityRules::Multiwoz => self.taken_out(text),
        }
    }

    fn longest(&self, text: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for value in &self.values {
            if text.contains(value.as_str()) && !found.iter().any(|longer| longer.contains(value.as_str())) {
                found.push(value.clone());
            }
        }
        found
    }

    fn taken_out(&self, mut text: String) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for value in &self.values {
            let (name, named) = match value.strip_prefix(CHOICE) {
                Some(choice) => (choice, names_choice(&text, choice)),
                None => (value.as_str(), names_value(&text, value)),
            };
            if named {
                if !found.iter().any(|known| known == name) {
                    found.push(name.to_owned());
                }
                text = text.replace(name, " ");
            }
        }
        found
    }
}

fn ordinal(day: u32) -> &'static str {
    match day {
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    }
}

/// Hours without the space before am and pm, temperatures with their unit at both ends of a range.
fn one_form(mut text: String) -> String {
    static RANGE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("([2-9]0|100)-([2-9]0f|100f)").expect("a valid pattern"));
    for hour in 0..=12 {
        for half in ["am", "pm"] {
            text = text.replace(&format!("{hour} {half}"), &format!("{hour}{half}"));
        }
    }
    RANGE.replace_all(&text, "${1}f-$2").into_owned()
}

fn names_value(text: &str, value: &str) -> bool {
    match value {
        "centre" => text.replace("cambridge towninfo centre", "").contains("centre"),
        "free" => [" parking", " internet", " wifi"].iter().any(|after| text.contains(&format!("free{after}"))),
        _ => text.contains(value),
    }
}

/// Whether a text says that there are so many choices.
fn names_choice(text: &str, choice: &str) -> bool {
    match choice {
        "to" | "" => false,
        "many" => {
            let asides = ["many other types", "many food types", "many cuisines", "how many"];
            asides.iter().fold(text.to_owned(), |text, aside| text.replace(aside, "")).contains("many")
        }
        "all" => {
            [" of the", " expensive", " moderate", " cheap"].iter().any(|after| text.contains(&format!("all{after}")))
        }
        _ => ["there are", "there is", "found", "have about", "have"].iter().any(|before| {
            text.contains(&format!("{before} {choice}")) || text.contains(&format!("{before} only {choice}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn case(name: &str) -> Value {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/mktod.json")).expect("JSON");
        let cases = golden["cases"].as_array().expect("cases");
        cases.iter().find(|case| case["name"] == name).unwrap_or_else(|| panic!("{name} is a case")).clone()
    }

    fn texts(value: &Value) -> Vec<&str> {
        value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
    }

    #[test]
    fn values_of_multiwoz_are_those_of_the_golden_cases() {
        for name in ["entity_extract/multiwoz", "entity_extract/multiwoz_choice_rules"] {
            let case = case(name);
            let entities = Entities::new(texts(&case["input"]["entities"]), EntityRules::Multiwoz);
            let expected = case["expected"]["extracted"].as_array().expect("lists");
            for (text, expected) in texts(&case["input"]["texts"]).into_iter().zip(expected) {
                assert_eq!(entities.find(text), texts(expected), "{name}: {text}");
            }
        }
    }

    #[test]
    fn values_of_camrest_are_those_of_the_golden_case() {
        let case = case("entity_f1/generic");
        let entities = Entities::new(texts(&case["input"]["entities"]), EntityRules::Camrest);
        let expected = case["expected"]["extracted_pred_ref"].as_array().expect("pairs");
        let pairs = texts(&case["input"]["predictions"]).into_iter().zip(texts(&case["input"]["references"]));
        let (mut hits, mut extra, mut missed) = (0, 0, 0);
        for ((prediction, reference), expected) in pairs.zip(expected) {
            let (ours, wanted) = (entities.find(prediction), entities.find(reference));
            // The golden lists have values of one length in another order.
            let sorted = |list: &[&str]| {
                let mut list: Vec<String> = list.iter().map(|&value| value.to_owned()).collect();
                list.sort();
                list
            };
            for (found, expected) in [(&ours, &expected[0]), (&wanted, &expected[1])] {
                let found: Vec<&str> = found.iter().map(String::as_str).collect();
                assert_eq!(sorted(&found), sorted(&texts(expected)), "{prediction}");
            }
            if !wanted.is_empty() {
                hits += wanted.iter().filter(|value| ours.contains(value)).count();
                missed += wanted.iter().filter(|value| !ours.contains(value)).count();
                extra += ours.iter().filter(|value| !wanted.contains(value)).count();
            }
        }
        assert_eq!((hits, extra, missed), (5, 3, 2));
    }

    #[test]
    fn hours_and_temperatures_have_one_form() {
        let entities = Entities::new(["3pm", "20f", "30f", "hr", "1 miles"], EntityRules::Smd);
        assert_eq!(
            entities.find("At 3 pm it is 20-30F , hr 1 miles on the 2nd"),
            ["1 miles", " hr ", "20f", "2nd", "30f", "3pm"]
        );
        assert_eq!(entities.find("three"), [""; 0]);
    }
}
