//! Answer verifiers: each finds the answer in a response, compares it with the
//! reference and says both. Pure functions of two texts; they must not know
//! which model wrote the response or which benchmark the prompt is from.
//!
//! `exact` and `numeric` are our own. The others are graders that papers and
//! evaluation programs use, under the names they go by, so that a published
//! figure can be met and the same answers judged by all of them; each file says
//! whose rules it has and where it differs.
//!
//! Agreement with the programs' own verdicts on recorded answers of three models to GSM8K (3,144) and MATH (11,823):
//! `opencompass` all of them; `fuseeval` all but 11; `math_verify` all but 3. On the 12,685 of these answers that stand in
//! a box: `hendrycks` all, `prm800k` all but 3, `minerva` all but 59 (mostly percent signs and bare decimal points, which
//! the original cannot read).
//!
//! To add one, write its file and put its row in [`ALL`]. Synthetic skills have
//! graders of their own in [`crate::tasks`].

use crate::Error;

mod algebra;
mod boxed;
mod choice;
mod exact;
mod fuseeval;
mod gsm8k;
mod hendrycks;
mod math_verify;
mod minerva;
mod numeric;
mod opencompass;
mod prm800k;
mod rewrite;
mod word_number;

/// Raised when a verdict or an extracted answer changes.
pub const VERSION: u32 = 2;

/// Every verifier, by name.
pub const ALL: &[Verifier] = &[
    exact::VERIFIER,
    numeric::VERIFIER,
    gsm8k::VERIFIER,
    opencompass::VERIFIER,
    fuseeval::VERIFIER,
    hendrycks::VERIFIER,
    minerva::VERIFIER,
    prm800k::VERIFIER,
    math_verify::VERIFIER,
    choice::MMLU_PRO,
    choice::MMLU_PRO_FIRST,
    choice::SIMPLE_EVALS,
    choice::ZERO_EVAL,
    choice::ARC_CHAT,
];

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
    /// Finds the answer in a response.
    pub extract: fn(response: &str) -> Option<String>,
    /// Compares an extracted answer (empty where there was none) with a reference; an error is about the reference.
    pub equal: fn(reference: &str, answer: &str) -> Result<bool, Error>,
}

impl Verifier {
    /// Judges a response; an error is about the reference, never about the response.
    pub fn verify(&self, reference: &str, response: &str) -> Result<Verdict, Error> {
        let extracted = (self.extract)(response);
        let correct = (self.equal)(reference, extracted.as_deref().unwrap_or_default())?;
        Ok(Verdict { extracted, correct })
    }
}

/// The verifier of a name.
pub fn find(name: &str) -> Result<&'static Verifier, Error> {
    ALL.iter().find(|verifier| verifier.name == name).ok_or_else(|| Error::UnknownVerifier {
        name: name.to_owned(),
        known: ALL.iter().map(|verifier| verifier.name).collect(),
    })
}

#[cfg(test)]
mod tests;
