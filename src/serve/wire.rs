//! OpenAI's interfaces as JSON: what is asked becomes work for the engine, what
//! it gives becomes a reply. A field that would be without effect is refused.

use fuseline_lm::generate::{Completion, Params};
use fuseline_lm::template::Message;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// The conversations or texts, each of which gets `n` answers.
    pub prompts: Vec<Prompt>,
    /// Answers to each.
    pub n: u32,
    /// The seed of the first answer; the next has the next number.
    pub seed: Option<u64>,
    /// How tokens are chosen.
    pub params: Params,
    /// Whether a limit was asked for; without one the server's holds.
    pub limited: bool,
    /// The model's name, which must be the served one's.
    pub model: Option<String>,
}

/// What is to be gone on from.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation, for the model's template.
    Chat(Vec<Message>),
    /// A text.
    Text(String),
    /// Tokens.
    Ids(Vec<u32>),
}

/// What both interfaces take.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    model: Option<String>,
    messages: Option<Vec<Turn>>,
    prompt: Option<Value>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    n: Option<u32>,
    stop: Option<OneOrMore>,
    seed: Option<i128>,
    logprobs: Option<Value>,
    ignore_eos: Option<bool>,
    // What is taken only where it changes nothing.
    stream: Option<bool>,
    echo: Option<bool>,
    best_of: Option<u32>,
    top_logprobs: Option<u32>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    response_format: Option<Value>,
    logit_bias: Option<Value>,
    tools: Option<Value>,
    tool_choice: Option<Value>,
    suffix: Option<Value>,
    // What says nothing about the answer.
    #[serde(rename = "user")]
    _user: Option<Value>,
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
    #[serde(rename = "store")]
    _store: Option<Value>,
    #[serde(rename = "stream_options")]
    _stream_options: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: String,
    content: Content,
}

/// A turn's text, or its parts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Reads a request to `/v1/chat/completions`.
pub fn chat(body: &[u8]) -> Result<Asked, String> {
    let body = parse(body)?;
    let turns = body.messages.as_ref().filter(|turns| !turns.is_empty()).ok_or("messages is missing or empty")?;
    if body.prompt.is_some() {
        return Err("prompt belongs to /v1/completions; a chat has messages".to_owned());
    }
    let turns = turns.iter().map(|turn| Ok(Message::new(&turn.role, text(&turn.content)?)));
    let prompt = Prompt::Chat(turns.collect::<Result<_, String>>()?);
    let logprobs = match &body.logprobs {
        None | Some(Value::Null) => false,
        Some(Value::Bool(wanted)) => *wanted,
        Some(_) => return Err("logprobs of a chat is true or false".to_owned()),
    };
    asked(body, vec![prompt], logprobs, None)
}

/// Reads a request to `/v1/completions`.
pub fn completions(body: &[u8]) -> Result<Asked, String> {
    /// What OpenAI's interface takes where nothing is asked for.
    const DEFAULT_TOKENS: usize = 16;
    let body = parse(body)?;
    if body.messages.is_some() {
        return Err("messages belong to /v1/chat/completions; here it is prompt".to_owned());
    }
    let prompts = body.prompt.as_ref().and_then(prompts).filter(|prompts| !prompts.is_empty());
    let prompts = prompts.ok_or("prompt is missing; expected a text, tokens, or a list of either")?;
    let logprobs = match &body.logprobs {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n <= 1) => true,
        Some(_) => return Err("logprobs above 1 are not offered".to_owned()),
    };
    asked(body, prompts, logprobs, Some(DEFAULT_TOKENS))
}

fn parse(body: &[u8]) -> Result<Body, String> {
    serde_json::from_slice(body).map_err(|error| format!("the body is not what is taken here: {error}"))
}

fn text(content: &Content) -> Result<String, String> {
    match content {
        Content::Text(text) => Ok(text.clone()),
        Content::Parts(parts) => {
            let text = |part: &Part| part.text.clone().filter(|_| part.kind == "text");
            parts.iter().map(text).collect::<Option<String>>().ok_or("content may only have parts of text".to_owned())
        }
    }
}

/// A prompt in any of the four forms.
fn prompts(value: &Value) -> Option<Vec<Prompt>> {
    let ids = |items: &[Value]| -> Option<Prompt> {
        let ids = items.iter().map(|item| u32::try_from(item.as_u64()?).ok());
        Some(Prompt::Ids(ids.collect::<Option<_>>()?))
    };
    match value {
        Value::String(text) => Some(vec![Prompt::Text(text.clone())]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => Some(vec![ids(items)?]),
        Value::Array(items) => {
            let one = |item: &Value| match item {
                Value::String(text) => Some(Prompt::Text(text.clone())),
                Value::Array(items) => ids(items),
                _ => None,
            };
            items.iter().map(one).collect()
        }
        _ => None,
    }
}

fn asked(body: Body, prompts: Vec<Prompt>, logprobs: bool, default_tokens: Option<usize>) -> Result<Asked, String> {
    for (without_effect, name) in [
        (body.stream != Some(true), "stream"),
        (body.echo != Some(true), "echo"),
        (body.best_of.is_none_or(|best| best <= 1), "best_of"),
        (body.top_logprobs.is_none_or(|top| top == 0), "top_logprobs"),
        (is_neutral(body.response_format.as_ref()), "response_format"),
        (is_neutral(body.logit_bias.as_ref()), "logit_bias"),
        (is_neutral(body.tools.as_ref()), "tools"),
        (body.tool_choice.as_ref().is_none_or(|choice| choice == "none" || choice.is_null()), "tool_choice"),
        (is_neutral(body.suffix.as_ref()), "suffix"),
    ] {
        if !without_effect {
            return Err(format!("{name} is not offered here"));
        }
    }
    let n = body.n.unwrap_or(1);
    if !(1..=128).contains(&n) {
        return Err(format!("n is {n}; it must be from 1 to 128"));
    }
    let seed = match body.seed {
        None => None,
        // A negative number stands for the bits of an unsigned one.
        Some(seed) => Some(
            i64::try_from(seed)
                .map(|seed| seed as u64)
                .or_else(|_| u64::try_from(seed))
                .map_err(|_| "seed must be a number of 64 bits".to_owned())?,
        ),
    };
    let asked_for = body.max_completion_tokens.or(body.max_tokens).or(default_tokens);
    let params = Params {
        max_tokens: asked_for.unwrap_or(usize::MAX),
        temperature: body.temperature.unwrap_or(1.0),
        // vLLM writes -1 for all.
        top_k: body.top_k.and_then(|k| usize::try_from(k).ok()).unwrap_or(0),
        top_p: body.top_p.unwrap_or(1.0),
        min_p: body.min_p.unwrap_or(0.0),
        repetition_penalty: body.repetition_penalty.unwrap_or(1.0),
        presence_penalty: body.presence_penalty.unwrap_or(0.0),
        frequency_penalty: body.frequency_penalty.unwrap_or(0.0),
        stop: match body.stop {
            None => Vec::new(),
            Some(OneOrMore::One(one)) => vec![one],
            Some(OneOrMore::More(more)) => more,
        },
        ignore_eos: body.ignore_eos.unwrap_or(false),
        logprobs,
    };
    match params.check().into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(Asked { prompts, n, seed, params, limited: asked_for.is_some(), model: body.model }),
    }
}

fn is_neutral(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => {
            map.is_empty() || (map.len() == 1 && map.get("type").is_some_and(|kind| kind == "text"))
        }
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

/// One answer with its place among the choices.
pub struct Choice {
    /// The place.
    pub index: usize,
    /// The answer.
    pub completion: Completion,
    /// The text of each token, where log-probabilities are given.
    pub tokens: Vec<String>,
}

/// What every reply says of itself.
pub struct About<'a> {
    /// The request's name.
    pub id: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// Seconds since 1970.
    pub created: u64,
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
}

/// The reply to a chat.
pub fn chat_reply(about: &About<'_>, choices: &[Choice]) -> Value {
    let choice = |choice: &Choice| {
        let content: Vec<Value> = choice
            .tokens
            .iter()
            .zip(&choice.completion.logprobs)
            .map(
                |(token, logp)| json!({"token": token, "logprob": logp, "bytes": token.as_bytes(), "top_logprobs": []}),
            )
            .collect();
        let logprobs = if content.is_empty() { Value::Null } else { json!({"content": content, "refusal": null}) };
        json!({
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.completion.text, "refusal": null},
            "logprobs": logprobs,
            "finish_reason": choice.completion.finish_reason.as_str(),
        })
    };
    reply("chat.completion", about, choices, choices.iter().map(choice).collect())
}

/// The reply to a text.
pub fn completions_reply(about: &About<'_>, choices: &[Choice]) -> Value {
    let choice = |choice: &Choice| {
        let logprobs = match choice.completion.logprobs.as_slice() {
            [] => Value::Null,
            logps => {
                json!({"tokens": choice.tokens, "token_logprobs": logps, "top_logprobs": null, "text_offset": offsets(&choice.tokens)})
            }
        };
        json!({
            "index": choice.index,
            "text": choice.completion.text,
            "logprobs": logprobs,
            "finish_reason": choice.completion.finish_reason.as_str(),
        })
    };
    reply("text_completion", about, choices, choices.iter().map(choice).collect())
}

fn offsets(tokens: &[String]) -> Vec<usize> {
    let ends = tokens.iter().scan(0, |at, token| {
        let start = *at;
        *at += token.chars().count();
        Some(start)
    });
    ends.collect()
}

fn reply(object: &str, about: &About<'_>, choices: &[Choice], shown: Vec<Value>) -> Value {
    let written: usize = choices.iter().map(|choice| choice.completion.n_tokens()).sum();
    json!({
        "id": about.id,
        "object": object,
        "created": about.created,
        "model": about.model,
        "choices": shown,
        "usage": {
            "prompt_tokens": about.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": about.prompt_tokens + written,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_chat(more: Value) -> Result<Asked, String> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        more.as_object().expect("a map").iter().for_each(|(name, value)| body[name] = value.clone());
        chat(body.to_string().as_bytes())
    }

    #[test]
    fn a_plain_chat_has_the_interfaces_defaults() {
        let asked = of_chat(json!({})).expect("a chat");
        assert_eq!(asked.prompts, [Prompt::Chat(vec![Message::new("user", "hi")])]);
        assert_eq!((asked.n, asked.seed, asked.limited, asked.model.as_deref()), (1, None, false, Some("m")));
        assert_eq!((asked.params.temperature, asked.params.top_p, asked.params.logprobs), (1.0, 1.0, false));
    }

    #[test]
    fn parameters_reach_the_engine() {
        let asked = of_chat(json!({
            "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1,
            "repetition_penalty": 1.2, "n": 2, "stop": "x", "seed": -1, "logprobs": true, "ignore_eos": true,
            "user": "me", "presence_penalty": 0.5, "frequency_penalty": -0.5, "stream": false, "response_format": {"type": "text"}
        }))
        .expect("a chat");
        let params = Params {
            max_tokens: 5,
            temperature: 0.5,
            top_k: 3,
            top_p: 0.9,
            min_p: 0.1,
            repetition_penalty: 1.2,
            presence_penalty: 0.5,
            frequency_penalty: -0.5,
            stop: vec!["x".into()],
            ignore_eos: true,
            logprobs: true,
        };
        assert_eq!((asked.params, asked.n, asked.seed, asked.limited), (params, 2, Some(u64::MAX), true));
        assert_eq!(of_chat(json!({"seed": u64::MAX})).expect("a chat").seed, Some(u64::MAX));
        let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]});
        assert_eq!(of_chat(parts).expect("parts").prompts, [Prompt::Chat(vec![Message::new("user", "ab")])]);
    }

    #[test]
    fn what_would_be_without_effect_is_refused() {
        for (field, value) in [
            ("stream", json!(true)),
            ("response_format", json!({"type": "json_object"})),
            ("tools", json!([{"type": "function"}])),
            ("logit_bias", json!({"5": 1})),
            ("top_logprobs", json!(3)),
        ] {
            assert_eq!(of_chat(json!({field: value})), Err(format!("{field} is not offered here")));
        }
        let said = |more: Value| of_chat(more).expect_err("refused");
        assert!(said(json!({"temprature": 1})).contains("unknown field `temprature`"));
        assert!(said(json!({"temperature": -1})).contains("temperature is -1"));
        assert!(said(json!({"n": 0})).contains("n is 0"));
        assert!(said(json!({"messages": []})).contains("messages is missing or empty"));
        assert!(said(json!({"prompt": "x"})).contains("belongs to /v1/completions"));
        assert!(
            said(json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})).contains("parts of text")
        );
    }

    #[test]
    fn a_text_may_come_in_four_forms() {
        let of =
            |prompt: Value| completions(json!({"prompt": prompt}).to_string().as_bytes()).map(|asked| asked.prompts);
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(of(json!("a")), Ok(vec![text("a")]));
        assert_eq!(of(json!(["a", "b"])), Ok(vec![text("a"), text("b")]));
        assert_eq!(of(json!([1, 2])), Ok(vec![Prompt::Ids(vec![1, 2])]));
        assert_eq!(of(json!([[1], [2]])), Ok(vec![Prompt::Ids(vec![1]), Prompt::Ids(vec![2])]));
        for none in [json!([]), json!(5), json!([1, "a"]), json!([-1])] {
            assert!(of(none.clone()).is_err(), "{none}");
        }
        let asked = completions(b"{\"prompt\": \"a\"}").expect("a text");
        assert_eq!((asked.params.max_tokens, asked.limited), (16, true));
    }
}
