//! Every kind of stage, one file each.
//!
//! A new operator is a new file with its module line and its entry here. An
//! operator never sees the engine, its stage's name or a path it was not given.
//!
//! The work of operators that need `fuseline-lm` stands in [`WORKER`], which
//! only `fuseline-worker` refers to; so `fuseline` links no libtorch.

use fuseline_contract::{Entry, Runner};

mod build_pairs;
mod command;
mod control_length;
mod dpo;
mod endpoint;
mod evaluate;
mod extract_strategy;
mod import_model;
mod init_model;
mod judge;
mod load;
mod logprobs;
mod make_dataset;
mod merge;
mod perplexity;
mod rank;
mod run_tests;
mod sample;
mod sft;
mod shared;
mod sql;
mod table;
mod train_tokenizer;
mod verify;
mod wrpo;

/// Every operator, by name.
pub const ALL: &[Entry] = &[
    Entry::of::<build_pairs::BuildPairs>(),
    Entry::of::<command::Command>(),
    Entry::of::<control_length::ControlLength>(),
    Entry::of::<dpo::Dpo>(),
    Entry::of::<endpoint::Endpoint>(),
    Entry::of::<evaluate::Evaluate>(),
    Entry::of::<extract_strategy::ExtractStrategy>(),
    Entry::of::<import_model::ImportModel>(),
    Entry::of::<init_model::InitModel>(),
    Entry::of::<judge::Judge>(),
    Entry::of::<load::Load>(),
    Entry::of::<logprobs::LogProbs>(),
    Entry::of::<make_dataset::MakeDataset>(),
    Entry::of::<merge::Merge>(),
    Entry::of::<perplexity::Perplexity>(),
    Entry::of::<rank::Rank>(),
    Entry::of::<run_tests::RunTests>(),
    Entry::of::<sample::Sample>(),
    Entry::of::<sft::Sft>(),
    Entry::of::<sql::Sql>(),
    Entry::of::<table::TableOperator>(),
    Entry::of::<train_tokenizer::TrainTokenizerOperator>(),
    Entry::of::<verify::Verify>(),
    Entry::of::<wrpo::Wrpo>(),
];

/// The work of operators that run on a thread of the driving process: those that are cheap, and those that ask endpoints.
pub const THREAD: &[Runner] = &[
    Runner::of::<build_pairs::BuildPairs>(),
    Runner::of::<endpoint::Endpoint>(),
    Runner::of::<control_length::ControlLength>(),
    Runner::of::<evaluate::Evaluate>(),
    Runner::of::<load::Load>(),
    Runner::of::<make_dataset::MakeDataset>(),
    Runner::of::<merge::Merge>(),
    Runner::asking::<extract_strategy::ExtractStrategy>(),
    Runner::asking::<judge::Judge>(),
    Runner::asking::<sample::Sample>(),
    Runner::of::<rank::Rank>(),
    Runner::of::<run_tests::RunTests>(),
    Runner::of::<sql::Sql>(),
    Runner::of::<table::TableOperator>(),
    Runner::of::<verify::Verify>(),
];

/// The work of operators that run in a process of their own.
pub const WORKER: &[Runner] = &[
    Runner::of::<command::Command>(),
    Runner::of::<dpo::Dpo>(),
    Runner::of::<import_model::ImportModel>(),
    Runner::of::<init_model::InitModel>(),
    Runner::of::<extract_strategy::ExtractStrategy>(),
    Runner::of::<judge::Judge>(),
    Runner::of::<logprobs::LogProbs>(),
    Runner::of::<perplexity::Perplexity>(),
    Runner::of::<sample::Sample>(),
    Runner::of::<sft::Sft>(),
    Runner::of::<train_tokenizer::TrainTokenizerOperator>(),
    Runner::of::<wrpo::Wrpo>(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use fuseline_contract::Place;

    #[test]
    fn names_are_sorted_unique_and_snake_case() {
        let names: Vec<&str> = ALL.iter().map(|entry| entry.name).collect();
        let mut sorted = names.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(names, sorted);
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }

    /// Operators that also work with an endpoint.
    const ASKING: &[&str] = &["extract_strategy", "judge", "sample"];

    #[test]
    fn every_operator_has_its_work_where_it_runs() {
        for entry in ALL {
            let count = |list: &[Runner]| list.iter().filter(|runner| runner.name == entry.name).count();
            let expected = match entry.traits.place {
                Place::Thread => (1, 0),
                Place::Worker => (usize::from(ASKING.contains(&entry.name)), 1),
            };
            assert_eq!((count(THREAD), count(WORKER)), expected, "{}", entry.name);
        }
    }

    #[test]
    fn every_parameter_is_documented_and_unknown_ones_are_refused() {
        for entry in ALL {
            let schema = (entry.schema)();
            assert_eq!(schema["additionalProperties"], false, "{}", entry.name);
            let Some(properties) = schema["properties"].as_object() else { continue };
            for (name, property) in properties {
                assert!(property["description"].is_string(), "{}.{name} has no doc line", entry.name);
            }
            for name in entry.execution.iter().chain(entry.secret) {
                let found = name.split('.').try_fold(&schema, |inner, name| property(&schema, inner, name));
                assert!(found.is_some(), "{}.{name} is no parameter", entry.name);
            }
        }
    }

    /// A property of an object's schema, references followed.
    fn property<'s>(
        root: &'s serde_json::Value,
        of: &'s serde_json::Value,
        name: &str,
    ) -> Option<&'s serde_json::Value> {
        let found = of["properties"].get(name)?;
        let target = found.get("$ref").and_then(serde_json::Value::as_str);
        target.map_or(Some(found), |target| root.pointer(target.strip_prefix('#')?))
    }

    #[test]
    fn every_manual_begins_with_one_sentence() {
        for entry in ALL {
            assert!(entry.summary().ends_with('.'), "{}: {:?}", entry.name, entry.summary());
            assert!(entry.example.contains(&format!("op: {}", entry.name)), "{}", entry.name);
        }
    }
}
