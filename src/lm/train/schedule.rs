//! How many updates a training has and the learning rate of each. It must not know losses, models or data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The course of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine, down to 0.
    #[default]
    Cosine,
    /// A straight line, down to 0.
    Linear,
    /// The peak throughout.
    Constant,
}

/// Returns the factor on the peak learning rate at update `update` (from 0) of `total`.
///
/// **Formula**, W = ceil(warmup_ratio·T): k/W for k < W, so that update 0 runs at 0; then, with p = (k−W)/(T−W),
/// (1 + cos πp)/2, or 1 − p, or 1. **Source**: `huggingface/transformers` `src/transformers/optimization.py`.
pub fn rate_factor(schedule: Schedule, warmup_ratio: f64, update: u64, total: u64) -> f64 {
    let warmup = warmup_updates(warmup_ratio, total);
    if update < warmup {
        return update as f64 / warmup as f64;
    }
    let part = (update - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    match schedule {
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * part).cos()),
        Schedule::Linear => 1.0 - part,
        Schedule::Constant => 1.0,
    }
}

fn warmup_updates(warmup_ratio: f64, total: u64) -> u64 {
    (warmup_ratio * total as f64).ceil() as u64
}

/// What happens to the rows at the end of an epoch that do not fill an update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LastUpdate {
    /// They make a smaller update, in which each counts for more.
    #[default]
    Keep,
    /// They are left out of this epoch, as older trainers do; unless there is no other update.
    Drop,
}

/// Returns how many updates an epoch has, when the data come in `batches` of which `per_update` make an update.
pub fn updates_per_epoch(batches: usize, per_update: usize, last: LastUpdate) -> usize {
    match last {
        LastUpdate::Keep => batches.div_ceil(per_update),
        LastUpdate::Drop => batches / per_update,
    }
    .max(1)
}

/// Returns the updates of a whole training, ceil(epochs · updates per epoch), at least 1.
pub fn total_updates(epochs: f64, per_epoch: usize) -> u64 {
    ((epochs * per_epoch as f64).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::tests::{cases, floats};

    #[test]
    fn golden_cosine() {
        for case in cases("lr_schedule", "cosine_warmup") {
            let (input, expected) = (&case["input"], &case["expected"]);
            let total = input["total_updates"].as_u64().unwrap();
            let ratio = input["warmup_ratio"].as_f64().unwrap();
            assert_eq!(warmup_updates(ratio, total), expected["warmup_steps"].as_u64().unwrap());
            for (update, rate) in floats(&input["update_index"]).iter().zip(floats(&expected["lr"])) {
                let found = rate_factor(Schedule::Cosine, ratio, *update as u64, total);
                let found = found * input["peak_lr"].as_f64().unwrap();
                assert!((found - rate).abs() <= 1e-9 * rate, "{found} is not {rate}");
            }
        }
    }

    #[test]
    fn golden_update_count() {
        let case = &cases("wrpo_loss", "total_updates")[0];
        for (input, expected) in case["input"].as_array().unwrap().iter().zip(case["expected"].as_array().unwrap()) {
            let count = |name: &str| input[name].as_u64().unwrap() as usize;
            // The published trainer fills up the last round of its processes.
            let batches = count("num_rows").div_ceil(count("per_device_batch") * count("world_size"));
            let per_epoch = updates_per_epoch(batches, count("grad_accum"), LastUpdate::Drop);
            assert_eq!(batches as u64, expected["loader_len"].as_u64().unwrap());
            assert_eq!(per_epoch as u64, expected["updates_per_epoch"].as_u64().unwrap());
            let total = total_updates(input["epochs"].as_f64().unwrap(), per_epoch);
            assert_eq!(total, expected["total_updates"].as_u64().unwrap());
        }
    }

    #[test]
    fn straight_and_constant_by_hand() {
        // T = 10, W = 2: update 1 is half way up, update 6 is half way down.
        let factor = |schedule, update| rate_factor(schedule, 0.2, update, 10);
        assert_eq!((factor(Schedule::Linear, 1), factor(Schedule::Linear, 6)), (0.5, 0.5));
        assert_eq!((factor(Schedule::Constant, 0), factor(Schedule::Constant, 9)), (0.0, 1.0));
        assert_eq!(rate_factor(Schedule::Linear, 1.0, 3, 4), 0.75);
        assert_eq!(rate_factor(Schedule::Cosine, 0.0, 0, 1), 1.0);
    }

    #[test]
    fn epochs_keep_their_last_rows() {
        assert_eq!(updates_per_epoch(130, 64, LastUpdate::Keep), 3);
        assert_eq!(updates_per_epoch(130, 64, LastUpdate::Drop), 2);
        assert_eq!(updates_per_epoch(10, 64, LastUpdate::Drop), 1);
        assert_eq!((total_updates(1.5, 3), total_updates(0.01, 3)), (5, 1));
    }
}
