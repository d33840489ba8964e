//! The wire format of OpenAI's chat and completions, as vLLM, SGLang, llama.cpp
//! and `transformers serve` speak it: questions to JSON, JSON to answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Tokens that a chat template may add to a conversation, and to each of its turns.
const AROUND_A_CHAT: u64 = 512;
const AROUND_A_TURN: u64 = 32;

/// Which of the two interfaces is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/chat/completions`: the server renders the conversation.
    #[default]
    Chat,
    /// `/completions`: the one user turn is the text that the model goes on from.
    Completions,
}

impl Api {
    /// The path below the endpoint's address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
        }
    }
}

/// How a server calls the greatest number of tokens of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// `max_tokens`: most servers.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`: OpenAI's models that think.
    MaxCompletionTokens,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// How tokens are chosen. What is at the value that does nothing is not sent,
/// so that servers that do not know it need not.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Temperature; 0 is greedy.
    pub temperature: f64,
    /// Nucleus; 1 keeps all.
    pub top_p: f64,
    /// The k most likely tokens; 0 keeps all. An extension of vLLM, SGLang and llama.cpp.
    pub top_k: usize,
    /// Tokens at least this times as likely as the most likely; 0 keeps all. An extension.
    pub min_p: f64,
    /// Penalty on tokens that occurred; 1 does nothing. An extension.
    pub repetition_penalty: f64,
    /// What each token that the answer has loses of its logit; 0 does nothing.
    pub presence_penalty: f64,
    /// The same for every time that the answer has it.
    pub frequency_penalty: f64,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Also the log-probability of every token of the answer.
    pub logprobs: bool,
}

impl Params {
    /// Draws from the model's own distribution at a temperature.
    pub fn plain(max_tokens: usize, temperature: f64) -> Self {
        Self {
            max_tokens,
            temperature,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            stop: Vec::new(),
            logprobs: false,
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The conversation.
    pub turns: Vec<Turn>,
    /// The seed of its draws, where one is sent.
    pub seed: Option<i64>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why it ended: `stop`, `length`, or another word of the server.
    pub finish_reason: String,
    /// Tokens read and written, where the server counts them.
    pub usage: Option<(u64, u64)>,
    /// Every token of the answer with its log-probability in nats, where asked for and offered.
    pub logprobs: Option<Vec<(String, f64)>>,
}

/// Everything that is the same for all questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// The model's name at the server.
    pub model: String,
    /// The interface.
    pub api: Api,
    /// How the limit is called.
    pub limit_name: LimitName,
    /// The JSON Schema that answers must follow.
    pub json_schema: Option<Value>,
    /// How tokens are chosen.
    pub params: Params,
}

impl Form {
    /// The body of a request; nothing if the interface cannot take the conversation, with the reason.
    pub fn body(&self, question: &Question) -> Result<Value, String> {
        let params = &self.params;
        let mut body = Map::new();
        let mut add = |holds: bool, name: &str, value: Value| {
            if holds {
                body.insert(name.to_owned(), value);
            }
        };
        add(true, "model", json!(self.model));
        match (self.api, question.turns.as_slice()) {
            (Api::Chat, turns) => {
                let turns: Vec<Value> =
                    turns.iter().map(|turn| json!({"role": turn.role, "content": turn.content})).collect();
                add(true, "messages", Value::Array(turns));
                add(params.logprobs, "logprobs", json!(true));
            }
            (Api::Completions, [turn]) if turn.role == "user" => {
                add(true, "prompt", json!(turn.content));
                add(params.logprobs, "logprobs", json!(1));
            }
            (Api::Completions, turns) => {
                let roles: Vec<&str> = turns.iter().map(|turn| turn.role.as_str()).collect();
                return Err(format!("api: completions takes one user turn, and it has {}", roles.join(", ")));
            }
        }
        let limit = match self.limit_name {
            LimitName::MaxTokens => "max_tokens",
            LimitName::MaxCompletionTokens => "max_completion_tokens",
        };
        add(true, limit, json!(params.max_tokens));
        add(true, "temperature", json!(params.temperature));
        add(params.top_p < 1.0, "top_p", json!(params.top_p));
        add(params.top_k > 0, "top_k", json!(params.top_k));
        add(params.min_p > 0.0, "min_p", json!(params.min_p));
        add(params.repetition_penalty != 1.0, "repetition_penalty", json!(params.repetition_penalty));
        add(params.presence_penalty != 0.0, "presence_penalty", json!(params.presence_penalty));
        add(params.frequency_penalty != 0.0, "frequency_penalty", json!(params.frequency_penalty));
        add(!params.stop.is_empty(), "stop", json!(params.stop));
        if let Some(seed) = question.seed {
            add(true, "seed", json!(seed));
        }
        if let Some(schema) = &self.json_schema {
            let schema = json!({"name": "answer", "strict": true, "schema": schema});
            add(true, "response_format", json!({"type": "json_schema", "json_schema": schema}));
        }
        Ok(Value::Object(body))
    }

    /// The most tokens that a question can be billed for, read and written. A
    /// token is at least one byte of the text; what a template adds is estimated
    /// far above any that we know.
    pub fn worst_case(&self, question: &Question) -> (u64, u64) {
        let turn = |turn: &Turn| (turn.role.len() + turn.content.len()) as u64 + AROUND_A_TURN;
        let schema = self.json_schema.as_ref().map_or(0, |schema| schema.to_string().len() as u64);
        (question.turns.iter().map(turn).sum::<u64>() + schema + AROUND_A_CHAT, self.params.max_tokens as u64)
    }

    /// Reads the body of a reply. An answer that the server withheld is the
    /// inner error; what is no reply at all is the outer one.
    pub fn answer(&self, body: &[u8]) -> Result<Result<Answer, String>, String> {
        let body: Value = serde_json::from_slice(body).map_err(|error| format!("its answer is not JSON: {error}"))?;
        let choice = body.pointer("/choices/0").ok_or("its answer has no choices")?;
        let usage = (body["usage"]["prompt_tokens"].as_u64(), body["usage"]["completion_tokens"].as_u64());
        let finish_reason = choice["finish_reason"].as_str().unwrap_or("stop").to_owned();
        let said = match self.api {
            Api::Chat => &choice["message"]["content"],
            Api::Completions => &choice["text"],
        };
        if let Some(refusal) = choice["message"]["refusal"].as_str() {
            return Ok(Err(format!("the model refuses to answer: {refusal}")));
        }
        if finish_reason == "content_filter" {
            return Ok(Err("the server withholds the answer (content_filter)".to_owned()));
        }
        let text = match said {
            Value::String(text) => text.clone(),
            // All tokens went into thinking.
            Value::Null if finish_reason == "length" => String::new(),
            _ => return Err("its answer has no text".to_owned()),
        };
        let logprobs = if self.params.logprobs { self.logprobs(&choice["logprobs"]) } else { None };
        Ok(Ok(Answer { text, finish_reason, usage: usage.0.zip(usage.1), logprobs }))
    }

    fn logprobs(&self, value: &Value) -> Option<Vec<(String, f64)>> {
        match self.api {
            Api::Chat => {
                let pair = |token: &Value| Some((token["token"].as_str()?.to_owned(), token["logprob"].as_f64()?));
                value["content"].as_array()?.iter().map(pair).collect()
            }
            Api::Completions => {
                let (tokens, logps) = (value["tokens"].as_array()?, value["token_logprobs"].as_array()?);
                let pair = |(token, logp): (&Value, &Value)| Some((token.as_str()?.to_owned(), logp.as_f64()?));
                tokens.iter().zip(logps).map(pair).collect()
            }
        }
    }
}

/// What a server says of an error, in its own words, shortened, and its code for it.
pub fn complaint(body: &[u8]) -> (String, Option<String>) {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(body);
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let parsed = parsed.as_ref();
    let at = |path: &str| parsed.and_then(|body| body.pointer(path)).filter(|value| !value.is_null());
    let words = ["/error/message", "/error", "/message", "/detail"].into_iter().find_map(at).map(|said| match said {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let words = words.unwrap_or_else(|| text.trim().to_owned());
    let short: String = words.chars().take(LONGEST).collect();
    let code = at("/error/code").or_else(|| at("/error/type")).and_then(Value::as_str).map(str::to_owned);
    (if short.is_empty() { "it says nothing more".to_owned() } else { short }, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(api: Api) -> Form {
        let params = Params::plain(9, 0.5);
        Form { model: "m".into(), api, limit_name: LimitName::default(), json_schema: None, params }
    }

    fn question(turns: &[(&str, &str)]) -> Question {
        let turn = |(role, content): &(&str, &str)| Turn { role: (*role).into(), content: (*content).into() };
        Question { turns: turns.iter().map(turn).collect(), seed: None }
    }

    #[test]
    fn what_does_nothing_is_not_sent() {
        let asked = question(&[("system", "be kind"), ("user", "hi")]);
        let plain = form(Api::Chat).body(&asked).expect("a chat");
        let turns = json!([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]);
        assert_eq!(plain, json!({"model": "m", "messages": turns, "max_tokens": 9, "temperature": 0.5}));
        let mut all = form(Api::Chat);
        all.limit_name = LimitName::MaxCompletionTokens;
        all.json_schema = Some(json!({"type": "object"}));
        all.params = Params {
            top_p: 0.9,
            top_k: 5,
            min_p: 0.1,
            repetition_penalty: 1.1,
            presence_penalty: 0.5,
            frequency_penalty: -0.5,
            stop: vec!["x".into()],
            logprobs: true,
            ..all.params
        };
        let body = all.body(&Question { seed: Some(-3), ..asked }).expect("a chat");
        let rest = json!({"model": "m", "messages": turns, "logprobs": true, "max_completion_tokens": 9,
            "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "stop": ["x"],
            "presence_penalty": 0.5, "frequency_penalty": -0.5,
            "seed": -3, "response_format": {"type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": {"type": "object"}}}});
        assert_eq!(body, rest);
    }

    #[test]
    fn completions_take_one_user_turn() {
        let body = form(Api::Completions).body(&question(&[("user", "Once")])).expect("one turn");
        assert_eq!(body, json!({"model": "m", "prompt": "Once", "max_tokens": 9, "temperature": 0.5}));
        let refused = form(Api::Completions).body(&question(&[("system", "a"), ("user", "b")]));
        assert_eq!(refused, Err("api: completions takes one user turn, and it has system, user".to_owned()));
    }

    #[test]
    fn answers_of_both_interfaces_are_read() {
        let mut chat = form(Api::Chat);
        let body = json!({"choices": [{"message": {"content": "yes"}, "finish_reason": "length",
            "logprobs": {"content": [{"token": "yes", "logprob": -0.25}]}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 1}})
        .to_string();
        let plain = chat.answer(body.as_bytes()).expect("read").expect("answered");
        let expected =
            Answer { text: "yes".into(), finish_reason: "length".into(), usage: Some((7, 1)), logprobs: None };
        assert_eq!(plain, expected);
        chat.params.logprobs = true;
        let with = chat.answer(body.as_bytes()).expect("read").expect("answered");
        assert_eq!(with.logprobs, Some(vec![("yes".to_owned(), -0.25)]));
        let mut text = form(Api::Completions);
        text.params.logprobs = true;
        let body = json!({"choices": [{"text": " upon", "finish_reason": "stop",
            "logprobs": {"tokens": [" upon"], "token_logprobs": [-1.5]}}]})
        .to_string();
        let answer = text.answer(body.as_bytes()).expect("read").expect("answered");
        assert_eq!((answer.text.as_str(), answer.usage), (" upon", None));
        assert_eq!(answer.logprobs, Some(vec![(" upon".to_owned(), -1.5)]));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let read = |body: Value| form(Api::Chat).answer(body.to_string().as_bytes());
        assert!(form(Api::Chat).answer(b"<html>").is_err_and(|why| why.starts_with("its answer is not JSON")));
        assert_eq!(read(json!({"choices": []})), Err("its answer has no choices".to_owned()));
        assert_eq!(read(json!({"choices": [{"message": {}}]})), Err("its answer has no text".to_owned()));
        let withheld = read(json!({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}));
        assert!(withheld.is_ok_and(|inner| inner.is_err()));
        let refused = read(json!({"choices": [{"message": {"content": null, "refusal": "no"}}]}));
        assert_eq!(refused, Ok(Err("the model refuses to answer: no".to_owned())));
    }

    #[test]
    fn complaints_are_read_in_every_shape_that_servers_give_them() {
        let words = |body: &str| complaint(body.as_bytes()).0;
        assert_eq!(words(r#"{"error": {"message": "too long", "code": "context"}}"#), "too long");
        assert_eq!(complaint(br#"{"error": {"message": "x", "type": "quota"}}"#).1.as_deref(), Some("quota"));
        assert_eq!(words(r#"{"error": "down"}"#), "down");
        assert_eq!(words(r#"{"object": "error", "message": "vllm"}"#), "vllm");
        assert_eq!(words(r#"{"detail": [{"msg": "bad"}]}"#), r#"[{"msg":"bad"}]"#);
        assert_eq!(words("plain"), "plain");
        assert_eq!(words(""), "it says nothing more");
        assert_eq!(words(&"x".repeat(1000)).len(), 300);
    }

    #[test]
    fn the_worst_case_is_not_below_a_token_a_byte() {
        let asked = question(&[("user", "hi there")]);
        let (read, written) = form(Api::Chat).worst_case(&asked);
        assert!(read >= "userhi there".len() as u64 && written == 9);
    }
}
