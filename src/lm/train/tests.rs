//! The trainer as a whole: against torch and transformers, and by laws.

use serde_json::Value;

use super::*;
use crate::arch::Architecture;
use crate::generate::tests::tiny;
use crate::objectives::{
    Alpha, AlphaShape, Answer, Dpo, PairRow, Reduction, Reference, Sft, SftRow, Wrpo, WrpoLoss, WrpoRow,
};
use fuseline_torch::tch::{Device, Kind, Tensor};

pub(super) const DPO: Dpo =
    Dpo::Sigmoid { beta: 0.1, length_normalized: false, label_smoothing: 0.0, reference_free: false };

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn answer(row: &Value, reference: &Value, role: &str) -> Answer {
    let tokens = tokens(&row[role]);
    let reference = Reference { logp_sum: reference[role].as_f64().unwrap(), n_tokens: tokens.len() };
    Answer { tokens, reference: Some(reference) }
}

pub(super) fn wrpo(end: f64, beta: f64) -> Wrpo {
    let alpha = Alpha { start: 0.0, end, shape: AlphaShape::Linear };
    Wrpo { alpha, loss: WrpoLoss::Weighted { beta, label_smoothing: 0.0 } }
}

/// Ten updates of each objective on a model of each family against `tests/golden/make_training.py`.
#[test]
fn ten_updates_equal_torch_and_transformers() {
    fuseline_torch::set_threads(1);
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");
    let text = std::fs::read_to_string(format!("{golden}/training.json")).unwrap();
    let data: Value = serde_json::from_str(&text).unwrap();
    let mut settings = data["settings"].clone();
    settings["steps"] = data["steps"].clone();
    // Small enough that the rows of an update are computed in several parts.
    settings["micro_batch_tokens"] = 40.into();
    let config: Config = serde_json::from_value(settings).unwrap();
    let number = |name: &str| data[name].as_f64().unwrap();
    for run in data["runs"].as_array().unwrap() {
        let (model, objective) = (run["model"].as_str().unwrap(), run["objective"].as_str().unwrap());
        let folder = format!("{golden}/logits/{model}");
        let decoder = Decoder::load(folder.as_ref(), Device::Cpu, Kind::Float).unwrap();
        let rows = data["rows"].as_array().unwrap().iter().zip(run["reference"].as_array().unwrap());
        let mut report = |_: &StepReport| Control::Continue;
        let summary = match objective {
            "sft" => {
                let sft = |row: &Value| SftRow::answer(&tokens(&row["prompt"]), &tokens(&row["source_chosen"]), 1.0);
                train(&decoder, rows.map(|(row, _)| sft(row)).collect(), &Sft::default(), &config, 1, None, &mut report)
            }
            "dpo" => {
                let pair = |(row, reference): (&Value, &Value)| PairRow {
                    prompt: tokens(&row["prompt"]),
                    chosen: answer(row, reference, "source_chosen"),
                    rejected: answer(row, reference, "rejected"),
                    weight: 1.0,
                };
                train(&decoder, rows.map(pair).collect(), &DPO, &config, 1, None, &mut report)
            }
            _ => {
                let triple = |(row, reference): (&Value, &Value)| WrpoRow {
                    prompt: tokens(&row["prompt"]),
                    source_chosen: answer(row, reference, "source_chosen"),
                    target_chosen: answer(row, reference, "target_chosen"),
                    rejected: answer(row, reference, "rejected"),
                    weight: 1.0,
                };
                let wrpo = wrpo(number("alpha_end"), number("beta"));
                train(&decoder, rows.map(triple).collect(), &wrpo, &config, 1, None, &mut report)
            }
        }
        .unwrap();
        for (name, tolerance) in [("loss", 1e-4), ("grad_norm", 1e-3), ("learning_rate", 1e-9)] {
            let found: Vec<f64> = summary.trace.iter().filter(|row| row.name == name).map(|row| row.value).collect();
            let expected: Vec<f64> = run[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                // Float32 on both sides; the norm of a gradient magnifies its rounding.
                assert!(
                    (found - expected).abs() <= tolerance * expected.abs(),
                    "{model} {objective}: {name} {found} is not {expected}"
                );
            }
        }
    }
}

fn text(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|place| (seed * 31 + place * (7 + seed)) % 58 + 2).collect()
}

pub(super) fn sft_rows() -> Vec<SftRow> {
    (0..7u32).map(|row| SftRow::answer(&text(row, 3 + row as usize), &text(row + 50, 9 - row as usize), 1.0)).collect()
}

fn scored(tokens: Vec<u32>) -> Answer {
    let reference = Some(Reference { logp_sum: -4.0 * tokens.len() as f64, n_tokens: tokens.len() });
    Answer { tokens, reference }
}

pub(super) fn pair_rows() -> Vec<PairRow> {
    let pair = |row: u32| PairRow {
        prompt: text(row, 4),
        chosen: scored(text(row + 20, 3 + row as usize)),
        rejected: scored(text(row + 40, 8 - row as usize)),
        weight: 1.0 + f64::from(row) / 4.0,
    };
    (0..6).map(pair).collect()
}

pub(super) fn wrpo_rows() -> Vec<WrpoRow> {
    let triple = |(row, pair): (u32, PairRow)| WrpoRow {
        prompt: pair.prompt,
        source_chosen: scored(text(row + 70, 5)),
        target_chosen: pair.chosen,
        rejected: pair.rejected,
        weight: pair.weight,
    };
    (0..).zip(pair_rows()).map(triple).collect()
}

pub(super) fn quick(steps: u64) -> Config {
    Config { steps: Some(steps), batch_size: 16, warmup_ratio: 0.0, ..Config::new(3e-3) }
}

fn run<O: Objective>(decoder: &Decoder, rows: Vec<O::Row>, objective: &O, config: &Config) -> Summary {
    train(decoder, rows, objective, config, 5, None, &mut |_| Control::Continue).unwrap()
}

fn losses(summary: &Summary) -> Vec<f64> {
    summary.trace.iter().filter(|row| row.name == "loss").map(|row| row.value).collect()
}

fn last(summary: &Summary, name: &str) -> f64 {
    summary.trace.iter().rfind(|row| row.name == name).unwrap().value
}

#[test]
fn every_objective_learns_a_batch_by_heart() {
    let falls = |name: &str, summary: Summary, to: f64| {
        let losses = losses(&summary);
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < to * first, "{name}: {first} to {last}");
        assert!(summary.dropped.is_empty());
    };
    let model = || tiny("llama", 60);
    falls("sft", run(&model(), sft_rows(), &Sft::default(), &quick(60)), 0.2);
    let summary = run(&model(), pair_rows(), &DPO, &quick(40));
    assert_eq!(last(&summary, "rewards/accuracies"), 1.0);
    falls("dpo", summary, 0.5);
    let normalized = Dpo::Sigmoid { beta: 2.0, length_normalized: true, label_smoothing: 0.0, reference_free: false };
    falls("length-normalised dpo", run(&model(), pair_rows(), &normalized, &quick(40)), 0.5);
    falls("simpo", run(&model(), pair_rows(), &Dpo::SimPo { beta: 2.0, gamma_beta_ratio: 0.3 }, &quick(40)), 0.5);
    let ipo = Dpo::Ipo { tau: 0.1, length_normalized: true };
    falls("ipo", run(&model(), pair_rows(), &ipo, &quick(40)), 0.5);
    let summary = run(&model(), wrpo_rows(), &wrpo(0.5, 0.1), &quick(40));
    assert!((last(&summary, "cur_alpha") - 0.5 * 39.0 / 40.0).abs() < 1e-12);
    falls("wrpo", summary, 0.5);
}

/// A model in float64, in which rounding cannot hide a dependence.
fn wide(family: &str) -> Decoder {
    let arch: Architecture = tiny(family, 60).arch;
    Decoder::init(arch, 11, Device::Cpu, Kind::Double)
}

pub(super) fn weights(decoder: &Decoder) -> Tensor {
    let flat: Vec<Tensor> = decoder.parameters().iter().map(|(_, tensor)| tensor.detach().reshape([-1])).collect();
    Tensor::cat(&flat, 0)
}

#[test]
fn the_split_into_micro_batches_does_not_matter() {
    fn check<O: Objective>(rows: impl Fn() -> Vec<O::Row>, objective: &O) {
        let result = |micro_batch_tokens| {
            let decoder = wide("llama");
            let config = Config { micro_batch_tokens, batch_size: 4, ..quick(4) };
            let losses = losses(&run(&decoder, rows(), objective, &config));
            (losses, weights(&decoder))
        };
        let (whole, whole_weights) = result(100_000);
        for tokens in [1, 60] {
            let (split, split_weights) = result(tokens);
            for (split, whole) in split.iter().zip(&whole) {
                assert!((split - whole).abs() < 1e-6 * whole, "{split} {whole}");
            }
            let difference = (split_weights - &whole_weights).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{difference}");
        }
    }
    for reduction in
        [Reduction::GlobalTokenMean, Reduction::MicrobatchTokenMean { rows: 3 }, Reduction::PerSequenceMean]
    {
        check(sft_rows, &Sft { reduction });
    }
    check(pair_rows, &DPO);
    check(wrpo_rows, &wrpo(0.5, 0.1));
}

#[test]
fn the_loss_of_an_update_is_the_mean_over_its_trained_tokens() {
    let decoder = tiny("qwen2", 60);
    let summary = run(&decoder, sft_rows(), &Sft::default(), &quick(1));
    let items: Vec<_> = sft_rows()
        .into_iter()
        .map(|row| {
            let start = row.trained.iter().position(|trained| *trained).unwrap();
            let (prompt, completion) = row.tokens.split_at(start);
            crate::score::ScoreItem { prompt: prompt.to_vec(), completion: completion.to_vec() }
        })
        .collect();
    let scores =
        crate::score::score(&mut crate::cpu::Model::of(&tiny("qwen2", 60), 1).unwrap(), &items, 0, &Default::default())
            .unwrap();
    let expected = crate::score::Likelihood::of(&scores).mean();
    assert!((losses(&summary)[0] - expected).abs() < 1e-5);
}

#[test]
fn a_weight_of_zero_switches_a_row_off() {
    let result = |rows: Vec<PairRow>| {
        let summary = run(&wide("llama"), rows, &DPO, &quick(1));
        [last(&summary, "loss"), last(&summary, "grad_norm")]
    };
    let one = pair_rows()[..1].to_vec();
    let mut two = pair_rows()[..2].to_vec();
    two[1].weight = 0.0;
    for (one, two) in result(one).into_iter().zip(result(two)) {
        // The mean over two rows, of which one counts nothing.
        assert!((one / 2.0 - two).abs() < 1e-6 * one, "{one} {two}");
    }
}

#[test]
fn seeds_decide_everything() {
    let result = |seed| {
        let decoder = tiny("gemma2", 60);
        let config = Config { batch_size: 2, ..quick(6) };
        let summary =
            train(&decoder, sft_rows(), &Sft::default(), &config, seed, None, &mut |_| Control::Continue).unwrap();
        (summary, weights(&decoder))
    };
    let ((one, one_weights), (again, again_weights), (other, _)) = (result(3), result(3), result(4));
    assert_eq!(one, again);
    assert!(one_weights.equal(&again_weights));
    assert_ne!(losses(&one), losses(&other));
}

#[test]
fn an_epoch_sees_every_row() {
    let decoder = tiny("llama", 60);
    let config = Config { steps: None, epochs: 2.0, batch_size: 3, ..quick(1) };
    let mut seen = Vec::new();
    let rows = sft_rows();
    let summary = train(&decoder, rows, &Sft::default(), &config, 5, None, &mut |report| {
        seen.push((report.step, report.total));
        Control::Continue
    })
    .unwrap();
    // 7 rows in threes make 3 updates, twice.
    assert_eq!(seen, (1..=6).map(|step| (step, 6)).collect::<Vec<_>>());
    assert_eq!((summary.rows, summary.steps, summary.stopped), (7, 6, false));
}

#[test]
fn it_stops_when_told() {
    let decoder = tiny("llama", 60);
    let stop = &mut |report: &StepReport| if report.step == 2 { Control::Stop } else { Control::Continue };
    let summary = train(&decoder, sft_rows(), &Sft::default(), &quick(9), 5, None, stop).unwrap();
    assert_eq!((summary.steps, summary.stopped), (2, true));
    assert!(decoder.parameters().iter().all(|(_, tensor)| !tensor.requires_grad()));
}

#[test]
fn what_cannot_be_trained_is_said() {
    let decoder = tiny("llama", 60);
    let refusal = |rows: Vec<SftRow>, config: Config| {
        train(&decoder, rows, &Sft::default(), &config, 5, None, &mut |_| Control::Continue).unwrap_err().to_string()
    };
    assert_eq!(refusal(Vec::new(), quick(1)), "there is nothing to train on: there are no rows");
    let short = Config { max_length: 2, ..quick(1) };
    let message = refusal(sft_rows(), short);
    assert!(
        message.contains("all 7 rows are left out; the first, row 0: 12 tokens where 2 are the limit"),
        "{message}"
    );
    let wrong = Config { learning_rate: -1.0, batch_size: 0, ..quick(1) };
    let message = refusal(sft_rows(), wrong);
    assert_eq!(message, "learning_rate is -1; expected a number above 0\nbatch_size is 0; expected at least 1");
    let message = refusal(sft_rows(), Config { learning_rate: 1e30, ..quick(20) });
    assert!(message.contains("at step 2; lower learning_rate, which is 1000"), "{message}");
}

#[test]
fn unknown_settings_are_refused() {
    let config = serde_json::json!({"learning_rate": 1e-3, "lerning_rate": 2});
    assert!(serde_json::from_value::<Config>(config).unwrap_err().to_string().contains("lerning_rate"));
    let config: Config = serde_json::from_value(serde_json::json!({"learning_rate": 1e-3})).unwrap();
    assert_eq!(config, Config::new(1e-3));
    assert_eq!(config.check(), Vec::<String>::new());
}
