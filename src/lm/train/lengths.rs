//! How rows longer than the limit are cut: pure arithmetic on lengths. It must not know tokens' meaning, models or
//! objectives.
//!
//! Sources: `truncate_dpo` and `packed SFT` of `huggingface/trl` 0.9, `infer_seqlen` of `hiyouga/LLaMA-Factory` 0.9.1.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to a row that is longer than the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Truncate {
    /// Each answer is cut at its end to what fits behind the prompt; a prompt that leaves no room drops the row.
    #[default]
    Tail,
    /// The row is dropped.
    Drop,
    /// As `keep_end` of `huggingface/trl`: the prompt keeps its last `max_prompt_length` tokens; if that is not enough,
    /// every answer is cut to `max_length - max_prompt_length`.
    TrlKeepEnd,
    /// As LLaMA-Factory cuts a prompt and an answer: the longer one is cut at its end, both in proportion if both are
    /// long. For rows with one answer.
    LlamaFactory,
}

/// Limits of a row's length in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Prompt and one answer together.
    pub max_length: usize,
    /// What `trl_keep_end` leaves of a prompt; below `max_length`.
    pub max_prompt_length: usize,
    /// What happens beyond.
    pub truncate: Truncate,
}

/// What is kept of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of the prompt.
    pub prompt: Range<usize>,
    /// The first so many tokens of each answer.
    pub answers: Vec<usize>,
}

impl Limits {
    /// Says what is kept of a row with these lengths; nothing where the row is to be dropped.
    pub fn fit(&self, prompt: usize, answers: &[usize]) -> Option<Kept> {
        let longest = answers.iter().copied().max().unwrap_or(0);
        if prompt + longest <= self.max_length {
            return Some(Kept { prompt: 0..prompt, answers: answers.to_vec() });
        }
        match self.truncate {
            Truncate::Drop => None,
            Truncate::Tail => {
                let room = self.max_length.checked_sub(prompt).filter(|room| *room > 0)?;
                Some(Kept { prompt: 0..prompt, answers: cut(answers, room) })
            }
            Truncate::TrlKeepEnd => {
                let kept = prompt.min(self.max_prompt_length);
                let room = match kept + longest > self.max_length {
                    true => self.max_length.saturating_sub(self.max_prompt_length),
                    false => longest,
                };
                Some(Kept { prompt: prompt - kept..prompt, answers: cut(answers, room) })
            }
            Truncate::LlamaFactory => {
                let (kept_prompt, kept_answer) = share(prompt, longest, self.max_length);
                Some(Kept { prompt: 0..kept_prompt, answers: cut(answers, kept_answer) })
            }
        }
    }
}

fn cut(answers: &[usize], room: usize) -> Vec<usize> {
    answers.iter().map(|answer| *answer.min(&room)).collect()
}

/// How many tokens of a prompt and of an answer are kept under a limit; the comparisons are strict.
fn share(prompt: usize, answer: usize, limit: usize) -> (usize, usize) {
    let most = if answer * 2 < limit {
        limit
    } else if prompt * 2 < limit {
        limit - prompt
    } else {
        limit * answer / (prompt + answer)
    };
    let answer = answer.min(most);
    (prompt.min(limit - answer), answer)
}

/// Joins texts, each followed by `separator`, and cuts the stream into chunks of `length` tokens; returns the chunks
/// and the tail that does not fill one.
///
/// Source: packed fine-tuning of `huggingface/trl` 0.9, as the first stage of `SLIT-AI/WRPO` uses it: every token of a
/// chunk is trained, and attention crosses texts.
pub fn pack_constant_length(texts: &[Vec<u32>], separator: u32, length: usize) -> (Vec<Vec<u32>>, Vec<u32>) {
    let stream: Vec<u32> = texts.iter().flat_map(|text| text.iter().copied().chain([separator])).collect();
    let chunks = stream.chunks_exact(length.max(1));
    let tail = chunks.remainder().to_vec();
    (chunks.map(<[u32]>::to_vec).collect(), tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::tests::cases;
    use serde_json::Value;

    fn size(value: &Value) -> usize {
        value.as_u64().unwrap() as usize
    }

    fn sizes(value: &Value) -> Vec<usize> {
        value.as_array().unwrap().iter().map(size).collect()
    }

    #[test]
    fn golden_keep_end() {
        for case in cases("lengths", "trl_") {
            let (input, expected) = (&case["input"], &case["expected"]);
            let limits = Limits {
                max_length: size(&input["max_length"]),
                max_prompt_length: size(&input["max_prompt_length"]),
                truncate: Truncate::TrlKeepEnd,
            };
            let prompt = size(&input["prompt_len"]);
            let kept = limits.fit(prompt, &sizes(&input["response_lens"])).unwrap();
            assert_eq!(kept.prompt, prompt - size(&expected["prompt_len"])..prompt);
            assert_eq!(kept.answers, sizes(&expected["response_lens"]));
        }
    }

    #[test]
    fn golden_sft_cutoff() {
        for case in cases("lengths", "sft_cutoff_") {
            let (input, expected) = (&case["input"], &case["expected"]);
            let limits = Limits {
                max_length: size(&input["cutoff_len"]),
                max_prompt_length: 0,
                truncate: Truncate::LlamaFactory,
            };
            let kept = limits.fit(size(&input["source_len"]), &[size(&input["target_len"])]).unwrap();
            assert_eq!(kept.prompt, 0..size(&expected["source_len"]));
            assert_eq!(kept.answers, [size(&expected["target_len"])]);
        }
    }

    #[test]
    fn golden_packing() {
        let case = &cases("lengths", "packing_constant_length")[0];
        let tokens = |value: &Value| sizes(value).into_iter().map(|id| id as u32).collect::<Vec<_>>();
        let texts: Vec<Vec<u32>> = case["input"]["docs"].as_array().unwrap().iter().map(tokens).collect();
        let (chunks, tail) = pack_constant_length(
            &texts,
            size(&case["input"]["append_token"]) as u32,
            size(&case["input"]["seq_length"]),
        );
        let expected: Vec<Vec<u32>> = case["expected"]["chunks"].as_array().unwrap().iter().map(tokens).collect();
        assert_eq!(chunks, expected);
        assert_eq!(
            vec![tail],
            case["expected"]["dropped_tail"].as_array().unwrap().iter().map(tokens).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_tail_is_cut_and_a_prompt_without_room_drops_the_row() {
        let limits = |truncate| Limits { max_length: 10, max_prompt_length: 6, truncate };
        let kept = limits(Truncate::Tail).fit(7, &[2, 5]).unwrap();
        assert_eq!(kept, Kept { prompt: 0..7, answers: vec![2, 3] });
        assert_eq!(limits(Truncate::Tail).fit(10, &[1]), None);
        assert_eq!(limits(Truncate::Drop).fit(7, &[4]), None);
        assert_eq!(limits(Truncate::Drop).fit(7, &[3]).unwrap().answers, [3]);
    }
}
