//! Answer verifiers: each finds the answer in a response, compares it with the
//! reference and says both. Pure functions of two texts; they must not know
//! which model wrote the response or which benchmark the prompt is from.
//!
//! To add one, write its file and put its row in [`ALL`]. Synthetic skills have
//! graders of their own in [`crate::tasks`].

use crate::Error;

mod exact;
mod numeric;

/// Raised when a verdict or an extracted answer changes.
pub const VERSION: u32 = 1;

/// Every verifier, by name.
pub const ALL: &[Verifier] = &[exact::VERIFIER, numeric::VERIFIER];

/// What a verifier found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answer it took out of the response, where there is one.
    pub extracted: Option<String>,
    /// Whether that is the reference.
    pub correct: bool,
}

/// A way to compare a response with a reference.
#[derive(Debug)]
pub struct Verifier {
    /// Its name in pipelines.
    pub name: &'static str,
    /// One sentence about it.
    pub doc: &'static str,
    /// Judges a response; an error is about the reference, never about the response.
    pub verify: fn(reference: &str, response: &str) -> Result<Verdict, Error>,
    /// Finds the answer in a response, as `verify` does.
    pub extract: fn(response: &str) -> Option<String>,
}

/// The verifier of a name.
pub fn find(name: &str) -> Result<&'static Verifier, Error> {
    ALL.iter().find(|verifier| verifier.name == name).ok_or_else(|| Error::UnknownVerifier {
        name: name.to_owned(),
        known: ALL.iter().map(|verifier| verifier.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verifier_is_found_and_accepts_its_own_reference() {
        for verifier in ALL {
            let found = find(verifier.name).expect("it is listed");
            assert!((found.verify)("42", "42").expect("a number").correct, "{}", verifier.name);
            let wrong = (found.verify)("42", "43").expect("a number");
            assert!(!wrong.correct && wrong.extracted == (found.extract)("43"), "{}", verifier.name);
            assert_eq!((found.verify)("42", "").expect("a number"), Verdict { extracted: None, correct: false });
        }
        assert!(find("guess").expect_err("no such verifier").to_string().contains("exact, numeric"));
    }
}
