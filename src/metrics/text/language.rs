//! The language of a text, as the Python package `langdetect` (1.0.9, a port of
//! S. Nakatani's language-detection) finds it when its seed is 0.
//!
//! A naive Bayes classifier over runs of one to three characters, which are
//! drawn at random until one language is sure; seven times, and the mean
//! decides. The draws are Python's own ([`super::mersenne`]), so that the
//! answer is the seeded package's and not merely likely to be. The profiles of
//! 55 languages and the folding of characters are those of the crate
//! `langdetect-rs`; its detector is not used, because it draws otherwise, and
//! neither is its 56th language, Uzbek, which the package does not have.

use std::collections::HashMap;
use std::sync::LazyLock;

use langdetect_rs::detector_factory::DetectorFactory;
use langdetect_rs::utils::ngram::NGram;
use regex::Regex;
use serde::Deserialize;

use super::mersenne::Random;

/// Draws of the whole classification.
const TRIALS: usize = 7;
/// Only so many characters are looked at.
const MAX_CHARS: usize = 10_000;
/// The smoothing of probabilities, its deviation between trials, and what it is divided by.
const ALPHA: f64 = 0.5;
const ALPHA_WIDTH: f64 = 0.05;
const BASE_FREQUENCY: f64 = 10_000.0;
/// A trial ends when a language is as likely as this, or after so many draws.
const CONVERGED: f64 = 0.99999;
const MAX_DRAWS: usize = 1_000;
/// A language less likely than this is no answer.
const LEAST_LIKELY: f64 = 0.1;

struct Profiles {
    languages: Vec<String>,
    /// A run of characters to the languages that have it, with its frequency there among runs of its length.
    frequencies: HashMap<String, Vec<(usize, f64)>>,
}

/// A profile as it is written.
#[derive(Deserialize)]
struct Profile {
    name: String,
    freq: HashMap<String, u64>,
    n_words: Vec<u64>,
}

impl Profiles {
    fn get() -> &'static Self {
        static PROFILES: LazyLock<Profiles> = LazyLock::new(|| {
            let mut profiles = Profiles { languages: Vec::new(), frequencies: HashMap::new() };
            for json in DetectorFactory::get_default_profiles_json() {
                let profile: Profile = serde_json::from_str(json).expect("a profile of the crate");
                if profile.name == "uz" {
                    continue;
                }
                let language = profiles.languages.len();
                for (run, count) in profile.freq {
                    let length = run.chars().count();
                    if let Some(total) = length.checked_sub(1).and_then(|index| profile.n_words.get(index)) {
                        let frequency = count as f64 / *total as f64;
                        profiles.frequencies.entry(run).or_default().push((language, frequency));
                    }
                }
                profiles.languages.push(profile.name);
            }
            profiles
        });
        &PROFILES
    }
}

/// The code of the text's language, such as `en` or `zh-cn`; `unknown` where none is likely; none where the text has
/// nothing to tell by, which `langdetect` raises an exception for.
pub fn detect(text: &str) -> Option<&'static str> {
    let profiles = Profiles::get();
    let text = without_latin(&clean(text));
    let runs = runs(profiles, &text);
    let n_runs = u32::try_from(runs.len()).expect("three runs a character of at most 10,000");
    if n_runs == 0 {
        return None;
    }
    let n_languages = profiles.languages.len();
    let mut mean = vec![0.0; n_languages];
    let mut random = Random::new(0);
    for _ in 0..TRIALS {
        let mut likely = vec![1.0 / n_languages as f64; n_languages];
        let weight = (ALPHA + random.normal() * ALPHA_WIDTH) / BASE_FREQUENCY;
        for draw in 0.. {
            let mut rest = runs[random.below(n_runs) as usize].iter().peekable();
            for (language, likely) in likely.iter_mut().enumerate() {
                let frequency = rest.next_if(|(of, _)| *of == language).map_or(0.0, |(_, frequency)| *frequency);
                *likely *= weight + frequency;
            }
            if draw % 5 == 0 && (normalise(&mut likely) > CONVERGED || draw >= MAX_DRAWS) {
                break;
            }
        }
        for (mean, likely) in mean.iter_mut().zip(likely) {
            *mean += likely / TRIALS as f64;
        }
    }
    let named = profiles.languages.iter().map(String::as_str).zip(mean);
    // Of equals the first is taken, as a stable sort does.
    let best = named.fold(("unknown", LEAST_LIKELY), |best, this| if this.1 > best.1 { this } else { best });
    Some(best.0)
}

/// Divides by the sum; gives the greatest.
fn normalise(likely: &mut [f64]) -> f64 {
    let sum: f64 = likely.iter().sum();
    likely.iter_mut().for_each(|likely| *likely /= sum);
    likely.iter().copied().fold(0.0, f64::max)
}

/// The text without addresses, Vietnamese letters composed, runs of spaces as one.
fn clean(text: &str) -> String {
    static ADDRESSES: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        [r"https?://[-_.?&~;+=/#0-9A-Za-z]{1,2076}", r"[-_.0-9A-Za-z]{1,64}@[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}"]
            .map(|pattern| Regex::new(pattern).expect("a valid pattern"))
    });
    let mut text = text.to_owned();
    for address in ADDRESSES.iter() {
        text = address.replace_all(&text, " ").into_owned();
    }
    let text = NGram::normalize_vi(&text);
    let mut cleaned = String::with_capacity(text.len());
    let mut last = '\0';
    for c in text.chars().take(MAX_CHARS) {
        if c != ' ' || last != ' ' {
            cleaned.push(c);
        }
        last = c;
    }
    cleaned
}

/// The text without Latin letters, where others are more than twice as many.
fn without_latin(text: &str) -> String {
    let is_latin = |c: &char| ('A'..='z').contains(c);
    let is_other = |c: &char| *c >= '\u{300}' && !('\u{1e00}'..='\u{1eff}').contains(c);
    let (n_latin, n_other) = (text.chars().filter(is_latin).count(), text.chars().filter(is_other).count());
    if n_latin * 2 < n_other { text.chars().filter(|c| !is_latin(c)).collect() } else { text.to_owned() }
}

/// The runs of one to three characters that some language has, words in capitals left out.
fn runs<'p>(profiles: &'p Profiles, text: &str) -> Vec<&'p [(usize, f64)]> {
    let mut found = Vec::new();
    let mut window = NGram::new();
    for c in text.chars() {
        window.add_char(c);
        if window.capitalword {
            continue;
        }
        // From the last character backwards: the last one, two, three.
        for (start, _) in window.grams.char_indices().rev().take(NGram::N_GRAM) {
            let run = &window.grams[start..];
            if run != " "
                && let Some(languages) = profiles.frequencies.get(run)
            {
                found.push(languages.as_slice());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_found() {
        let of = |text: &str| detect(text).expect("letters");
        assert_eq!(of("War doesn't show who's right, just who's left."), "en");
        assert_eq!(of("Ein, zwei, drei, vier"), "de");
        assert_eq!(of("これは日本語の文章です。"), "ja");
        assert_eq!(of("यह हिन्दी में लिखा गया एक वाक्य है।"), "hi");
        assert_eq!(detect("1234 !!"), None);
        assert_eq!(detect(""), None);
    }

    #[test]
    fn any_length_is_read() {
        assert_eq!(detect(&"word ".repeat(1 << 20)), detect(&"word ".repeat(2_000)));
    }
}
