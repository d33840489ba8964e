//! IFEval: whether a response follows the instructions that a prompt gives,
//! each of which a program can check (J. Zhou and others, Instruction-Following
//! Evaluation for Large Language Models, arXiv 2311.07911).
//!
//! Verdicts are those of the authors' program (google-research,
//! `instruction_following_eval`), strict and loose, with the language detector
//! seeded with 0. Where that program draws an argument at random because the
//! prompt gives none that it can use, there is an error here; except for
//! `keywords:letter_frequency` with a sign that is no letter, which is counted
//! as it stands (two of the 541 published prompts; the program takes a random
//! letter there).

mod arguments;
mod check;

pub use arguments::Arguments;

use crate::Error;
use arguments::KINDS;
use check::{Check, Text};

/// Raised when a verdict changes.
pub const VERSION: u32 = 1;

/// The instructions of one prompt, ready to be checked.
#[derive(Debug)]
pub struct Instructions {
    checks: Vec<Check>,
}

/// For each instruction of a prompt, in order, whether a response follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The response as it stands.
    pub strict: Vec<bool>,
    /// The response, or what is left of it without its first line, its last line, both, or its asterisks.
    pub loose: Vec<bool>,
}

impl Instructions {
    /// Reads instructions: the kind of each (`length_constraints:number_words`) and its arguments.
    pub fn read(kinds: &[String], arguments: &[Arguments]) -> Result<Self, Error> {
        if kinds.len() != arguments.len() {
            return Err(Error::InstructionMismatch { n_kinds: kinds.len(), n_arguments: arguments.len() });
        }
        let checks = kinds.iter().zip(arguments).map(|(kind, arguments)| {
            let known = KINDS.iter().find(|(name, _)| name == kind).ok_or_else(|| Error::UnknownInstruction {
                kind: kind.clone(),
                known: KINDS.iter().map(|(name, _)| *name).collect(),
            })?;
            (known.1)(arguments).map_err(|problem| Error::BadInstruction { kind: kind.clone(), problem })
        });
        Ok(Self { checks: checks.collect::<Result<_, _>>()? })
    }

    /// Checks a response; an empty one follows nothing.
    pub fn judge(&self, response: &str) -> Followed {
        let variants = variants(response);
        let texts: Vec<Text> = variants.iter().map(|variant| Text::new(variant)).collect();
        let follows = |check: &Check, text: &Text| !text.is_blank() && check.holds(text);
        let strict: Vec<bool> = self.checks.iter().map(|check| follows(check, &texts[0])).collect();
        let loose = self.checks.iter().zip(&strict);
        let loose = loose.map(|(check, strict)| *strict || texts[1..].iter().any(|text| follows(check, text)));
        Followed { loose: loose.collect(), strict }
    }
}

impl Followed {
    /// Whether all instructions are followed, strictly.
    pub fn all_strict(&self) -> bool {
        self.strict.iter().all(|followed| *followed)
    }

    /// Whether all instructions are followed, loosely.
    pub fn all_loose(&self) -> bool {
        self.loose.iter().all(|followed| *followed)
    }
}

/// The response first, then what the loose reading also accepts, each once.
fn variants(response: &str) -> Vec<String> {
    let lines: Vec<&str> = response.split('\n').collect();
    let joined = |lines: &[&str]| crate::text::python::strip(&lines.join("\n")).to_owned();
    let last = lines.len() - 1;
    let cut = [
        response.to_owned(),
        joined(&lines[1..]),
        joined(&lines[..last]),
        joined(lines.get(1..last).unwrap_or_default()),
    ];
    let mut variants: Vec<String> = Vec::new();
    for variant in cut.iter().cloned().chain(cut.iter().map(|variant| variant.replace('*', ""))) {
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    variants
}

#[cfg(test)]
mod tests;
