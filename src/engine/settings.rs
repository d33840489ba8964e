//! What a stage says about itself besides parameters and inputs: whether it is
//! there at all, seed, resources, tags, whether it always runs, whether its rows
//! are remembered. Must not know operators.

use serde_json::Value as Json;

use crate::plan::{Resources, Retry};
use crate::problem::{At, Findings, under};
use crate::spec::{StageSpec, known_fields};
use crate::vars::{Scope, substitute};
use crate::yaml::describe;

/// A pipeline's seed where none is given.
pub(crate) const DEFAULT_SEED: u64 = 0;

/// A stage's own settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Own {
    /// Whether it is there at all.
    pub(crate) when: bool,
    /// Its seed, or else its file's.
    pub(crate) seed: u64,
    /// What it may use.
    pub(crate) resources: Resources,
    /// When a failed attempt is tried again.
    pub(crate) retry: Retry,
    /// Tags.
    pub(crate) tags: Vec<String>,
    /// Whether it always runs.
    pub(crate) uncacheable: bool,
    /// Whether its rows are remembered one by one.
    pub(crate) memo: bool,
}

impl Own {
    /// What a stage is that says nothing of itself.
    pub(crate) fn plain(seed: u64) -> Self {
        let (resources, retry) = (Resources::default(), Retry::default());
        Self { when: true, seed, resources, retry, tags: Vec::new(), uncacheable: false, memo: true }
    }
}

impl Default for Own {
    fn default() -> Self {
        Self::plain(DEFAULT_SEED)
    }
}

/// Reads the seed of a file whose top has the path `base`.
pub(crate) fn file_seed(
    seed: Option<&Json>,
    scope: &dyn Scope,
    base: &[String],
    findings: &mut Findings,
) -> Option<u64> {
    let path = under(base, "seed");
    let seed = substitute(seed?, scope, &path, findings);
    read_seed(&seed, &path, findings)
}

/// Reads the pipeline's salt.
pub(crate) fn pipeline_salt(salt: Option<&Json>, findings: &mut Findings) -> Option<String> {
    match salt? {
        Json::Null => None,
        Json::String(salt) if !salt.is_empty() => Some(salt.clone()),
        other => {
            let message = format!("expected a salt, a text, found {}", describe(other));
            findings.add(At::value(&["salt".to_owned()]), message, Some("quote it: `salt: \"2\"`".into()));
            None
        }
    }
}

fn read_seed(seed: &Json, path: &[String], findings: &mut Findings) -> Option<u64> {
    let found = seed.as_u64();
    if found.is_none() && !seed.is_null() {
        findings.add(At::value(path), format!("expected a seed, an integer from 0, found {}", describe(seed)), None);
    }
    found
}

/// Reads a stage's settings under the values of a scope.
pub(crate) fn own(spec: &StageSpec, seed: u64, scope: &dyn Scope, findings: &mut Findings) -> Own {
    let field = |name: &str, raw: &Option<Json>, findings: &mut Findings| {
        let path = under(&spec.path, name);
        let value = raw.as_ref().map(|raw| substitute(raw, scope, &path, findings)).filter(|value| !value.is_null());
        value.map(|value| (value, path))
    };
    let mut own = Own::plain(seed);
    if let Some((value, path)) = field("seed", &spec.seed, findings) {
        own.seed = read_seed(&value, &path, findings).unwrap_or(seed);
    }
    if let Some((value, path)) = field("when", &spec.when, findings) {
        own.when = truth(&value, &path, findings).unwrap_or(true);
    }
    if let Some((value, path)) = field("resources", &spec.resources, findings) {
        own.resources = resources(&value, &path, findings);
    }
    if let Some((value, path)) = field("retry", &spec.retry, findings) {
        own.retry = retry(&value, &path, findings);
    }
    if let Some((value, path)) = field("tags", &spec.tags, findings) {
        match &value {
            Json::Array(tags) if tags.iter().all(|tag| tag.as_str().is_some_and(is_tag)) => {
                own.tags = tags.iter().filter_map(Json::as_str).map(str::to_owned).collect();
            }
            other => {
                let message = format!("expected a list of tags without spaces, found {other}");
                findings.add(At::value(&path), message, Some("such as `tags: [slow]`".into()));
            }
        }
    }
    if let Some((value, path)) = field("uncacheable", &spec.uncacheable, findings) {
        own.uncacheable = truth(&value, &path, findings).unwrap_or(false);
    }
    if let Some((value, path)) = field("memo", &spec.memo, findings) {
        match &value {
            Json::Bool(memo) => own.memo = *memo,
            Json::String(word) if word == "on" || word == "off" => own.memo = word == "on",
            other => findings.add(At::value(&path), format!("expected on or off, found {}", describe(other)), None),
        }
    }
    own
}

fn truth(value: &Json, path: &[String], findings: &mut Findings) -> Option<bool> {
    if value.as_bool().is_none() {
        findings.add(At::value(path), format!("expected true or false, found {}", describe(value)), None);
    }
    value.as_bool()
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '+')
}

fn resources(value: &Json, path: &[String], findings: &mut Findings) -> Resources {
    let mut resources = Resources::default();
    let Json::Object(map) = value else {
        let message = format!("expected a map of cpus, gpus and mem, found {}", describe(value));
        findings.add(At::value(path), message, None);
        return resources;
    };
    known_fields(map, path, &["cpus", "gpus", "mem"], "of `resources`", findings);
    let mut count = |name: &str, least: u32| {
        let value = map.get(name)?;
        let found = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= least);
        if found.is_none() {
            let message = format!("expected an integer from {least}, found {}", describe(value));
            findings.add(At::value(&under(path, name)), message, None);
        }
        found
    };
    resources.cpus = count("cpus", 1).unwrap_or(resources.cpus);
    resources.gpus = count("gpus", 0).unwrap_or(resources.gpus);
    if let Some(mem) = map.get("mem") {
        resources.mem_bytes = match mem {
            Json::String(text) => bytes(text),
            other => other.as_u64().filter(|n| *n > 0),
        };
        if resources.mem_bytes.is_none() {
            let message = format!("expected a size such as 8GiB, or bytes, found {}", describe(mem));
            findings.add(At::value(&under(path, "mem")), message, None);
        }
    }
    resources
}

fn retry(value: &Json, path: &[String], findings: &mut Findings) -> Retry {
    let mut retry = Retry::default();
    let Json::Object(map) = value else {
        let help = Some("such as `retry: {times: 3, backoff: 10s}`".into());
        findings.add(At::value(path), format!("expected a map of times and backoff, found {}", describe(value)), help);
        return retry;
    };
    known_fields(map, path, &["times", "backoff"], "of `retry`", findings);
    if let Some(times) = map.get("times") {
        match times.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(times) => retry.times = times,
            None => {
                let message = format!("expected an integer from 0, found {}", describe(times));
                findings.add(At::value(&under(path, "times")), message, None);
            }
        }
    }
    if let Some(backoff) = map.get("backoff") {
        let found = backoff.as_str().map_or_else(|| backoff.as_f64(), seconds);
        match found.filter(|seconds| *seconds >= 0.0) {
            Some(seconds) => retry.backoff_seconds = seconds,
            None => {
                let message = format!("expected a time such as 10s, or seconds, found {}", describe(backoff));
                findings.add(At::value(&under(path, "backoff")), message, None);
            }
        }
    }
    retry
}

/// A time such as `90s`, `1.5 min` or `2h` in seconds.
fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// A size such as `8GiB`, `1.5 GB` or `512MiB` in bytes.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "B" => 1u64,
        "KB" | "kB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let size = number * factor as f64;
    (size >= 1.0 && size < u64::MAX as f64).then_some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(seconds("90s"), Some(90.0));
        assert_eq!(seconds("1.5 min"), Some(90.0));
        assert_eq!([seconds("5"), seconds("s"), seconds("5 weeks"), seconds("-1s")], [None; 4]);
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("8GiB"), Some(8 << 30));
        assert_eq!(bytes("1.5 KB"), Some(1500));
        assert_eq!([bytes("8"), bytes("8G"), bytes("GiB"), bytes("0B"), bytes("-1B")], [None; 5]);
    }
}
