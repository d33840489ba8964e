//! Supervised fine-tuning: the negative log-likelihood of given answers. It must not know models or batches.

use super::{Continuation, Example, Logps, Moment, Objective, Reduction, RowLosses, settings};

/// A text of which some tokens are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct SftRow {
    /// The whole text: prompt, answer, end token; or several turns.
    pub tokens: Vec<u32>,
    /// Which tokens carry loss, as long as `tokens`; the very first never does, as nothing predicts it.
    pub trained: Vec<bool>,
    /// Factor on the row's loss; 1 is neutral.
    pub weight: f64,
}

impl SftRow {
    /// A row that trains all of an answer and nothing of its prompt.
    pub fn answer(prompt: &[u32], answer: &[u32], weight: f64) -> Self {
        let trained = (0..prompt.len() + answer.len()).map(|place| place >= prompt.len()).collect();
        Self { tokens: [prompt, answer].concat(), trained, weight }
    }
}

impl From<SftRow> for Example {
    fn from(row: SftRow) -> Self {
        let start = row.trained.iter().position(|trained| *trained).unwrap_or(row.tokens.len()).min(row.tokens.len());
        Example {
            prompt: row.tokens[..start].to_vec(),
            continuations: vec![Continuation {
                tokens: row.tokens[start..].to_vec(),
                trained: row.trained.get(start..).unwrap_or_default().to_vec(),
                reference: None,
            }],
            weight: row.weight,
        }
    }
}

/// Supervised fine-tuning: `L = −Σ_rows c(row)·weight(row)·s(row)`, c by the [`Reduction`]; with the default one and
/// weights of 1, the mean over the update's trained tokens.
///
/// Source: FuseChat-3.0 (arXiv 2503.04222), whose trainer is `hiyouga/LLaMA-Factory`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sft {
    /// Over what is averaged.
    pub reduction: Reduction,
}

impl Objective for Sft {
    type Row = SftRow;
    const ROLES: &'static [&'static str] = &["answer"];

    fn needs_reference(&self) -> bool {
        false
    }

    fn check(&self) -> Vec<String> {
        settings::check_sft(self)
    }

    fn shares(&self, lengths: &[usize]) -> Vec<f64> {
        let rows = lengths.len();
        let total = |lengths: &[usize]| lengths.iter().sum::<usize>() as f64;
        match self.reduction {
            Reduction::GlobalTokenMean => vec![1.0 / total(lengths); rows],
            Reduction::MicrobatchTokenMean { rows: group } => {
                let groups = rows.div_ceil(group) as f64;
                lengths.chunks(group).flat_map(|own| vec![1.0 / (groups * total(own)); own.len()]).collect()
            }
            Reduction::PerSequenceMean => lengths.iter().map(|length| 1.0 / (rows * length) as f64).collect(),
            Reduction::PerSequenceSumMean => vec![1.0 / rows as f64; rows],
        }
    }

    fn losses(&self, roles: &[Logps], _: Moment) -> RowLosses {
        RowLosses { loss: -&roles[0].policy, diagnostics: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{START, cases, floats};
    use super::*;
    use fuseline_torch::tch::{Kind, Tensor};

    fn loss(reduction: Reduction, sums: &[f64], lengths: &[usize]) -> f64 {
        let sft = Sft { reduction };
        let lengths_r = Tensor::from_slice(&lengths.iter().map(|n| *n as f64).collect::<Vec<_>>());
        let logps = Logps { policy: Tensor::from_slice(sums), reference: None, lengths: lengths_r };
        let losses = sft.losses(&[logps], START).loss;
        (losses * Tensor::from_slice(&sft.shares(lengths))).sum(Kind::Double).double_value(&[])
    }

    #[test]
    fn golden_reductions() {
        let case = &cases("base_losses", "sft_reductions")[0];
        let rows: Vec<Vec<f64>> = case["input"]["target_token_logps"].as_array().unwrap().iter().map(floats).collect();
        let masks: Vec<Vec<f64>> = case["input"]["response_mask"].as_array().unwrap().iter().map(floats).collect();
        let masked = |row: &Vec<f64>, mask: &Vec<f64>| row.iter().zip(mask).map(|(logp, m)| logp * m).sum::<f64>();
        let sums: Vec<f64> = rows.iter().zip(&masks).map(|(row, mask)| masked(row, mask)).collect();
        let lengths: Vec<usize> = masks.iter().map(|mask| mask.iter().sum::<f64>() as usize).collect();
        for (reduction, name) in [
            (Reduction::GlobalTokenMean, "global_token_mean"),
            (Reduction::MicrobatchTokenMean { rows: 2 }, "microbatch_token_mean"),
            (Reduction::PerSequenceMean, "per_sequence_mean"),
            (Reduction::PerSequenceSumMean, "per_sequence_sum_mean"),
        ] {
            let expected = case["expected"][name].as_f64().unwrap();
            assert!((loss(reduction, &sums, &lengths) - expected).abs() < 1e-12, "{name}");
        }
        let sums: Vec<f64> = rows.iter().map(|row| row.iter().sum()).collect();
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let expected = case["expected"]["all_tokens_global_mean"].as_f64().unwrap();
        assert!((loss(Reduction::GlobalTokenMean, &sums, &lengths) - expected).abs() < 1e-12);
    }

    #[test]
    fn rows_split_before_the_first_trained_token() {
        let row = SftRow { tokens: vec![5, 6, 7, 8], trained: vec![false, true, false, true], weight: 0.5 };
        let example = Example::from(row);
        assert_eq!(example.prompt, [5]);
        assert_eq!(example.continuations[0].tokens, [6, 7, 8]);
        assert_eq!(example.continuations[0].trained, [true, false, true]);
        assert_eq!(SftRow::answer(&[1, 2], &[3], 1.0).trained, [false, false, true]);
        let nothing = Example::from(SftRow { tokens: vec![5, 6], trained: vec![false; 2], weight: 1.0 });
        assert_eq!((nothing.prompt.len(), nothing.continuations[0].tokens.len()), (2, 0));
    }
}
