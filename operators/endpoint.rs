//! `endpoint`: a model that answers elsewhere.

use std::path::PathBuf;

use fuseline_contract::{
    Execute, ExternalFile, Kind, Operator, Output, Ports, Problems, Run, Secret, StageError, Traits,
};
use fuseline_remote::wire::{Api, LimitName};
use fuseline_remote::{Prices, endpoint::check_url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::endpoint::{FILE, Identity};

/// Parameters of `endpoint`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address up to where `/chat/completions` begins, such as `http://localhost:8000/v1`. It is in the key: with `model` it says who answers.
    pub url: String,
    /// The model's name at the server. Name a dated snapshot where there is one.
    pub model: String,
    /// Which interface is asked.
    #[serde(default)]
    pub api: Api,
    /// How the server calls the limit of an answer's tokens.
    #[serde(default)]
    pub max_tokens_name: LimitName,
    /// Whether the seed of each sample is sent; switch it off where the server refuses it.
    #[serde(default = "yes")]
    pub send_seed: bool,
    /// A file with the JSON Schema that answers must follow, where the server offers that (`response_format`).
    #[serde(default)]
    pub json_schema: Option<PathBuf>,
    /// Where the endpoint is reached instead, through a tunnel or a proxy. It is not in the key.
    #[serde(default)]
    pub via: Option<String>,
    /// The key, sent as a bearer token.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// Questions under way at once.
    #[serde(default = "sixteen")]
    pub max_concurrency: usize,
    /// Requests that begin in a minute, where the account is limited.
    #[serde(default)]
    pub requests_per_minute: Option<f64>,
    /// Seconds from the beginning of a request to the end of its answer.
    #[serde(default = "ten_minutes")]
    pub timeout_seconds: f64,
    /// Seconds for the connection alone.
    #[serde(default = "ten")]
    pub connect_timeout_seconds: f64,
    /// How often one question is tried.
    #[serde(default = "six")]
    pub max_attempts: u32,
    /// US dollars per million tokens, for accounting and for `max_usd`.
    #[serde(default)]
    pub prices: Option<Prices>,
    /// US dollars that one stage may cost here, all its attempts together. What a question may cost at worst is set aside before it is sent, so it is never passed.
    #[serde(default)]
    pub max_usd: Option<f64>,
}

fn yes() -> bool {
    true
}

fn sixteen() -> usize {
    16
}

fn ten_minutes() -> f64 {
    600.0
}

fn ten() -> f64 {
    10.0
}

fn six() -> u32 {
    6
}

/// See [`Operator::MANUAL`].
pub struct Endpoint;

impl Operator for Endpoint {
    const NAME: &'static str = "endpoint";
    const VERSION: u32 = 1;
    const TRAITS: Traits = Traits::PURE;
    const EXECUTION: &'static [&'static str] = &[
        "via",
        "max_concurrency",
        "requests_per_minute",
        "timeout_seconds",
        "connect_timeout_seconds",
        "max_attempts",
        "prices",
        "max_usd",
    ];
    const SECRET: &'static [&'static str] = &["api_key"];
    const MANUAL: &'static str = "\
Names a model that answers elsewhere: an OpenAI-compatible endpoint.

vLLM, SGLang, llama.cpp, `transformers serve`, `fuseline serve` and the vendors
speak it. It stands wherever a model is asked and its weights are not needed,
such as in `sample`; elsewhere the plan refuses it. This stage sends nothing.

Nobody can digest what a server runs, so `url` and `model` stand for it in keys:
another server at the same address under the same name is not noticed. `via`
leads to the same server by another way and is not in the key; neither are the
limits, the prices and the key, and they hold as they stand now, also where the
stage's result is an earlier one.

Requests that fail for a reason of the moment (status 429 and 5xx, a lost or late
connection, an answer that is none) are tried again after growing random pauses,
or when the server says (Retry-After). A question that the server refuses for
its own sake, or that fails again and again while others are answered, is a
failed row of the stage that asks. Without an answer to any question the stage
fails. Answers are remembered at once, so none is paid for twice.";
    const EXAMPLE: &'static str = "op: endpoint\nwith: {url: \"https://api.example.com/v1\", model: large-2026-05-01, \
        api_key: !secret EXAMPLE_API_KEY, prices: {input: 2.5, output: 10}, max_usd: 20}\n";
    type Config = Config;

    fn ports(_: &Config) -> Ports {
        Ports { inputs: vec![], outputs: vec![Output::new("model", Kind::Endpoint, "the endpoint")] }
    }

    fn check(config: &Config, problems: &mut Problems) {
        for (name, url) in [("url", Some(&config.url)), ("via", config.via.as_ref())] {
            if let Some(Err(error)) = url.map(|url| check_url(url)) {
                problems.add(name, error.to_string().replace("\nhint: ", "; "));
            }
        }
        problems.require(!config.model.trim().is_empty(), "model", || "is empty; expected a model's name".into());
        problems.require(config.max_concurrency >= 1, "max_concurrency", || "must be at least 1".into());
        problems.require(config.max_attempts >= 1, "max_attempts", || "must be at least 1".into());
        let mut above_zero = |name: &str, value: Option<f64>| {
            let sound = value.is_none_or(|value| value.is_finite() && value > 0.0 && value <= 1e9);
            problems.require(sound, name, || "must be above 0 and at most 1e9".into());
        };
        above_zero("requests_per_minute", config.requests_per_minute);
        above_zero("timeout_seconds", Some(config.timeout_seconds));
        above_zero("connect_timeout_seconds", Some(config.connect_timeout_seconds));
        above_zero("max_usd", config.max_usd);
        if let Some(prices) = config.prices {
            for (name, price) in [("prices.input", prices.input), ("prices.output", prices.output)] {
                problems.require(price.is_finite() && price >= 0.0, name, || "must be 0 or more".into());
            }
        }
        problems.require(config.max_usd.is_none() || config.prices.is_some(), "max_usd", || {
            "needs prices: say `prices: {input: 2.5, output: 10}` in US dollars per million tokens".into()
        });
    }

    fn files(config: &Config) -> Vec<ExternalFile> {
        config.json_schema.iter().map(|path| ExternalFile::new("json_schema", path)).collect()
    }
}

impl Execute for Endpoint {
    fn run(config: &Config, run: &dyn Run) -> Result<(), StageError> {
        let json_schema = config.json_schema.is_some().then(|| read_schema(run)).transpose()?;
        let identity = Identity {
            url: config.url.clone(),
            model: config.model.clone(),
            api: config.api,
            max_tokens_name: config.max_tokens_name,
            send_seed: config.send_seed,
            json_schema,
        };
        let path = run.model_folder("model")?.join(FILE);
        let text = serde_json::to_string_pretty(&identity).expect("an identity is plain data");
        std::fs::write(&path, text).map_err(|error| StageError::io("write", &path, &error))
    }
}

fn read_schema(run: &dyn Run) -> Result<serde_json::Value, StageError> {
    let path = run.file("json_schema")?;
    let text = std::fs::read_to_string(&path).map_err(|error| StageError::io("read", &path, &error))?;
    let schema: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| StageError::input(format!("{} is not JSON: {error}", path.display())))?;
    match schema.is_object() {
        true => Ok(schema),
        false => Err(StageError::input(format!("{} is no JSON Schema: expected an object", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(edit: serde_json::Value) -> Vec<String> {
        let mut config = serde_json::json!({"url": "http://h/v1", "model": "m"});
        edit.as_object().expect("a map").iter().for_each(|(name, value)| config[name] = value.clone());
        let config = serde_json::from_value(config).expect("parameters");
        let mut problems = Problems::default();
        Endpoint::check(&config, &mut problems);
        problems.0.into_iter().map(|problem| format!("{}: {}", problem.path.join("."), problem.message)).collect()
    }

    #[test]
    fn what_cannot_be_is_told_with_what_to_write() {
        assert_eq!(problems(serde_json::json!({})), [""; 0]);
        let said = problems(serde_json::json!({
            "url": "localhost:1", "via": "http://h/v1/completions", "model": " ", "max_concurrency": 0,
            "max_attempts": 0, "requests_per_minute": 0, "timeout_seconds": -1, "max_usd": 1
        }));
        assert_eq!(said.len(), 8, "{said:?}");
        assert!(said[0].starts_with("url: \"localhost:1\" is no address of an endpoint: it must begin"), "{}", said[0]);
        assert!(said[7].starts_with("max_usd: needs prices"), "{}", said[7]);
        let said = problems(serde_json::json!({"prices": {"input": -1, "output": 1}, "max_usd": 1}));
        assert_eq!(said, ["prices.input: must be 0 or more"]);
    }
}
