//! The client against a server that fails on purpose.

use std::collections::BTreeMap;

use super::*;
use crate::wire::{Api, LimitName, Params, Turn};

#[path = "../../../tests/endpoint/server.rs"]
mod server;

use server::{Act, Asked, Server};

fn settings(server: &Server) -> Settings {
    let params = Params::plain(16, 1.0);
    Settings {
        url: server.url(),
        api_key: None,
        form: Form { model: "m".into(), api: Api::Chat, limit_name: LimitName::MaxTokens, json_schema: None, params },
        limits: Limits {
            max_concurrency: 8,
            requests_per_minute: None,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            max_attempts: 3,
        },
        prices: None,
        purse: None,
    }
}

fn questions(n: usize) -> Vec<Question> {
    let turn = |place| Turn { role: "user".into(), content: format!("word {place}") };
    (0..n).map(|place| Question { turns: vec![turn(place)], seed: Some(place as i64) }).collect()
}

type Answers = BTreeMap<usize, Result<String, String>>;

fn ask(settings: Settings, questions: &[Question]) -> (Answers, Result<(), Error>, Spent) {
    let client = Client::new(settings).expect("a client");
    let (mut answers, mut spent) = (Answers::new(), Spent::default());
    let ended = client.ask_all(questions, &|| false, &mut |done| {
        assert!(answers.insert(done.place, done.answer.map(|answer| answer.text)).is_none(), "handed out once");
        spent.tokens_in += done.spent.tokens_in;
        spent.tokens_out += done.spent.tokens_out;
        spent.usd = done.spent.usd.map(|usd| usd + spent.usd.unwrap_or(0.0));
        ControlFlow::Continue(())
    });
    (answers, ended, spent)
}

fn all_right(answers: &Answers, n: usize) {
    let expected: Answers = (0..n).map(|place| (place, Ok(format!("you said word {place} {place}")))).collect();
    assert_eq!(answers, &expected);
}

#[test]
fn every_question_is_asked_once_and_no_more_than_so_many_at_a_time() {
    let server = Server::start(|_| Act::AnswerAfter(Duration::from_millis(2)));
    let (answers, ended, spent) = ask(settings(&server), &questions(200));
    ended.expect("all is well");
    all_right(&answers, 200);
    assert_eq!((server.asked(), server.bodies()), (200, (200, 1)));
    assert!(server.most_at_once() <= 8, "{}", server.most_at_once());
    assert_eq!(((spent.tokens_in, spent.tokens_out), spent.usd), (server.billed(), None));
}

#[test]
fn failures_of_the_moment_are_tried_again() {
    // Each question fails once in its own way, then is answered.
    let act = |asked: &Asked| match (asked.again, asked.number % 5) {
        (0, 0) => Act::Say(500, "", "{\"error\": \"oops\"}"),
        (0, 1) => Act::Half,
        (0, 2) => Act::Close,
        (0, 3) => Act::Say(200, "", "{\"choices\": \"none\"}"),
        (0, 4) => Act::Say(429, "retry-after: 0.05\r\n", "{\"error\": {\"message\": \"slow down\"}}"),
        _ => Act::Answer,
    };
    let server = Server::start(act);
    let (answers, ended, _) = ask(settings(&server), &questions(20));
    ended.expect("all is well in the end");
    all_right(&answers, 20);
    assert_eq!((server.asked(), server.bodies()), (40, (20, 2)));
}

#[test]
fn a_stalled_answer_is_given_up_and_asked_for_again() {
    let server = Server::start(|asked| if asked.again == 0 { Act::Stall } else { Act::Answer });
    let mut settings = settings(&server);
    settings.limits.timeout = Duration::from_millis(300);
    let (answers, ended, _) = ask(settings, &questions(3));
    ended.expect("all is well in the end");
    all_right(&answers, 3);
}

#[test]
fn all_wait_when_the_server_says_when_to_come_back() {
    use std::sync::Mutex;
    use std::time::Instant;
    static REFUSED: Mutex<Option<Instant>> = Mutex::new(None);
    static EARLY: Mutex<u32> = Mutex::new(0);
    // The first is refused for 400 ms; what else was on its way then may still come.
    let act = |asked: &Asked| {
        let mut refused = REFUSED.lock().expect("no panic");
        match *refused {
            None => {
                *refused = Some(Instant::now());
                Act::Say(429, "retry-after-ms: 400\r\n", "{}")
            }
            Some(_) if asked.number == 1 => Act::AnswerAfter(Duration::from_millis(200)),
            Some(at) => {
                *EARLY.lock().expect("no panic") += u32::from(asked.number >= 2 && at.elapsed().as_millis() < 400);
                Act::Answer
            }
        }
    };
    let server = Server::start(act);
    let mut settings = settings(&server);
    settings.limits.max_concurrency = 2;
    let (answers, ended, _) = ask(settings, &questions(30));
    ended.expect("all is well in the end");
    all_right(&answers, 30);
    assert_eq!(server.asked(), 31);
    let early = *EARLY.lock().expect("no panic");
    assert!(early <= 2, "{early} asked before they should");
}

#[test]
fn one_questions_fault_is_told_with_it() {
    let act = |asked: &Asked| match asked.text() {
        "word 3" => Act::Say(400, "", "{\"error\": {\"message\": \"maximum context length is 8\"}}"),
        "word 5" => Act::Say(500, "", "crashed"),
        "word 6" => Act::Say(
            200,
            "",
            "{\"choices\": [{\"message\": {\"content\": \"\"}, \"finish_reason\": \"content_filter\"}]}",
        ),
        _ => Act::Answer,
    };
    let server = Server::start(act);
    let mut settings = settings(&server);
    settings.limits.max_concurrency = 2;
    let (answers, ended, _) = ask(settings, &questions(40));
    ended.expect("the others are answered");
    let reason = |place: usize| answers[&place].clone().expect_err("no answer");
    assert_eq!(reason(3), "the endpoint refuses it: status 400: maximum context length is 8");
    assert_eq!(reason(5), "the endpoint does not answer it: status 500: crashed, 3 times");
    assert_eq!(reason(6), "the server withholds the answer (content_filter)");
    assert_eq!(answers.values().filter(|answer| answer.is_ok()).count(), 37);
}

#[test]
fn what_befalls_every_question_ends_all_of_it_at_once() {
    for (status, body, words) in [
        (
            401,
            "{\"error\": {\"message\": \"bad key\"}}",
            "refuses all questions: 401: bad key\nhint: give the endpoint a key",
        ),
        (404, "{\"detail\": \"Not Found\"}", "refuses all questions: 404: Not Found\nhint: see that url ends in /v1"),
        (307, "", "refuses all questions: 307: it says nothing more"),
        (
            429,
            "{\"error\": {\"message\": \"pay\", \"code\": \"insufficient_quota\"}}",
            "the account's quota is used up",
        ),
    ] {
        let server = Server::start(move |_| Act::Say(status, "", body));
        let (answers, ended, _) = ask(settings(&server), &questions(50));
        let error = ended.expect_err("nobody is answered");
        assert!(answers.is_empty() && error.to_string().contains(words), "{error}");
        assert_eq!(error.audience(), crate::Audience::Input);
        assert!(server.asked() <= 8, "{status}: {}", server.asked());
    }
}

#[test]
fn an_endpoint_that_is_down_is_an_error_and_not_fifty_failed_rows() {
    let url = Server::start(|_| Act::Answer).url();
    let server = Server::start(|_| Act::Say(503, "", "loading"));
    for url in [url, server.url()] {
        let settings = Settings { url, ..settings(&server) };
        let (answers, ended, _) = ask(settings, &questions(50));
        let error = ended.expect_err("nobody answers");
        assert!(answers.is_empty(), "{answers:?}");
        assert!(error.is_of_the_moment() && error.to_string().contains("does not answer: "), "{error}");
    }
}

#[test]
fn a_pause_beyond_patience_is_an_error() {
    let server = Server::start(|_| Act::Say(429, "retry-after: 86400\r\n", "{\"error\": \"tomorrow\"}"));
    let (_, ended, _) = ask(settings(&server), &questions(2));
    assert!(ended.expect_err("too long").to_string().contains("asks to come back in 86400 s: status 429: tomorrow"));
}

#[test]
fn a_crowded_server_is_asked_again_for_as_long_as_others_get_through() {
    // Two of three are refused, whatever they are: far more than the tries of one question.
    let server = Server::start(|asked| match asked.number % 3 {
        0 => Act::Answer,
        _ => Act::Say(429, "retry-after: 0\r\n", "{}"),
    });
    let mut settings = settings(&server);
    settings.limits.max_concurrency = 16;
    settings.limits.max_attempts = 6;
    let (answers, ended, _) = ask(settings, &questions(40));
    ended.expect("all get through");
    all_right(&answers, 40);
}

fn purse(folder: &tempfile::TempDir, limit: f64) -> Option<Purse> {
    Some(Purse::open(limit, &folder.path().join("spent")).expect("a purse"))
}

#[test]
fn the_spending_limit_is_never_passed_however_many_ask_at_once() {
    let prices = Prices { input: 100.0, output: 1000.0 };
    let bill = |server: &Server| prices.cost(server.billed().0, server.billed().1);
    for acts in [
        (|_: &Asked| Act::AnswerAfter(Duration::from_millis(1))) as fn(&Asked) -> Act,
        // What was lost may have been billed.
        |asked| if asked.number.is_multiple_of(3) { Act::Half } else { Act::Answer },
    ] {
        let (server, folder) = (Server::start(acts), tempfile::tempdir().expect("a folder"));
        let limits = Limits { max_concurrency: 64, max_attempts: 9, ..settings(&server).limits };
        // A question costs some 0.005 $, and at worst 0.07 $.
        let limit = 1.0;
        let settings = || Settings {
            prices: Some(prices),
            purse: purse(&folder, limit),
            limits: limits.clone(),
            ..settings(&server)
        };
        let (answers, ended, spent) = ask(settings(), &questions(1000));
        let error = ended.expect_err("not all can be paid for");
        assert!(matches!(error, Error::Spent { .. }), "{error}");
        let billed = bill(&server);
        assert!(billed <= limit, "{billed}");
        assert!(spent.usd.is_some_and(|usd| usd <= limit + 1e-9), "{spent:?}");
        assert!(answers.len() > 10 && answers.len() < 1000, "{}", answers.len());
        // Another process goes on from what was spent, and there is nothing left.
        let (more, ended, _) = ask(settings(), &questions(1000)[500..]);
        assert!(more.is_empty() && matches!(ended, Err(Error::Spent { .. })));
        assert_eq!(bill(&server), billed);
    }
}

#[test]
fn a_bill_beyond_what_was_asked_for_ends_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let body = "{\"choices\": [{\"message\": {\"content\": \"x\"}}], \"usage\": {\"prompt_tokens\": 5, \"completion_tokens\": 9000}}";
    let server = Server::start(move |_| Act::Say(200, "", body));
    let prices = Some(Prices { input: 1.0, output: 1.0 });
    let (_, ended, _) = ask(Settings { prices, purse: purse(&folder, 1.0), ..settings(&server) }, &questions(3));
    assert!(matches!(ended, Err(Error::Overrun { counted: 9005, .. })));
}

#[test]
fn the_receiver_and_the_caller_may_stop() {
    let server = Server::start(|_| Act::Answer);
    let client = Client::new(settings(&server)).expect("a client");
    let mut n = 0;
    let stopped = client.ask_all(&questions(500), &|| false, &mut |_| {
        n += 1;
        if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.is_ok() && n == 3 && server.asked() < 50, "{n} {}", server.asked());
    let server = Server::start(|_| Act::Stall);
    let client = Client::new(settings(&server)).expect("a client");
    client.ask_all(&questions(5), &|| true, &mut |_| panic!("nothing is answered")).expect("stopped");
}

#[test]
fn the_key_is_sent_and_never_shown() {
    let server = Server::start(|asked| match asked.key.as_deref() {
        Some("Bearer sk-very-secret") => Act::Answer,
        _ => Act::Say(401, "", "{}"),
    });
    let settings = Settings { api_key: Some("sk-very-secret".into()), ..settings(&server) };
    let client = Client::new(settings).expect("a client");
    assert!(!format!("{client:?}").contains("very-secret"), "{client:?}");
    let mut n = 0;
    let mut count = |_| {
        n += 1;
        ControlFlow::Continue(())
    };
    client.ask_all(&questions(2), &|| false, &mut count).expect("the key is right");
    assert_eq!(n, 2);
}

#[test]
fn addresses_that_cannot_be_are_refused_with_what_to_write() {
    let said = |url: &str| check_url(url).expect_err("no address").to_string();
    assert!(said("localhost:8000").contains("must begin with http:// or https://"));
    assert!(said("not at all").contains("hint: it looks like http://localhost:8000/v1"));
    assert!(said("http://h/v1/chat/completions").contains("ends in the interface's own path"));
    let secret = said("https://user:hunter2@h/v1");
    assert!(secret.contains("!secret NAME") && !secret.contains("hunter2"), "{secret}");
    for right in ["http://localhost:8000/v1", "https://api.example.org/v1/", "http://[::1]:9"] {
        check_url(right).expect(right);
    }
    assert_eq!(address("http://h:1/v1/", "completions").expect("right").as_str(), "http://h:1/v1/completions");
}

#[test]
fn tries_a_minute_are_paced() {
    let server = Server::start(|_| Act::Answer);
    let mut settings = settings(&server);
    settings.limits.requests_per_minute = Some(1200.0);
    let begun = std::time::Instant::now();
    let (answers, ended, _) = ask(settings, &questions(11));
    ended.expect("all is well");
    all_right(&answers, 11);
    // The first begins at once, each further one 50 ms later at the earliest.
    assert!(begun.elapsed() >= Duration::from_millis(500));
}
