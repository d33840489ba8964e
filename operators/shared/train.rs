//! What the declarations of the training operators share: ports, parts, checks.

use fuseline_contract::rows;
use fuseline_contract::{Input, Kind, Output, Part, Place, Ports, Problems, Traits};
use fuseline_lm::train;

use super::chat::{CHAT, DECODER, NUMERICS};

/// Shared code of all training operators.
pub const PARTS: &[Part] = &[DECODER, CHAT, Part { name: "lm.train", version: 1 }];
/// How often the state is kept changes no result.
pub const EXECUTION: &[&str] = &["train.checkpoint_every"];
/// Training runs in a process of its own, from a seed.
pub const TRAITS: Traits = Traits { place: Place::Worker, uses_seed: true, numerics: Some(NUMERICS), ..Traits::PURE };

/// The ports of a training operator: `model`, the data, and a reference where one is needed.
pub fn ports(data: Input, reference: bool) -> Ports {
    let mut inputs = vec![Input::one("model", Kind::Model, "the model to start from"), data];
    if reference {
        let doc = "log-probabilities of the answers under the reference, of a `logprobs` stage";
        inputs.push(Input::one("reference", Kind::Rows(&rows::LOGPROB), doc));
    }
    Ports {
        inputs,
        outputs: vec![
            Output::new("model", Kind::Model, "the trained model"),
            Output::new("trace", Kind::Rows(&rows::TRACE), "loss, learning rate and figures at every update"),
        ],
    }
}

/// Notes everything that is wrong with the trainer's settings, and what was found wrong with the objective's.
pub fn check(config: &train::Config, objective: Vec<String>, problems: &mut Problems) {
    for problem in config.check() {
        let field = problem.split([' ', '[']).next().unwrap_or_default();
        problems.add(&format!("train.{field}"), problem.clone());
    }
    for problem in objective {
        let field = problem.split_whitespace().next().unwrap_or_default();
        problems.add(field, problem.clone());
    }
}
