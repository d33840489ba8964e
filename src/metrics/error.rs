//! What can be wrong with the arguments of this crate's functions. Each of
//! these is about input that a person can change.

/// Why a function of this crate has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is no such task.
    #[error("there is no task {name:?}; the tasks are {}", known.join(", "))]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// A split has fewer problems than asked for.
    #[error(
        "the {split} split of task {task:?} has {found} distinct problems, {wanted} were asked for: ask for at most {found}"
    )]
    TooFewProblems {
        /// The task.
        task: &'static str,
        /// The split.
        split: crate::tasks::Split,
        /// How many were found.
        found: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// There is no such verifier.
    #[error("there is no verifier {name:?}; the verifiers are {}", known.join(", "))]
    UnknownVerifier {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// A reference cannot be compared with as a number.
    #[error("the reference {reference:?} holds no number; use the verifier \"exact\", or correct the reference")]
    ReferenceNotNumeric {
        /// The reference.
        reference: String,
    },
    /// There is no such kind of instruction.
    #[error("there is no instruction {kind:?}; the instructions are {}", known.join(", "))]
    UnknownInstruction {
        /// The kind asked for.
        kind: String,
        /// The kinds that exist.
        known: Vec<&'static str>,
    },
    /// An instruction's arguments do not say what is asked.
    #[error("the instruction {kind:?}: {problem}")]
    BadInstruction {
        /// The kind.
        kind: String,
        /// What is wrong.
        problem: String,
    },
    /// Instructions and their arguments do not go together.
    #[error(
        "{n_kinds} instructions have {n_arguments} sets of arguments: give one to each, empty where there are none"
    )]
    InstructionMismatch {
        /// How many instructions.
        n_kinds: usize,
        /// How many sets of arguments.
        n_arguments: usize,
    },
    /// There are no such rules of finding entities.
    #[error("there are no rules {name:?} for entities; the rules are camrest, smd, multiwoz")]
    UnknownEntityRules {
        /// The name asked for.
        name: String,
    },
    /// A score is NaN or infinite, so that there is no best one.
    #[error("the score {score} of source {source_index}, sample {sample_index} is not finite")]
    ScoreNotFinite {
        /// Position of the source.
        source_index: usize,
        /// Position of the sample.
        sample_index: usize,
        /// The score.
        score: f64,
    },
    /// A rule that needs verdicts met an answer without one.
    #[error(
        "source {source_index}, sample {sample_index} has no verdict, which the rule {rule:?} needs: verify the answers first"
    )]
    VerdictMissing {
        /// Position of the source.
        source_index: usize,
        /// Position of the sample.
        sample_index: usize,
        /// The rule.
        rule: &'static str,
    },
    /// Two lists that run side by side differ in length.
    #[error("{n_scores} scores stand beside {n_texts} texts")]
    LengthMismatch {
        /// How many scores.
        n_scores: usize,
        /// How many texts.
        n_texts: usize,
    },
    /// The window of margins holds nothing.
    #[error("the margin window {min}..={max} is empty: give numbers with min <= max")]
    EmptyWindow {
        /// The lower end.
        min: f64,
        /// The upper end.
        max: f64,
    },
    /// A text is not a share between 0 and 1.
    #[error("{text:?} is not a share: write a number between 0 and 1, such as 0.4 or 1/3")]
    BadFraction {
        /// The text.
        text: String,
    },
    /// A prompt occurs twice where each may stand once.
    #[error("the prompt {prompt_id:?} occurs twice: give one row a prompt")]
    DuplicatePrompt {
        /// The prompt.
        prompt_id: String,
    },
    /// A confidence level or a number of resamples makes no interval.
    #[error("an interval needs a level between 0 and 1 and at least one resample, got {level} and {n_resamples}")]
    BadInterval {
        /// The level.
        level: f64,
        /// The number of resamples.
        n_resamples: usize,
    },
    /// A regression did not come to rest.
    #[error(
        "the regression did not converge in {steps} steps: look for values that are not finite or out of all scale"
    )]
    NoConvergence {
        /// How many steps were made.
        steps: usize,
    },
    /// Lengths cannot be controlled for.
    #[error(
        "lengths cannot be controlled for: of {n_rows} rows {n_judged} have a preference, and two with different length differences are needed"
    )]
    NoLengthControl {
        /// How many rows there are.
        n_rows: usize,
        /// How many of them have a preference.
        n_judged: usize,
    },
    /// Copies of a battle cannot be drawn.
    #[error("the weight {weight} is not a whole number, so there are no copies to draw: resample battles or clusters")]
    WeightNotWhole {
        /// The weight.
        weight: f64,
    },
    /// Two models have no chain of battles between them.
    #[error("no chain of battles joins {one:?} and {other:?}, so their ratings cannot be compared")]
    Unconnected {
        /// A model.
        one: String,
        /// A model that it cannot be compared with.
        other: String,
    },
    /// A style element is the same everywhere.
    #[error("style element {element} has the same relative difference in every battle: leave it out")]
    StyleWithoutSpread {
        /// Its position, from zero.
        element: usize,
    },
}
