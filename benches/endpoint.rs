//! The client of endpoints beside the ideal: 1,000 questions, 64 at a time, to a
//! server on this machine that takes 50 ms for each. No client can do it in less
//! than ⌈1000 / 64⌉ · 50 ms. Prints a table.
//!
//!     cargo bench --workspace --bench endpoint

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fuseline_remote::wire::{Api, Form, LimitName, Params, Question, Turn};
use fuseline_remote::{Client, Limits, Settings};

#[path = "../tests/endpoint/server.rs"]
mod server;

use server::{Act, Server};

const QUESTIONS: usize = 1000;
const AT_ONCE: usize = 64;
const ANSWER: Duration = Duration::from_millis(50);
const RUNS: usize = 7;

fn main() {
    let server = Server::start(|_| Act::AnswerAfter(ANSWER));
    let turn = |place| Turn { role: "user".into(), content: format!("question {place} of a run with many") };
    let questions: Vec<Question> =
        (0..QUESTIONS).map(|place| Question { turns: vec![turn(place)], seed: Some(place as i64) }).collect();
    let mut seconds: Vec<f64> = (0..RUNS).map(|_| run(&server, &questions)).collect();
    seconds.sort_by(f64::total_cmp);
    let ideal = QUESTIONS.div_ceil(AT_ONCE) as f64 * ANSWER.as_secs_f64();
    let median = seconds[RUNS / 2];
    println!("| questions | at once | answer | ideal | median of {RUNS} | fastest | slowest | median / ideal |");
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| {QUESTIONS} | {AT_ONCE} | {} ms | {ideal:.3} s | {median:.3} s | {:.3} s | {:.3} s | {:.3} |",
        ANSWER.as_millis(),
        seconds[0],
        seconds[RUNS - 1],
        median / ideal
    );
}

/// Asks all with a new client; gives the seconds.
fn run(server: &Server, questions: &[Question]) -> f64 {
    let params = Params::plain(64, 1.0);
    let client = Client::new(Settings {
        url: server.url(),
        api_key: None,
        form: Form { model: "m".into(), api: Api::Chat, limit_name: LimitName::MaxTokens, json_schema: None, params },
        limits: Limits {
            max_concurrency: AT_ONCE,
            requests_per_minute: None,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            max_attempts: 1,
        },
        prices: None,
        purse: None,
    })
    .expect("a client");
    let begun = Instant::now();
    let mut answered = 0;
    let asked = client.ask_all(questions, &|| false, &mut |done| {
        answered += usize::from(done.answer.is_ok());
        ControlFlow::Continue(())
    });
    asked.expect("the server answers");
    assert_eq!(answered, QUESTIONS);
    begun.elapsed().as_secs_f64()
}
