//! `fuseline plan` and `fuseline check`: what would run, why and at what cost,
//! or only whether the file is right.

use std::fmt::Write;

use fuseline_contract::Usage;
use fuseline_engine::decide::{Decision, decide_with};
use fuseline_engine::explain::Explainer;
use fuseline_engine::history::{Forecast, History, forecast};
use fuseline_engine::plan::Node;
use fuseline_engine::problem::Problems;
use fuseline_engine::why::{Code, Reason};
use serde_json::{Value, json};

use crate::args::{Location, Pipeline, Wanted};
use crate::exit;
use crate::listing::span;
use crate::progress::dollars;
use crate::setting::Setting;
use crate::{replaced, why};

/// How many instances there are of each state, and what they cost.
#[derive(Default)]
struct Totals {
    hit: usize,
    run: usize,
    maybe: usize,
    blocked: usize,
    accept: usize,
    seconds: f64,
    gpu_hours: f64,
    rows: u64,
    usage: Usage,
    /// What will or may run and never ran.
    unknown: usize,
    saved_seconds: f64,
    saved_gpu_hours: f64,
    saved_usage: Usage,
}

/// Prints what would become of every instance.
pub fn plan(
    location: &Location,
    pipeline: &Pipeline,
    wanted: &Wanted,
    values: bool,
    as_json: bool,
) -> anyhow::Result<u8> {
    let setting = Setting::open(location, pipeline)?;
    let plan = &setting.plan;
    let choice = setting.choose(wanted)?;
    let decisions = decide_with(plan, &setting.store, &choice.overrides);
    setting.warn();
    let ahead = |index: &usize| matches!(decisions[*index], Decision::Run { .. } | Decision::Maybe { .. });
    let mut forecasts = match choice.wanted.iter().any(ahead) {
        true => forecast(plan, &History::of(&setting.store)?, &decisions),
        false => vec![None; plan.nodes.len()],
    };
    let explainer = Explainer::new(plan, &setting.store, &decisions, None);
    let mut text = String::new();
    let mut listed = Vec::new();
    let mut totals = Totals::default();
    let width = choice.wanted.iter().map(|index| plan.nodes[*index].id.to_string().chars().count()).max().unwrap_or(0);
    for &index in &choice.wanted {
        let node = &plan.nodes[index];
        let (state, why) = match &decisions[index] {
            Decision::Hit { .. } if choice.overrides.given.contains_key(&index) => ("hit", "taken as it is".to_owned()),
            Decision::Hit { here: true, .. } => ("hit", String::new()),
            Decision::Hit { here: false, .. } => ("hit (remote)", String::new()),
            Decision::Accept { record, reason, .. } => {
                let word = record.accepted.as_ref().map(|word| format!("{}; ", word.why)).unwrap_or_default();
                ("accept", format!("{word}instead of running: {reason}"))
            }
            Decision::Run { reason, .. } => ("run", why::full(&setting, &explainer, index, reason)?),
            Decision::Maybe { because } => ("maybe", format!("{} will run", plan.nodes[*because].id)),
            Decision::Blocked { error } => ("blocked", error.to_string()),
        };
        let forecast = forecasts[index].take().map(|forecast| match &decisions[index] {
            Decision::Run { reason, .. } if forecast.remembers => {
                Ok::<_, anyhow::Error>(match share(&setting, &explainer, index, reason)? {
                    Some(share) => forecast.of_share(share),
                    None => forecast,
                })
            }
            _ => Ok(forecast),
        });
        let forecast = forecast.transpose()?;
        let forecast = forecast.as_ref();
        totals.add(state, &decisions[index], forecast, node.resources.gpus);
        let stage = node.id.to_string();
        let cost = forecast.map(|forecast| format!("  [{}]", cost(forecast))).unwrap_or_default();
        writeln!(text, "{stage:width$}  {state:7}  {why}{cost}")?;
        if values {
            for (name, value) in node.resolved.params.as_object().into_iter().flatten() {
                writeln!(text, "{:width$}    {name}: {value}", "")?;
            }
            if node.entry.traits.uses_seed {
                writeln!(text, "{:width$}    seed: {}", "", node.seed)?;
            }
        }
        if as_json {
            listed.push(entry(node, &decisions[index], state, &why, forecast));
        }
    }
    if as_json {
        let all = json!({"stages": listed, "notes": plan.notes, "totals": totals.to_json()});
        exit::print(&serde_json::to_string_pretty(&all)?)?;
    } else {
        let trimmed: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let notes: String = plan.notes.iter().map(|note| format!("note: {note}\n")).collect();
        exit::print(&format!("{trimmed}{notes}{}", totals.text()))?;
    }
    Ok(if totals.hit < choice.wanted.len() { exit::WORK_FOUND } else { exit::DONE })
}

/// The share of the rows of an instance that remembers rows that it must
/// compute, where only its tables are others.
fn share(setting: &Setting, explainer: &Explainer<'_>, index: usize, reason: &Reason) -> anyhow::Result<Option<f64>> {
    if reason.changes.is_empty() || reason.changes.iter().any(|change| change.code != Code::Input) {
        return Ok(None);
    }
    let explanation = explainer.explain(index)?;
    let mut largest = None;
    for difference in &explanation.differences {
        for replaced in &difference.replaced {
            match replaced::share(&setting.store, replaced) {
                Some(share) => largest = Some(f64::max(largest.unwrap_or(0.0), share)),
                None => return Ok(None),
            }
        }
    }
    Ok(largest)
}

/// An instance for programs.
fn entry(node: &Node, decision: &Decision, state: &str, why: &str, forecast: Option<&Forecast>) -> Value {
    let (code, changes) = match decision {
        Decision::Run { reason, .. } | Decision::Accept { reason, .. } => (json!(reason.code), json!(reason.changes)),
        _ => (Value::Null, json!([])),
    };
    let key = match decision {
        Decision::Hit { key, .. } | Decision::Run { key, .. } | Decision::Accept { key, .. } => json!(key),
        Decision::Maybe { .. } | Decision::Blocked { .. } => Value::Null,
    };
    json!({
        "stage": node.id.to_string(), "state": state, "why": why, "code": code, "changes": changes, "key": key,
        "forecast": forecast, "operator": node.entry.name, "line": node.line,
        "params": node.resolved.params, "seed": node.seed,
    })
}

impl Totals {
    fn add(&mut self, state: &str, decision: &Decision, forecast: Option<&Forecast>, gpus: u32) {
        match decision {
            Decision::Hit { record, .. } | Decision::Accept { record, .. } => {
                let count = if state == "accept" { &mut self.accept } else { &mut self.hit };
                *count += 1;
                self.saved_seconds += record.made.seconds;
                self.saved_gpu_hours += record.made.seconds * f64::from(gpus) / 3600.0;
                self.saved_usage += record.made.usage.unwrap_or_default();
                return;
            }
            Decision::Blocked { .. } => {
                self.blocked += 1;
                return;
            }
            Decision::Run { .. } => self.run += 1,
            Decision::Maybe { .. } => self.maybe += 1,
        }
        match forecast {
            None => self.unknown += 1,
            Some(forecast) => {
                self.seconds += forecast.seconds;
                self.gpu_hours += forecast.gpu_hours;
                self.rows += forecast.rows_to_compute.unwrap_or(0);
                self.usage += forecast.usage.unwrap_or_default();
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let ahead = self.run + self.maybe;
        if ahead > self.unknown {
            let unknown = match self.unknown {
                0 => String::new(),
                n => format!(", not counting {n} that never ran"),
            };
            let mut parts = vec![seconds(self.seconds), format!("{} rows", self.rows)];
            parts.extend(amounts(self.gpu_hours, self.usage));
            text += &format!("forecast: {}{unknown}\n", parts.join(", "));
        }
        if self.hit + self.accept > 0 && ahead > 0 {
            let mut parts = vec![seconds(self.saved_seconds)];
            parts.extend(amounts(self.saved_gpu_hours, self.saved_usage));
            text += &format!("saved: {} of earlier work\n", parts.join(", "));
        }
        text += &format!("{} cached, {} to run, {} that may run", self.hit, self.run, self.maybe);
        for (count, what) in [(self.accept, "accepted"), (self.blocked, "blocked")] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text + "\n"
    }

    fn to_json(&self) -> Value {
        json!({
            "hit": self.hit, "run": self.run, "maybe": self.maybe, "blocked": self.blocked, "accept": self.accept,
            "forecast": {
                "seconds": self.seconds, "gpu_hours": self.gpu_hours, "rows": self.rows, "usage": self.usage,
                "stages_that_never_ran": self.unknown,
            },
            "saved": {"seconds": self.saved_seconds, "gpu_hours": self.saved_gpu_hours, "usage": self.saved_usage},
        })
    }
}

/// What an instance will probably cost, for people.
fn cost(forecast: &Forecast) -> String {
    let mut parts = vec![format!("about {}", seconds(forecast.seconds))];
    parts.extend(forecast.rows.map(|rows| match forecast.rows_to_compute {
        Some(fresh) if fresh < rows => format!("{fresh} of {rows} rows to compute"),
        _ => format!("{rows} rows"),
    }));
    parts.extend(amounts(forecast.gpu_hours, forecast.usage.unwrap_or_default()));
    parts.join(", ")
}

/// What is counted besides time and rows, as far as there is any.
fn amounts(gpu_hours: f64, usage: Usage) -> Vec<String> {
    let mut parts = Vec::new();
    if gpu_hours > 0.0 {
        parts.push(format!("{gpu_hours:.2} GPU hours"));
    }
    for (tokens, what) in [(usage.tokens_in, "in"), (usage.tokens_out, "out")] {
        if tokens > 0 {
            parts.push(format!("{tokens} tokens {what}"));
        }
    }
    parts.extend(usage.price_usd.map(dollars));
    parts
}

fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { span(seconds.round() as u64) }
}

/// Says whether the file is right.
pub fn check(pipeline: &Pipeline, as_json: bool) -> anyhow::Result<u8> {
    match Setting::check_only(pipeline) {
        Ok(plan) if as_json => exit::print(&json!({"problems": [], "stages": plan.nodes.len()}).to_string()),
        Ok(plan) => exit::print(&format!("{}: {} stages, no problems", pipeline.path.display(), plan.nodes.len())),
        Err(error) => match error.downcast_ref::<Problems>() {
            Some(problems) if as_json => {
                exit::print(&serde_json::to_string_pretty(&json!({"problems": problems.to_json()}))?)?;
                Ok(fuseline_contract::Cause::Input.exit_code())
            }
            _ => Err(error),
        },
    }
}
