//! The merging methods, as rows of one table. A method is a file (or a constant in the file of its family) and a row
//! here. Must not know files or folders: a method sees one tensor at a time, as numbers.

mod election;
#[cfg(test)]
mod golden;
mod kernel;
mod linear;
mod method;
mod sce;
mod select;
mod task_vectors;

pub use kernel::{Deltas, Inputs, Kernel, Values, each, encode};
pub use method::{Consensus, Method, Name, PerModel, Settings, Variant};

/// A merging method.
#[derive(Debug)]
pub struct Row {
    /// The word in a pipeline file.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub doc: &'static str,
    /// Whether it works on differences from a base model.
    pub needs_base: bool,
    /// The parameters that it takes.
    pub parameters: &'static [Parameter],
    /// Its value of `normalize` where none is given; means nothing where the method takes no such parameter.
    pub normalize: bool,
    /// Prepares the merge of one tensor, or says in words why it cannot be done.
    pub kernel: for<'a> fn(&Settings, &Inputs<'a>) -> Result<Kernel<'a>, String>,
}

/// A parameter of a method.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in a pipeline file.
    pub name: &'static str,
    /// What it does, with its range.
    pub doc: &'static str,
    /// The value where none is given, in words; `None` if it must be given.
    pub default: Option<&'static str>,
}

const WEIGHTS: Parameter = Parameter {
    name: "weights",
    doc: "the weight of each model: one number for all, or a list in the order of the models",
    default: None,
};
const NORMALIZE: Parameter = Parameter {
    name: "normalize",
    doc: "whether to divide by the sum of the weights",
    default: Some("true; for task_arithmetic false"),
};
const LAMBDA: Parameter =
    Parameter { name: "lambda", doc: "the factor of the merged difference; 0 gives the base", default: Some("1.0") };
const DENSITY: Parameter = Parameter {
    name: "density",
    doc: "the fraction of each difference that is kept, above 0 and up to 1: one number for all models, or a list",
    default: Some("1.0"),
};
const CONSENSUS: Parameter = Parameter {
    name: "consensus",
    doc: "what elects the sign of an element: sum (of the weighted differences) or count (of their signs)",
    default: Some("sum"),
};
const VARIANT: Parameter = Parameter {
    name: "variant",
    doc: "the reading of the method: fuseai (the released code), mergekit or paper",
    default: Some("fuseai"),
};
const SELECT_TOPK: Parameter = Parameter {
    name: "select_topk",
    doc: "the fraction of the varying elements that decide the shares of the models, above 0 and up to 1",
    default: Some("1.0"),
};

/// Every merging method.
pub static TABLE: &[Row] = &[
    Row {
        name: "linear",
        doc: "the weighted average of the models",
        needs_base: false,
        parameters: &[WEIGHTS, NORMALIZE],
        normalize: true,
        kernel: linear::kernel,
    },
    Row {
        name: "task_arithmetic",
        doc: "the base plus the weighted sum of the models' differences from it",
        needs_base: true,
        parameters: &[WEIGHTS, NORMALIZE, LAMBDA],
        normalize: false,
        kernel: |settings, inputs| task_vectors::kernel(task_vectors::TASK_ARITHMETIC, settings, inputs),
    },
    Row {
        name: "ties",
        doc: "task vectors trimmed to their largest elements, merged where they agree with the elected sign",
        needs_base: true,
        parameters: &[WEIGHTS, DENSITY, NORMALIZE, LAMBDA, CONSENSUS],
        normalize: true,
        kernel: |settings, inputs| task_vectors::kernel(task_vectors::TIES, settings, inputs),
    },
    Row {
        name: "sce",
        doc: "task vectors weighted, tensor by tensor, by their squares where the models vary most, minority signs erased",
        needs_base: true,
        parameters: &[VARIANT, SELECT_TOPK],
        normalize: true,
        kernel: sce::kernel,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_snake_case() {
        for (position, row) in TABLE.iter().enumerate() {
            assert!(row.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.name);
            assert!(TABLE[..position].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }

    /// Values that differ in size and sign, zero among them.
    const BASE: [f32; 6] = [0.25, -3.5, 0.0, 1e-6, 7.0, -0.1];
    const MODEL: [f32; 6] = [0.5, -3.25, 0.125, -1e-3, 7.0, 0.3];

    fn merged_with_itself(row: &Row, n_models: usize, base: [f32; 6]) -> Vec<f32> {
        let takes = |name: &str| row.parameters.iter().any(|p| p.name == name);
        let mut method = serde_json::json!({"method": row.name});
        if takes("weights") {
            method["weights"] = serde_json::json!(1.0 / n_models as f64);
        }
        let base = base.map(f64::from);
        let model = MODEL.map(f64::from);
        let base = row.needs_base.then_some(base.as_slice());
        let merged = golden::merge(&method.to_string(), base, &vec![model.as_slice(); n_models]).unwrap();
        merged.iter().map(|&value| value as f32).collect()
    }

    #[test]
    fn a_model_merged_with_itself_is_itself() {
        for row in TABLE {
            for n_models in 1..=5 {
                assert_eq!(merged_with_itself(row, n_models, BASE), MODEL, "{} of {n_models}", row.name);
                assert_eq!(merged_with_itself(row, n_models, MODEL), MODEL, "{} of {n_models}", row.name);
            }
        }
    }

    #[test]
    fn a_merge_of_the_base_alone_is_the_base_whatever_the_parameters() {
        let base = [0.5, -2.0, 0.0];
        for method in [
            r#"{"method": "task_arithmetic", "weights": [0.3, 9], "lambda": 4}"#,
            r#"{"method": "ties", "weights": [0.3, 9], "density": [0.5, 0.7], "normalize": false, "lambda": 0.1}"#,
            r#"{"method": "sce", "variant": "fuseai", "select_topk": 0.4}"#,
            r#"{"method": "sce", "variant": "mergekit", "select_topk": 0.4}"#,
            r#"{"method": "sce", "variant": "paper", "select_topk": 0.4}"#,
        ] {
            assert_eq!(golden::merge(method, Some(&base), &[&base, &base]).unwrap(), base, "{method}");
        }
    }
}
