//! The client: many questions to one endpoint, so many at once, each tried until
//! it is answered, is refused, or has been tried too often.
//!
//! One question's fault is told with it and the rest goes on; what would befall
//! every question ends all of it. Which of the two a failure is that comes again
//! and again is decided by whether others were answered meanwhile.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{Error, chain};
use crate::limits::{Limits, draw, is_here, pause, retry_after};
use crate::prices::{Prices, Purse};
use crate::wire::{Answer, Form, Question, complaint};

/// Nobody waits longer because a server says so.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// No answer is longer.
const LONGEST_BODY: usize = 64 << 20;

/// An endpoint and how to ask it.
#[derive(Debug)]
pub struct Settings {
    /// The address, up to `/v1`.
    pub url: String,
    /// The key, sent as a bearer token.
    pub api_key: Option<String>,
    /// What is the same for all questions.
    pub form: Form,
    /// How often and how many.
    pub limits: Limits,
    /// What tokens cost.
    pub prices: Option<Prices>,
    /// What may be spent; needs prices.
    pub purse: Option<Purse>,
}

/// What one question consumed, all tries together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Tokens read, as far as the server counted.
    pub tokens_in: u64,
    /// Tokens written.
    pub tokens_out: u64,
    /// US dollars, where there are prices. A try whose bill was lost counts with the most that it may have cost.
    pub usd: Option<f64>,
}

/// A question that is done with.
#[derive(Debug)]
pub struct Done {
    /// Its place among the questions.
    pub place: usize,
    /// The answer, or why there is none for this question.
    pub answer: Result<Answer, String>,
    /// What it consumed.
    pub spent: Spent,
}

/// The client of one endpoint.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: reqwest::Url,
    form: Form,
    limits: Limits,
    prices: Option<Prices>,
    purse: Option<RefCell<Purse>>,
    /// Something was given back to the purse.
    settled: Notify,
    /// Questions that were answered.
    answered: Cell<u64>,
    /// Nobody asks before this: the server wants a pause.
    resume_at: Cell<Option<Instant>>,
    /// When the next try may begin, where tries a minute are limited.
    next_slot: Cell<Option<Instant>>,
}

/// Why a question has no answer.
enum Failure {
    /// For its own sake.
    Own(String),
    /// As any other question would.
    All(Error),
}

/// How one try ended that gave no answer.
struct Miss {
    why: String,
    /// The pause that the server asks for.
    wait: Option<Duration>,
    /// There were too many, which says nothing of this one.
    crowded: bool,
    /// It may have been billed.
    billed: bool,
}

enum Try {
    Answered(Box<Answer>),
    Withheld(String),
    Missed(Miss),
    Failed(Failure),
}

impl Client {
    /// A client; nothing is sent yet.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let url = address(&settings.url, settings.form.api.path())?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &settings.api_key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| Error::Client { detail: "the API key has characters that no header may have".into() })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut http = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(settings.limits.timeout)
            .connect_timeout(settings.limits.connect_timeout)
            .pool_max_idle_per_host(settings.limits.max_concurrency)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        if url.host_str().is_some_and(is_here) {
            // A proxy has no business between two programs of one machine.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Error::Client { detail: chain(&error) })?;
        Ok(Self {
            http,
            url,
            form: settings.form,
            limits: settings.limits,
            prices: settings.prices,
            purse: settings.purse.map(RefCell::new),
            settled: Notify::new(),
            answered: Cell::new(0),
            resume_at: Cell::new(None),
            next_slot: Cell::new(None),
        })
    }

    /// Asks all questions and hands each one out as soon as it is done, in no
    /// fixed order, until `on_done` breaks or `stop` holds.
    pub fn ask_all(
        &self,
        questions: &[Question],
        stop: &dyn Fn() -> bool,
        on_done: &mut dyn FnMut(Done) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Client { detail: error.to_string() })?;
        let asked = runtime.block_on(self.ask_stream(questions, stop, on_done));
        let noted = self.purse.as_ref().map_or(Ok(()), |purse| purse.borrow_mut().close());
        asked.and(noted)
    }

    async fn ask_stream(
        &self,
        questions: &[Question],
        stop: &dyn Fn() -> bool,
        on_done: &mut dyn FnMut(Done) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let ask = |(place, question)| async move {
            let mut spent = Spent { usd: self.prices.map(|_| 0.0), ..Spent::default() };
            let answer = self.ask(question, &mut spent).await;
            (place, answer, spent)
        };
        let mut asked = std::pin::pin!(
            futures::stream::iter(questions.iter().enumerate()).map(ask).buffer_unordered(self.limits.max_concurrency)
        );
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let next = tokio::select! {
                next = asked.next() => next,
                _ = look.tick() => {
                    if stop() {
                        return Ok(());
                    }
                    continue;
                }
            };
            let Some((place, answer, spent)) = next else { return Ok(()) };
            let answer = match answer {
                Ok(answer) => Ok(answer),
                Err(Failure::Own(reason)) => Err(reason),
                Err(Failure::All(error)) => return Err(error),
            };
            if on_done(Done { place, answer, spent }).is_break() {
                return Ok(());
            }
        }
    }

    /// Asks one question until it is answered or given up.
    async fn ask(&self, question: &Question, spent: &mut Spent) -> Result<Answer, Failure> {
        let body = self.form.body(question).map_err(Failure::Own)?.to_string();
        let first_seen = self.answered.get();
        let (mut tries, mut seen) = (0, first_seen);
        loop {
            let held = self.hold(question).await.map_err(Failure::All)?;
            self.wait_for_turn().await;
            let tried = self.send(&body).await;
            self.settle(question, held, &tried, spent).map_err(Failure::All)?;
            let miss = match tried {
                Try::Answered(answer) => {
                    self.answered.set(self.answered.get() + 1);
                    return Ok(*answer);
                }
                Try::Withheld(reason) => {
                    self.answered.set(self.answered.get() + 1);
                    return Err(Failure::Own(reason));
                }
                Try::Failed(failure) => return Err(failure),
                Try::Missed(miss) => miss,
            };
            let now_seen = self.answered.get();
            // Where others get through, a crowded server is no reason to give up.
            if !(miss.crowded && now_seen > seen) {
                tries += 1;
            }
            seen = now_seen;
            if tries >= self.limits.max_attempts {
                return Err(if now_seen > first_seen {
                    Failure::Own(format!("the endpoint does not answer it: {}, {tries} times", miss.why))
                } else {
                    Failure::All(Error::Unavailable { url: self.url.to_string(), why: miss.why, tries })
                });
            }
            if let Some(wait) = miss.wait {
                if wait > LONGEST_WAIT {
                    let url = self.url.to_string();
                    return Err(Failure::All(Error::Later { url, seconds: wait.as_secs_f64(), said: miss.why }));
                }
                let until = Instant::now() + wait;
                self.resume_at.set(self.resume_at.get().max(Some(until)));
            }
            tokio::time::sleep(pause(tries.max(1), draw())).await;
        }
    }

    /// Sets aside what a question may cost; waits for what others give back.
    async fn hold(&self, question: &Question) -> Result<f64, Error> {
        let (Some(purse), Some(prices)) = (&self.purse, self.prices) else { return Ok(0.0) };
        let (read, written) = self.form.worst_case(question);
        let worst = prices.cost(read, written);
        loop {
            if purse.borrow_mut().hold(worst)? {
                return Ok(worst);
            }
            if !purse.borrow().is_waiting() {
                return Err(purse.borrow().refuse(worst));
            }
            self.settled.notified().await;
        }
    }

    /// Counts what a try cost and gives the rest back.
    fn settle(&self, question: &Question, held: f64, tried: &Try, spent: &mut Spent) -> Result<(), Error> {
        let (worst_in, worst_out) = self.form.worst_case(question);
        let counted = match tried {
            Try::Answered(answer) => answer.usage,
            _ => None,
        };
        let billed = match tried {
            Try::Answered(_) | Try::Withheld(_) => true,
            Try::Missed(miss) => miss.billed,
            Try::Failed(_) => false,
        };
        let (read, written) = counted.unwrap_or_default();
        spent.tokens_in += read;
        spent.tokens_out += written;
        let Some(prices) = self.prices else { return Ok(()) };
        let (read, written) = counted.unwrap_or((worst_in, worst_out));
        let cost = if billed { prices.cost(read, written) } else { 0.0 };
        spent.usd = Some(spent.usd.unwrap_or(0.0) + cost);
        if let Some(purse) = &self.purse {
            purse.borrow_mut().settle(held, cost);
            self.settled.notify_waiters();
            if cost > held * (1.0 + 1e-9) {
                return Err(Error::Overrun { counted: read + written, allowed: worst_in + worst_out });
            }
        }
        Ok(())
    }

    /// Waits while the server wants a pause, and for a place among the tries of a minute.
    async fn wait_for_turn(&self) {
        if let Some(rate) = self.limits.requests_per_minute {
            let slot = self.next_slot.get().unwrap_or_else(Instant::now).max(Instant::now());
            self.next_slot.set(Some(slot + Duration::from_secs_f64(60.0 / rate)));
            tokio::time::sleep_until(slot).await;
        }
        while let Some(until) = self.resume_at.get().filter(|until| *until > Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// One try.
    async fn send(&self, body: &str) -> Try {
        let missed = |why: String, billed| Try::Missed(Miss { why, wait: None, crowded: false, billed });
        let mut reply = match self.http.post(self.url.clone()).body(body.to_owned()).send().await {
            Ok(reply) => reply,
            Err(error) if error.is_connect() => return missed(chain(&error), false),
            Err(error) => return missed(lost(&error, self.limits.timeout), true),
        };
        let status = reply.status().as_u16();
        let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let wait = retry_after(header("retry-after-ms"), header("retry-after"), now);
        let mut text = Vec::new();
        loop {
            match reply.chunk().await {
                Ok(Some(piece)) => text.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) => return missed(lost(&error, self.limits.timeout), status == 200),
            }
            if text.len() > LONGEST_BODY {
                return missed(format!("its answer has more than {LONGEST_BODY} bytes"), true);
            }
        }
        if status == 200 {
            return match self.form.answer(&text) {
                Ok(Ok(answer)) => Try::Answered(Box::new(answer)),
                Ok(Err(reason)) => Try::Withheld(reason),
                Err(why) => missed(why, true),
            };
        }
        let (said, code) = complaint(&text);
        let crowded = matches!(status, 429 | 503 | 529);
        let exhausted = code.as_deref().is_some_and(|code| code.contains("quota") || code.contains("billing"));
        match hint(status, exhausted) {
            Some(hint) => Try::Failed(Failure::All(Error::Refused { url: self.url.to_string(), status, said, hint })),
            None if crowded || status >= 500 || matches!(status, 408 | 409 | 425) => {
                Try::Missed(Miss { why: format!("status {status}: {said}"), wait, crowded, billed: false })
            }
            None => Try::Failed(Failure::Own(format!("the endpoint refuses it: status {status}: {said}"))),
        }
    }
}

/// What to do about a status that every question would get.
fn hint(status: u16, exhausted: bool) -> Option<&'static str> {
    match status {
        401 => Some("give the endpoint a key that is valid: api_key: !secret NAME"),
        402 => Some("the account has no credit left"),
        403 => Some("see whether the key may use this model"),
        404 | 405 => Some("see that url ends in /v1, or where the server's API begins, and that it knows the model"),
        300..=399 => Some("the server sends us elsewhere: write the address that it names"),
        429 if exhausted => Some("the account's quota is used up"),
        _ => None,
    }
}

/// The address of an interface.
fn address(url: &str, path: &str) -> Result<reqwest::Url, Error> {
    let wrong = |problem: &str| Error::Url { url: url.to_owned(), problem: problem.to_owned() };
    let base = reqwest::Url::parse(url.trim_end_matches('/')).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
        // What stands there would be in keys and messages.
        let problem = "it must hold no name, password or query; a key goes under api_key: !secret NAME";
        return Err(Error::Url { url: base.host_str().unwrap_or_default().to_owned(), problem: problem.to_owned() });
    }
    if base.path().ends_with("completions") {
        return Err(wrong("it ends in the interface's own path"));
    }
    let joined = format!("{}/{path}", base.as_str().trim_end_matches('/'));
    reqwest::Url::parse(&joined).map_err(|error| wrong(&error.to_string()))
}

/// What is wrong with an endpoint's address; nothing if it is right.
pub fn check_url(url: &str) -> Result<(), Error> {
    address(url, "models").map(drop)
}

/// How a try was lost after it was sent.
fn lost(error: &reqwest::Error, timeout: Duration) -> String {
    match error.is_timeout() {
        true => format!("no whole answer within {} s", timeout.as_secs_f64()),
        false => chain(error),
    }
}

#[cfg(test)]
mod tests;
