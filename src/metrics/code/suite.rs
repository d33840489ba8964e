//! The tests of a program, and what comes of them.

use std::time::Duration;

use serde::Serialize;

use crate::sandbox::{End, Limits, Outcome, Sandbox, SandboxError};

/// What runs in the sandbox and tells what happened to each test.
const HARNESS: &str = include_str!("harness.py");
/// For how many tests of the longest time the calls of one task may run together.
const PLUS_TESTS: f64 = 20.0;
/// What a program's start and end may take beyond its tests.
const GRACE: Duration = Duration::from_secs(5);

/// The tests of one program.
#[derive(Debug, Clone, PartialEq)]
pub enum Suite {
    /// Pieces of Python that run after the program, in its names, and fail by an exception.
    Snippets(Vec<String>),
    /// Calls whose results must be those of a reference program.
    Plus(Plus),
    /// Pairs of standard input and the output expected.
    Stdio(Vec<(String, String)>),
}

/// Tests of EvalPlus' kind (evalplus/evalplus, `evalplus/eval/__init__.py`, with its exceptions for single tasks).
#[derive(Debug, Clone, PartialEq)]
pub struct Plus {
    /// `HumanEval/3`, `Mbpp/2`: exceptions hang on the number.
    pub task: String,
    /// The reference program.
    pub reference: String,
    /// The function to call.
    pub entry_point: String,
    /// Lists of lists of arguments, each as JSON that Python reads: numbers of any size, infinities.
    pub inputs: Vec<String>,
    /// Tolerance of numbers.
    pub atol: f64,
}

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Pass,
    /// The answer was another one.
    WrongAnswer,
    /// The program raised an error or ended.
    Failed,
    /// It ran out of time.
    Timeout,
}

impl Verdict {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::WrongAnswer => "wrong_answer",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Pass, Self::WrongAnswer, Self::Failed, Self::Timeout].into_iter().find(|verdict| verdict.name() == name)
    }
}

/// A verdict with what was said of it; empty for one that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// What became of it.
    pub verdict: Verdict,
    /// The error, or what differs.
    pub message: String,
}

/// What the harness reads.
#[derive(Serialize)]
#[serde(untagged)]
enum Spec<'s> {
    Snippets {
        seconds: f64,
        program: &'s str,
        tests: &'s [String],
    },
    Plus {
        seconds: f64,
        program: &'s str,
        reference: &'s str,
        entry_point: &'s str,
        task: &'s str,
        dataset: &'static str,
        inputs: &'s [String],
        atol: f64,
    },
}

impl Suite {
    /// Runs a program against its tests, each of which may take `seconds`; a verdict a test.
    pub fn run(
        &self,
        sandbox: &Sandbox,
        program: &str,
        seconds: f64,
        limits: &Limits,
    ) -> Result<Vec<Tested>, SandboxError> {
        match self {
            Self::Snippets(tests) => {
                let spec = Spec::Snippets { seconds, program, tests };
                in_harness(sandbox, &spec, tests.len(), seconds * tests.len() as f64, limits)
            }
            Self::Plus(plus) => {
                let dataset = if plus.task.to_lowercase().starts_with("mbpp") { "mbpp" } else { "humaneval" };
                let Plus { task, reference, entry_point, inputs, atol } = plus;
                let atol = *atol;
                let spec = Spec::Plus { seconds, program, reference, entry_point, task, dataset, inputs, atol };
                // How many calls there are is known to who reads the inputs; a list of calls is one test for the clock.
                in_harness(sandbox, &spec, 0, seconds * PLUS_TESTS, limits)
            }
            Self::Stdio(pairs) => {
                let limits = timed(limits, Duration::from_secs_f64(seconds));
                let run = |(input, expected): &(String, String)| {
                    let outcome = sandbox.run(&[("program.py", program.as_bytes())], input.as_bytes(), &limits)?;
                    Ok(of_output(&outcome, expected))
                };
                pairs.iter().map(run).collect()
            }
        }
    }
}

fn timed(limits: &Limits, wall: Duration) -> Limits {
    Limits { wall, cpu_seconds: wall.as_secs() + 1, ..*limits }
}

fn in_harness(
    sandbox: &Sandbox,
    spec: &Spec,
    n_tests: usize,
    all_seconds: f64,
    limits: &Limits,
) -> Result<Vec<Tested>, SandboxError> {
    let spec = serde_json::to_vec(spec).expect("a specification is JSON");
    let wall = Duration::from_secs_f64(all_seconds) + GRACE;
    let files: &[(&str, &[u8])] = &[("program.py", HARNESS.as_bytes()), ("spec.json", &spec)];
    let outcome = sandbox.run(files, &[], &timed(limits, wall))?;
    let mut tested: Vec<Option<Tested>> = vec![None; n_tests];
    for line in String::from_utf8_lossy(&outcome.stdout).lines() {
        if let Ok(n_tests) = line.parse::<usize>() {
            tested.resize(n_tests, None);
            continue;
        }
        let Ok((number, verdict, message)) = serde_json::from_str::<(usize, String, String)>(line) else { continue };
        if let (Some(place), Some(verdict)) = (tested.get_mut(number), Verdict::named(&verdict)) {
            *place = Some(Tested { verdict, message });
        }
    }
    // Of tests that nothing is known of, the program's end tells; no tests at all are none that was passed.
    let rest = of_end(&outcome);
    if tested.is_empty() {
        return Ok(vec![rest]);
    }
    Ok(tested.into_iter().map(|tested| tested.unwrap_or_else(|| rest.clone())).collect())
}

/// What a test came to that was not finished.
fn of_end(outcome: &Outcome) -> Tested {
    let failed = |message: String| Tested { verdict: Verdict::Failed, message };
    match outcome.end {
        End::OutOfTime => Tested { verdict: Verdict::Timeout, message: String::new() },
        End::TooMuchOutput => failed("too much output".into()),
        End::Killed(signal) => failed(format!("ended by signal {signal}")),
        End::Exited(code) => {
            let stderr = String::from_utf8_lossy(&outcome.stderr);
            let last = stderr.lines().last().unwrap_or_default();
            failed(format!("ended early with code {code} {last}").trim_end().to_owned())
        }
    }
}

fn of_output(outcome: &Outcome, expected: &str) -> Tested {
    if outcome.end != End::Exited(0) {
        return of_end(outcome);
    }
    let said = String::from_utf8_lossy(&outcome.stdout);
    if same_output(&said, expected) {
        return Tested { verdict: Verdict::Pass, message: String::new() };
    }
    let shown = |text: &str| text.trim().chars().take(100).collect::<String>();
    let message = format!("gave {:?}, expected {:?}", shown(&said), shown(expected));
    Tested { verdict: Verdict::WrongAnswer, message }
}

/// Whether two outputs are the same line for line, but for space around lines and for how numbers are written
/// (LiveCodeBench, `lcb_runner/evaluation/testing_util.py`).
pub fn same_output(said: &str, expected: &str) -> bool {
    let lines = |text: &str| -> Vec<String> { text.trim().split('\n').map(|line| line.trim().to_owned()).collect() };
    let (said, expected) = (lines(said), lines(expected));
    let same_numbers = |a: &str, b: &str| {
        let numbers = |line: &str| line.split_whitespace().map(decimal).collect::<Option<Vec<_>>>();
        numbers(a).zip(numbers(b)).is_some_and(|(a, b)| a == b)
    };
    said.len() == expected.len() && said.iter().zip(&expected).all(|(a, b)| a == b || same_numbers(a, b))
}

/// A decimal number in one form: its sign, digits without zeros at the ends, and the place of the last of them.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let exponent = exponent.parse::<i32>().ok()?;
    let short = digits.trim_end_matches('0');
    let dropped = (digits.len() - short.len()) as i64;
    let short = short.trim_start_matches('0');
    if short.is_empty() {
        return Some((false, String::new(), 0));
    }
    Some((sign, short.to_owned(), i64::from(exponent) - fraction.len() as i64 + dropped))
}
