//! Our side of `benches/generate.py`: loads a model folder, computes prompts, samples, encodes, and prints what it took.
//!
//!     cargo bench --workspace --bench generate -- generate MODEL f32|bf16 THREADS PROMPTS SAMPLES TOKENS
//!     cargo bench --workspace --bench generate -- load MODEL f32|bf16 THREADS
//!     cargo bench --workspace --bench generate -- encode MODEL FILE
//!
//! PROMPTS is a file of ids, a prompt a line. One line of JSON, in seconds and bytes.

use std::path::Path;
use std::time::Instant;

use fuseline_lm::cpu::{Model, Number};
use fuseline_lm::generate::{Control, Limits, Params, Request, Sample, generate_with, row_seed};
use fuseline_lm::tokenizer::Tokenizer;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["generate", model, number, threads, prompts, samples, tokens] => {
            let prompts = std::fs::read_to_string(prompts).expect("a file of ids");
            let mut loaded = load(model, number, threads);
            generate(&mut loaded, Path::new(model), &prompts, whole(samples), whole(tokens));
        }
        ["load", model, number, threads] => {
            let started = Instant::now();
            let model = load(model, number, threads);
            let seconds = started.elapsed().as_secs_f64();
            println!("{{\"load\": {seconds}, \"layers\": {}, \"peak\": {}}}", model.arch.n_layers, peak());
        }
        ["encode", model, file] => {
            let tokenizer = Tokenizer::load(Path::new(model)).expect("a tokenizer");
            let text = std::fs::read_to_string(file).expect("a text");
            let lines: Vec<&str> = text.lines().collect();
            let started = Instant::now();
            let ids = tokenizer.encode_batch(&lines, false).expect("encoded");
            let seconds = started.elapsed().as_secs_f64();
            println!("{{\"encode\": {seconds}, \"ids\": {}}}", ids.iter().map(Vec::len).sum::<usize>());
        }
        _ => eprintln!("see the head of benches/generate.rs; `python benches/generate.py` runs it beside its peer"),
    }
}

fn load(folder: &str, number: &str, threads: &str) -> Model {
    let number = match number {
        "f32" => Number::F32,
        "bf16" => Number::Bf16,
        other => panic!("{other} is neither f32 nor bf16"),
    };
    Model::load(Path::new(folder), number, whole(threads)).expect("a model")
}

/// Samples every prompt, then only computes the prompts.
fn generate(model: &mut Model, folder: &Path, prompts: &str, samples: usize, tokens: usize) {
    let tokenizer = Tokenizer::load(folder).expect("a tokenizer");
    let ids = |line: &str| line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
    let request = |(place, line): (usize, &str), samples: usize| Request {
        prompt: ids(line),
        samples: (0..samples as u32)
            .map(|index| Sample { index, seed: row_seed(1, &place.to_le_bytes(), index) })
            .collect(),
    };
    let mut run = |samples: usize, max_tokens: usize| {
        let requests: Vec<Request> = prompts.lines().enumerate().map(|line| request(line, samples)).collect();
        let params = Params { max_tokens, ignore_eos: true, ..Params::default() };
        let started = Instant::now();
        let usage =
            generate_with(model, &tokenizer, &requests, &params, &Limits::default(), &mut |_| Control::Continue)
                .expect("generated");
        (started.elapsed().as_secs_f64(), usage)
    };
    let (seconds, usage) = run(samples, tokens);
    let (prefill, computed) = run(1, 1);
    println!(
        "{{\"seconds\": {seconds}, \"tokens\": {}, \"prefill\": {prefill}, \"prompt_tokens\": {}, \"peak\": {}}}",
        usage.completion_tokens,
        computed.prompt_tokens,
        peak()
    );
}

fn whole(text: &str) -> usize {
    text.parse().expect("a whole number")
}

/// The most memory that this process has had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
