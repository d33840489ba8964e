//! Shows a run as it goes on: a line a running stage with a terminal, plain
//! lines without one, JSON lines for programs. Consumes events, decides nothing.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fuseline_contract::{Event, Outcome, StageId};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where events go.
pub struct Display {
    mode: Mode,
}

enum Mode {
    Terminal(Mutex<Bars>),
    Plain,
    Json,
}

struct Bars {
    multi: MultiProgress,
    running: HashMap<StageId, Running>,
}

struct Running {
    bar: ProgressBar,
    /// What was done at the first report, and when that was: remembered rows
    /// are there at once and say nothing about the rate.
    first: Option<(u64, Instant)>,
}

impl Display {
    /// For people: bars where stderr is a terminal, else plain lines on stderr.
    pub fn for_people() -> Self {
        let mode = if std::io::stderr().is_terminal() {
            Mode::Terminal(Mutex::new(Bars { multi: MultiProgress::new(), running: HashMap::new() }))
        } else {
            Mode::Plain
        };
        Self { mode }
    }

    /// For programs: every event as a line of JSON on stdout.
    pub fn json() -> Self {
        Self { mode: Mode::Json }
    }

    /// Shows an event.
    pub fn show(&self, event: &Event) {
        match &self.mode {
            Mode::Json => {
                // A closed pipe must not end the run.
                if let Ok(line) = serde_json::to_string(event) {
                    let _ = writeln!(std::io::stdout(), "{line}");
                }
            }
            Mode::Plain => {
                if let Some(line) = line(event) {
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
            Mode::Terminal(bars) => {
                let mut bars = bars.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                bars.show(event);
            }
        }
    }
}

impl Bars {
    fn show(&mut self, event: &Event) {
        match event {
            Event::StageStarted { stage, .. } => {
                let style = ProgressStyle::with_template("{spinner} {prefix}  {elapsed}  {msg}")
                    .expect("the template is constant and valid");
                let bar = self.multi.add(ProgressBar::new_spinner().with_style(style));
                bar.set_prefix(stage.to_string());
                bar.enable_steady_tick(Duration::from_millis(120));
                self.running.insert(stage.clone(), Running { bar, first: None });
            }
            Event::Progress { stage, progress } => {
                if let Some(Running { bar, first }) = self.running.get_mut(stage) {
                    let (before, since) = *first.get_or_insert_with(|| (progress.done, Instant::now()));
                    let newly = progress.done.saturating_sub(before);
                    let rate = newly as f64 / since.elapsed().as_secs_f64().max(0.001);
                    let left = match progress.total.checked_sub(progress.done) {
                        Some(left) if rate > 0.0 && left > 0 => format!("  {:.0} s left", left as f64 / rate),
                        _ => String::new(),
                    };
                    let of = if progress.total > 0 { format!("/{}", progress.total) } else { String::new() };
                    bar.set_message(format!(
                        "{}{of} {}  {rate:.0}/s{left}  {}",
                        progress.done, progress.unit, progress.figure
                    ));
                }
            }
            Event::StageEnded { stage, .. } => {
                if let Some(Running { bar, .. }) = self.running.remove(stage) {
                    bar.finish_and_clear();
                }
                if let Some(line) = line(event) {
                    let _ = self.multi.println(line);
                }
            }
            other => {
                if let Some(line) = line(other) {
                    let _ = self.multi.println(line);
                }
            }
        }
    }
}

/// An event as a line, if it deserves one without a terminal.
fn line(event: &Event) -> Option<String> {
    match event {
        Event::RunStarted { run, pipeline, instances } => Some(format!("run {run}: {pipeline}, {instances} stages")),
        Event::StageStarted { stage, reason, .. } => Some(format!("  start  {stage}: {reason}")),
        Event::Progress { .. } => None,
        Event::Note { stage, text } => Some(format!("  note   {stage}: {text}")),
        Event::Warning { text } => Some(format!("warning: {text}")),
        Event::StageEnded { stage, outcome, seconds, rows, memo, usage } => match outcome {
            Outcome::Hit | Outcome::Skipped => None,
            Outcome::Ran => {
                let rows = rows.map(|rows| format!(", {rows} rows")).unwrap_or_default();
                let reused = memo.map(|memo| memo.reused).filter(|reused| *reused > 0);
                let reused = reused.map(|reused| format!(", {reused} of them remembered")).unwrap_or_default();
                let price = usage.and_then(|usage| usage.price_usd).map(|price| format!(", {}", dollars(price)));
                Some(format!("  done   {stage}: {seconds:.1} s{rows}{reused}{}", price.unwrap_or_default()))
            }
            Outcome::Failed(error) => {
                let hint = error.hint.as_ref().map(|hint| format!("\n         help: {hint}")).unwrap_or_default();
                let lines: String = error.log.iter().map(|line| format!("\n           {line}")).collect();
                let log = if lines.is_empty() { lines } else { format!("\n         its log ends:{lines}") };
                Some(format!("  failed {stage}: {error}{hint}{log}"))
            }
        },
        Event::RunEnded { run, ran, hits, failed, skipped, seconds } => {
            let mut parts = vec![format!("{ran} ran"), format!("{hits} cached")];
            parts.extend((*failed > 0).then(|| format!("{failed} failed")));
            parts.extend((*skipped > 0).then(|| format!("{skipped} skipped")));
            Some(format!("run {run}: {} in {seconds:.1} s", parts.join(", ")))
        }
    }
}

/// An amount of money: to the cent, or to two digits where it is less than one.
pub fn dollars(price: f64) -> String {
    if price >= 0.01 || price <= 0.0 {
        return format!("${price:.2}");
    }
    let digits = (1.0 - price.log10().floor()) as usize;
    format!("${price:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::dollars;

    #[test]
    fn small_prices_keep_two_digits() {
        assert_eq!(dollars(12.345), "$12.35");
        assert_eq!(dollars(0.0), "$0.00");
        assert_eq!(dollars(0.01), "$0.01");
        assert_eq!(dollars(0.000_123), "$0.00012");
    }
}
