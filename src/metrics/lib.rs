//! Pure functions about answers and figures: what a right answer is, which
//! answers become training data, how sure a mean is, and the synthetic skills
//! that small models learn.
//!
//! * [`tasks`]: synthetic skills; one file generates, renders and grades one.
//! * [`verify`]: compares a free-text answer with a reference.
//! * [`code`]: programs in answers, and their tests.
//! * [`ifeval`]: whether a response follows instructions that can be checked.
//! * [`selection`]: which answers become SFT rows, preference pairs and
//!   triples, and why the others do not.
//! * [`text`]: how alike two texts are; their sentences, words and language.
//! * [`sandbox`]: runs programs that nobody has read.
//! * [`judged`]: benchmarks that a judge decides: verdicts, win rates, ratings.
//! * [`stats`]: means with their deviations, intervals and tests.
//! * [`rng`]: the random numbers all of these use; the seed is an argument.
//!
//! Nothing here knows tensors, tables, files, the network or a clock, the sandbox
//! excepted. The same arguments give the same result on every machine.
//!
//! Each of the first three modules has a `VERSION`, raised whenever a result of
//! it changes; an operator that uses the module names it among its parts, so
//! that the change reaches the keys.

pub mod code;
mod error;
pub mod ifeval;
pub mod judged;
pub mod rng;
pub mod sandbox;
pub mod selection;
pub mod stats;
pub mod tasks;
pub mod text;
pub mod verify;

pub use error::Error;
