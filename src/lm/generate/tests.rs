//! Generation by law: a sample is the same alone and among others, in any order, within any limits, by any number of
//! threads; prompts are shared; stops, lengths and log-probabilities are what they say.

use std::collections::BTreeMap;

use fuseline_torch::tch::{Device, Kind, Tensor};
use serde_json::json;

use super::*;
use crate::arch::Architecture;
use crate::cpu::Model;
use crate::decoder::{Decoder, Mask};
use crate::error::Error;
use crate::families::{FAMILIES, NewModel, new_config};
use crate::tokenizer::{SpecialTokens, Tokenizer, TokenizerKind, TrainTokenizer, train};

/// A model of random weights, large enough that its choices differ from prompt to prompt.
pub(crate) fn tiny(family: &str, vocab_size: i64) -> Decoder {
    let mut config = new_config(&NewModel {
        family: family.into(),
        vocab_size,
        hidden_size: 32,
        intermediate_size: if family == "mpt" { 128 } else { 48 },
        layers: 2,
        heads: 4,
        kv_heads: if family == "mpt" { 4 } else { 2 },
        max_positions: 96,
        tied_embeddings: false,
        bos_token_id: None,
        eos_token_ids: vec![1],
        pad_token_id: None,
    })
    .unwrap();
    config["initializer_range"] = json!(0.3);
    fuseline_torch::set_threads(1);
    Decoder::init(Architecture::from_config(&config).unwrap(), 11, Device::Cpu, Kind::Float)
}

/// Bytes as tokens: `<pad>` 0, `<eos>` 1, then the 256 bytes.
fn tokenizer() -> Tokenizer {
    let params = TrainTokenizer {
        kind: TokenizerKind::ByteLevelBpe,
        vocab_size: 259,
        special: SpecialTokens {
            pad: Some("<pad>".into()),
            eos: "<eos>".into(),
            bos: None,
            unk: None,
            additional: vec![],
        },
        min_frequency: 2,
        chat_template: None,
    };
    let dir = tempfile::tempdir().unwrap();
    train(&params, &["ab"]).unwrap().save(dir.path()).unwrap();
    Tokenizer::load(dir.path()).unwrap()
}

fn requests(n: usize, samples: u32) -> Vec<Request> {
    (0..n)
        .map(|i| Request {
            prompt: (0..1 + i % 7).map(|k| (2 + (i * 31 + k * 17) % 250) as u32).collect(),
            samples: (0..samples).map(|index| Sample { index, seed: row_seed(5, &i.to_le_bytes(), index) }).collect(),
        })
        .collect()
}

type Results = BTreeMap<(Vec<u32>, u32), Completion>;

fn run(decoder: &Decoder, requests: &[Request], params: &Params, rows: usize) -> (Results, Usage) {
    let mut model = Model::of(decoder, 1).unwrap();
    run_within(&mut model, requests, params, &Limits { rows, ..Limits::default() })
}

fn run_within(model: &mut Model, requests: &[Request], params: &Params, limits: &Limits) -> (Results, Usage) {
    let mut out = BTreeMap::new();
    let usage = generate_with(model, &tokenizer(), requests, params, limits, &mut |mut done| {
        let key = (requests[done.request].prompt.clone(), done.sample);
        done.request = 0;
        assert!(out.insert(key, done).is_none());
        Control::Continue
    })
    .unwrap();
    (out, usage)
}

fn sampling() -> Params {
    Params { max_tokens: 20, temperature: 0.8, top_p: 0.95, logprobs: true, ..Params::default() }
}

/// ASK-10 and ASK-15: results that move with batch size, order, threads, memory.
#[test]
fn ask_10_15_a_sample_is_the_same_bit_for_bit_in_any_batch() {
    for family in FAMILIES.iter().map(|family| family.model_type) {
        let decoder = tiny(family, 258);
        let mut all = requests(20, 4);
        // Some with a longer prompt than others, one of more than a page.
        all[3].prompt = (0..70).map(|k| 2 + k * 7 % 250).collect();
        all[11].prompt = (0..33).map(|k| 3 + k * 11 % 250).collect();
        let params = Params { repetition_penalty: 1.05, ..sampling() };
        let (expected, usage) = run(&decoder, &all, &params, 1);
        assert_eq!(expected.len(), 80);
        let computed = usage.prompt_tokens;
        for (turn, rows) in [2, 3, 5, 8, 13, 31, 32, 64].into_iter().enumerate() {
            let mut model = Model::of(&decoder, 1 + turn % 3).unwrap();
            // Another order every time: stride by a number prime to twenty.
            let order = (0..20).map(|place| (place * [1, 3, 7, 9, 11, 13, 17, 19][turn] + turn) % 20);
            let mixed: Vec<Request> = order.map(|place| all[place].clone()).collect();
            let pages = [7, 9, 30, 1000][turn % 4];
            let cache_bytes = pages * model.layout().page_bytes();
            let limits = Limits { rows, chunk: [256, 1, 17][turn % 3], cache_bytes };
            let (found, usage) = run_within(&mut model, &mixed, &params, &limits);
            assert!(found == expected, "{family}: {limits:?}");
            assert_eq!(usage.prompt_tokens, computed, "every prompt is computed once");
        }
        for request in all.iter().step_by(6) {
            let (alone, _) = run(&decoder, std::slice::from_ref(request), &params, 64);
            for (key, completion) in alone {
                assert!(expected[&key] == completion, "{family}: {key:?} alone");
            }
        }
    }
}

/// ASK-9: a long prompt waits for memory, or is refused before anything runs; it never ends a run halfway.
#[test]
fn ask_9_memory_has_a_limit_and_who_would_pass_it_waits() {
    let decoder = tiny("llama", 258);
    let mut model = Model::of(&decoder, 1).unwrap();
    let all = requests(6, 5);
    let expected = run(&decoder, &all, &sampling(), 64).0;
    let page = model.layout().page_bytes();
    // One page for a prompt and one for a sample: one sample after the other.
    let (found, usage) =
        run_within(&mut model, &all, &sampling(), &Limits { cache_bytes: 2 * page, ..Limits::default() });
    assert!(found == expected);
    assert!(usage.steps > 15 * 30, "thirty samples of up to twenty tokens, each alone: {} steps", usage.steps);
    let long = Request { prompt: vec![5; 70], samples: all[0].samples.clone() };
    // 90 tokens: two pages of the prompt, and the sample's own second one.
    let limits = Limits { cache_bytes: 2 * page, ..Limits::default() };
    let mut never = |_| unreachable!();
    let requests = [all[0].clone(), long.clone()];
    let error = generate_with(&mut model, &tokenizer(), &requests, &sampling(), &limits, &mut never).unwrap_err();
    assert!(matches!(&error, Error::CacheTooSmall { what, tokens: 90, .. } if what == "prompt 1"), "{error}");
    assert!(limits.check(&model, &long.prompt, &sampling()).is_err());
    let enough = Limits { cache_bytes: 3 * page, ..Limits::default() };
    assert!(enough.check(&model, &long.prompt, &sampling()).is_ok());
    assert_eq!(run_within(&mut model, &[all[0].clone(), long], &sampling(), &enough).0.len(), 10);
}

#[test]
fn a_long_prompt_does_not_stall_running_samples() {
    let decoder = tiny("qwen3", 258);
    let mut model = Model::of(&decoder, 1).unwrap();
    let short = Request { prompt: vec![9], samples: requests(1, 1)[0].samples.clone() };
    let long = Request { prompt: vec![8; 75], samples: requests(1, 1)[0].samples.clone() };
    let params = Params { max_tokens: 20, ignore_eos: true, ..Params::default() };
    let limits = Limits { chunk: 5, ..Limits::default() };
    let (_, usage) = run_within(&mut model, &[short, long], &params, &limits);
    // 76 tokens of prompts in pieces of five, and 20 tokens each, the short one's beside them.
    assert_eq!(usage.steps, 16 + 19);
}

#[test]
fn a_sample_that_outgrows_its_angles_is_as_if_alone() {
    let mut config = tiny("phi3", 258).arch.config;
    config["original_max_position_embeddings"] = json!(16);
    config["rope_scaling"] = json!({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 4, 8]});
    let decoder = Decoder::init(Architecture::from_config(&config).unwrap(), 11, Device::Cpu, Kind::Float);
    let params = Params { max_tokens: 20, temperature: 1.0, logprobs: true, ignore_eos: true, ..Params::default() };
    // More samples than slots: later ones begin where an earlier one was.
    let (results, _) = run(&decoder, &requests(3, 6), &params, 2);
    for ((prompt, _), done) in &results {
        let mut ids: Vec<i64> = prompt.iter().map(|id| i64::from(*id)).collect();
        for (chosen, logprob) in done.ids.iter().zip(&done.logprobs) {
            let t = ids.len() as i64;
            let positions = Tensor::arange(t, (Kind::Int64, Device::Cpu)).unsqueeze(0);
            let hidden = decoder.hidden(&Tensor::from_slice(&ids).unsqueeze(0), &positions, &Mask::Causal);
            let logps = decoder.logits(&hidden).log_softmax(-1, None);
            let expected = logps.double_value(&[0, t - 1, i64::from(*chosen)]);
            assert!((f64::from(*logprob) - expected).abs() < 1e-4, "{t} tokens: {logprob}, not {expected}");
            ids.push(i64::from(*chosen));
        }
        assert!(ids.len() > 20, "the border at 16 tokens is crossed");
    }
}

#[test]
fn requests_that_come_while_others_run_are_answered_as_if_alone() {
    for family in ["llama", "gemma3_text"] {
        let decoder = tiny(family, 258);
        let all = requests(12, 3);
        // Each has parameters of its own.
        let params =
            |index: usize| Params { max_tokens: 5 + index, temperature: 0.5 + index as f64 / 10.0, ..sampling() };
        let (mut came, mut asked, mut waited) = (0, 0, 0);
        let mut next = |idle: bool| {
            asked += 1;
            // Most come late, some when nothing is left to do.
            if came == all.len() || (!idle && asked % 5 != 0) {
                return None;
            }
            waited += u32::from(idle);
            came += 1;
            Some(Asked { request: all[came - 1].clone(), params: params(came - 1) })
        };
        let mut done = Vec::new();
        let mut on_done = |completion| {
            done.push(completion);
            Control::Continue
        };
        let limits = Limits { rows: 8, ..Limits::default() };
        let mut model = Model::of(&decoder, 1).unwrap();
        let usage = generate_queue(&mut model, &tokenizer(), &mut next, &limits, &mut on_done).unwrap();
        assert!(done.len() == 36 && waited < 6, "most came while others ran: {waited}");
        assert_eq!(usage.completion_tokens, done.iter().map(|done| done.n_tokens() as u64).sum::<u64>());
        for completion in done {
            let request = &all[completion.request];
            let (alone, _) = run(&decoder, std::slice::from_ref(request), &params(completion.request), 8);
            let expected = &alone[&(request.prompt.clone(), completion.sample)];
            assert_eq!(&Completion { request: 0, ..completion }, expected, "{family}");
        }
    }
}

#[test]
fn an_idle_queue_is_waited_for_and_its_end_is_the_end() {
    let decoder = tiny("llama", 258);
    let all = requests(4, 1);
    let mut came = 0;
    // One after the other: the next only when nothing runs.
    let mut next = |idle: bool| {
        let request = all.get(came).filter(|_| idle)?;
        came += 1;
        Some(Asked { request: request.clone(), params: sampling() })
    };
    let mut done = Vec::new();
    let mut on_done = |completion: Completion| {
        done.push(completion.request);
        Control::Continue
    };
    let mut model = Model::of(&decoder, 1).unwrap();
    generate_queue(&mut model, &tokenizer(), &mut next, &Limits::default(), &mut on_done).unwrap();
    assert_eq!(done, [0, 1, 2, 3]);
}

#[test]
fn what_fits_the_context_of_the_limits_is_taken() {
    let decoder = tiny("llama", 258);
    let model = Model::of(&decoder, 1).unwrap();
    let page = model.layout().page_bytes();
    for pages in [2, 3, 9] {
        let limits = Limits { cache_bytes: page * pages, ..Limits::default() };
        let context = limits.context(&model);
        assert_eq!(context, (64 * (pages as usize - 1)).min(96));
        for prompt in [1, 63, 64, 65, 95] {
            let params = Params { max_tokens: context.saturating_sub(prompt).max(1), ..sampling() };
            let checked = limits.check(&model, &vec![2; prompt], &params);
            assert!(prompt >= context || checked.is_ok(), "{prompt} tokens in {pages} pages: {checked:?}");
        }
    }
}

#[test]
fn samples_differ_and_are_not_all_alike() {
    let (results, _) = run(&tiny("llama", 258), &requests(4, 4), &sampling(), 8);
    let texts: std::collections::BTreeSet<_> = results.values().map(|done| done.ids.clone()).collect();
    assert_eq!(texts.len(), 16);
    let reasons = |reason| results.values().filter(|done| done.finish_reason == reason).count();
    assert!(reasons(FinishReason::Length) > 0);
    for done in results.values() {
        match done.finish_reason {
            FinishReason::Length => assert_eq!(done.n_tokens(), 20),
            FinishReason::Stop => assert_eq!(done.ids.last(), Some(&1)),
        }
    }
}

#[test]
fn greedy_equals_the_model_run_token_by_token() {
    let decoder = tiny("gemma2", 258);
    let params = Params { max_tokens: 8, temperature: 0.0, logprobs: true, ignore_eos: true, ..Params::default() };
    let (results, usage) = run(&decoder, &requests(5, 2), &params, 4);
    for ((prompt, _), done) in &results {
        let mut ids: Vec<i64> = prompt.iter().map(|id| i64::from(*id)).collect();
        for (chosen, logprob) in done.ids.iter().zip(&done.logprobs) {
            let t = ids.len() as i64;
            let positions = Tensor::arange(t, (Kind::Int64, Device::Cpu)).unsqueeze(0);
            let hidden = decoder.hidden(&Tensor::from_slice(&ids).unsqueeze(0), &positions, &Mask::Causal);
            let logps = decoder.logits(&hidden).log_softmax(-1, None).select(1, t - 1).squeeze_dim(0);
            assert_eq!(logps.argmax(-1, false).int64_value(&[]), i64::from(*chosen));
            assert!((logps.double_value(&[i64::from(*chosen)]) - f64::from(*logprob)).abs() < 1e-4);
            ids.push(i64::from(*chosen));
        }
    }
    let prompts: usize = requests(5, 2).iter().map(|request| request.prompt.len()).sum();
    assert_eq!(usage.prompt_tokens, prompts as u64, "each prompt is computed once");
    assert_eq!(usage.completion_tokens, 80);
}

#[test]
fn stop_texts_cross_tokens() {
    let decoder = tiny("llama", 258);
    let open = Params { max_tokens: 30, ignore_eos: true, temperature: 1.0, ..Params::default() };
    let (free, _) = run(&decoder, &requests(6, 2), &open, 8);
    let mut stopped = 0;
    for (key, done) in &free {
        // Three characters from the middle of what is said anyway, made of several tokens.
        let letters: Vec<char> = done.text.chars().collect();
        let stop: String = letters[letters.len() / 2..letters.len() / 2 + 3].iter().collect();
        if stop.contains('\u{fffd}') {
            continue;
        }
        let params = Params { stop: vec!["never said".into(), stop.clone()], ..open.clone() };
        let done_now = &run(&decoder, &requests(6, 2), &params, 8).0[key];
        let cut = done.text.find(&stop).unwrap();
        assert_eq!(done_now.text, done.text[..cut]);
        assert_eq!(done_now.finish_reason, FinishReason::Stop);
        assert_eq!(done_now.ids, done.ids[..done_now.ids.len()]);
        stopped += 1;
    }
    assert!(stopped > 0);
}

#[test]
fn rows_end_at_the_models_last_position() {
    let decoder = tiny("qwen2", 258);
    let params = Params { max_tokens: 500, ignore_eos: true, ..Params::default() };
    let (results, _) = run(&decoder, &requests(5, 1), &params, 2);
    for ((prompt, _), done) in results {
        assert_eq!((prompt.len() + done.n_tokens(), done.finish_reason), (96, FinishReason::Length));
    }
}

#[test]
fn the_receiver_may_stop() {
    let mut seen = 0;
    let mut on_done = |_| {
        seen += 1;
        if seen == 3 { Control::Stop } else { Control::Continue }
    };
    generate(&tiny("llama", 258), &tokenizer(), &requests(9, 2), &sampling(), &Limits::default(), &mut on_done)
        .unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn what_cannot_run_is_refused_first() {
    let decoder = tiny("llama", 258);
    let refused = |prompt: Vec<u32>, params: Params| {
        let request = Request { prompt, samples: vec![Sample { index: 0, seed: 1 }] };
        let none = &mut |_| unreachable!();
        generate(&decoder, &tokenizer(), &[request], &params, &Limits::default(), none).unwrap_err()
    };
    assert!(matches!(refused(vec![], sampling()), Error::EmptyPrompt));
    assert!(matches!(refused(vec![2; 96], sampling()), Error::TooLong { tokens: 96, limit: 96, .. }));
    assert!(matches!(refused(vec![258], sampling()), Error::TokenOutOfRange { id: 258, .. }));
    let error = refused(vec![2], Params { top_p: 0.0, ..sampling() }).to_string();
    assert!(error.contains("top_p"), "{error}");
}

#[test]
fn seeds_of_rows_are_fixed() {
    let seeds = [row_seed(7, b"prompt", 0), row_seed(7, b"prompt", 1), row_seed(8, b"prompt", 0), row_seed(7, b"", 0)];
    assert_eq!(seeds, [8035096911248310411, 2295296767834670675, 826161261268148763, 7518965997709827338]);
}
