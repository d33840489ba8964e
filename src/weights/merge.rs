//! Merging of whole folders: every tensor of the models goes through a method, one at a time, straight from the
//! mapped files into the shards of the result. Must not know what the methods compute.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::folder::{Folder, TensorView};
use crate::methods::{Inputs, Method, Settings, Values, encode};
use crate::names::{CONFIG_FILE, companions, has_token_rows};
use crate::shard::{DEFAULT_MAX_SHARD_BYTES, Entry, write_with};

/// What to do where embeddings have unequal numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnequalRows {
    /// An error.
    #[default]
    Refuse,
    /// Embeddings and heads are cut to the base's rows, without a base to the fewest; the tokenizer and
    /// configuration are those of the first model with that many. For models that differ by added tokens at the end.
    Cut,
}

/// How the result of a merge is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The type of the merged floats; where none is given, each tensor keeps the base's (the first model's).
    pub dtype: Option<Float>,
    /// The limit of a shard, in bytes of tensors.
    pub max_shard_bytes: u64,
    /// What to do where embeddings have unequal numbers of rows.
    pub unequal_rows: UnequalRows,
}

impl Default for Options {
    fn default() -> Self {
        Self { dtype: None, max_shard_bytes: DEFAULT_MAX_SHARD_BYTES, unequal_rows: UnequalRows::default() }
    }
}

/// What a merge made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Tensors in the result.
    pub n_tensors: usize,
    /// Elements of all tensors.
    pub n_parameters: u64,
    /// Bytes of all tensors, without headers.
    pub total_bytes: u64,
    /// Tensors that were cut to fewer rows.
    pub cut: Vec<String>,
    /// The names of all files of the result.
    pub files: Vec<String>,
}

/// Merges models into the folder `out`.
///
/// The arithmetic is in double precision on exactly decoded inputs, and each element is rounded once, to the nearest,
/// ties to even; the bytes do not depend on threads. Besides the inputs, which stay in their mapped files, one
/// merged tensor is in memory. Tensors of integers must be equal and are copied. Configuration, tokenizer and
/// template come from the base, without a base from the first model. A base given to a method that needs none (see
/// the row's `needs_base`) lends these files and the types and takes no part in the average.
///
/// `watch` is told (tensors done, tensors in all) after each, and may end the merge.
///
/// # Errors
/// Wrong settings, folders with different tensors or shapes, a result that is not finite, a failing disk; what was
/// written of the weights is then removed.
pub fn merge(
    method: &Method,
    base: Option<&Folder>,
    models: &[&Folder],
    out: &Path,
    options: &Options,
    watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Summary> {
    let settings = resolve(method, base, models)?;
    let first = base.or(models.first().copied()).expect("resolve refuses a merge of no model");
    let all: Vec<&Folder> = base.into_iter().chain(models.iter().copied()).collect();
    for folder in &all {
        refuse_same_folder(out, folder.path())?;
        same_names(first, folder)?;
    }
    let Layout { entries, cut, lender } = layout(base, &all, options)?;

    let total = entries.len();
    let n_parameters = entries.iter().map(|e| e.shape.iter().product::<usize>() as u64).sum();
    let mut done = 0;
    let written = write_with(out, entries, options.max_shard_bytes, |entry| {
        let bytes = merge_tensor(method, &settings, base, models, entry)?;
        done += 1;
        match watch(done, total) {
            ControlFlow::Continue(()) => Ok(bytes),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    })?;

    let mut files = written.files;
    files.extend(copy_companions(lender, out, options.dtype)?);
    Ok(Summary { n_tensors: total, n_parameters, total_bytes: written.total_bytes, cut, files })
}

fn resolve(method: &Method, base: Option<&Folder>, models: &[&Folder]) -> Result<Settings> {
    let mut problems = method.check();
    let name = method.row().name;
    if models.is_empty() {
        problems.push(format!("the method \"{name}\" needs at least one model, none was given"));
    }
    if method.row().needs_base && base.is_none() {
        problems.push(format!("the method \"{name}\" needs a base model; give it as the input \"base\""));
    }
    match method.settings(models.len()) {
        Ok(settings) if problems.is_empty() => return Ok(settings),
        Ok(_) => {}
        Err(more) => problems.extend(more),
    }
    Err(Error::Settings { problems })
}

fn refuse_same_folder(out: &Path, input: &Path) -> Result<()> {
    // A folder that cannot be resolved is not there yet, so it is no input.
    match (fs::canonicalize(out), fs::canonicalize(input)) {
        (Ok(left), Ok(right)) if left == right => Err(Error::OutputIsInput { folder: out.to_owned() }),
        _ => Ok(()),
    }
}

fn same_names(left: &Folder, right: &Folder) -> Result<()> {
    let (left_names, right_names): (BTreeSet<&str>, BTreeSet<&str>) = (left.names().collect(), right.names().collect());
    let differing: Vec<&&str> = left_names.symmetric_difference(&right_names).collect();
    let Some(tensor) = differing.first() else {
        return Ok(());
    };
    let (with, without) = if left.contains(tensor) { (left, right) } else { (right, left) };
    Err(Error::Names {
        tensor: tensor.to_string(),
        with: with.path().to_owned(),
        without: without.path().to_owned(),
        count: differing.len(),
    })
}

/// What the result looks like.
struct Layout<'a> {
    entries: Vec<Entry>,
    cut: Vec<String>,
    /// The folder whose configuration and tokenizer fit the result.
    lender: &'a Folder,
}

fn layout<'a>(base: Option<&'a Folder>, all: &[&'a Folder], options: &Options) -> Result<Layout<'a>> {
    let mut entries = Vec::new();
    let mut cut = Vec::new();
    let mut lenders = all.to_vec();
    let first = all[0];
    for name in first.names() {
        let view = first.get(name)?;
        let mut shape = view.shape.to_vec();
        for folder in &all[1..] {
            let other = folder.get(name)?.shape;
            let is_cuttable = has_token_rows(name) && shape.len() == 2 && other.len() == 2 && shape[1] == other[1];
            let fits =
                is_cuttable && options.unequal_rows == UnequalRows::Cut && (base.is_none() || other[0] >= shape[0]);
            if other != shape && !fits {
                return Err(Error::Shapes {
                    tensor: name.to_owned(),
                    left: first.path().to_owned(),
                    left_shape: view.shape.to_vec(),
                    right: folder.path().to_owned(),
                    right_shape: other.to_vec(),
                    hint: shapes_hint(is_cuttable, options.unequal_rows),
                });
            }
            if fits {
                shape[0] = shape[0].min(other[0]);
            }
        }
        let mut is_cut = false;
        let mut fitting = Vec::new();
        for folder in all {
            let fits = folder.get(name)?.shape == shape;
            is_cut |= !fits;
            fitting.push(fits);
        }
        if is_cut {
            cut.push(name.to_owned());
            let fits = |folder: &&Folder| all.iter().zip(&fitting).any(|(f, fits)| *fits && std::ptr::eq(*f, *folder));
            lenders.retain(fits);
        }
        let dtype = match (Float::of(view.dtype), options.dtype) {
            (Some(_), Some(wanted)) => wanted.dtype(),
            _ => view.dtype,
        };
        entries.push(Entry { name: name.to_owned(), dtype, shape });
    }
    let lender = lenders.first().copied().ok_or_else(|| Error::Settings {
        problems: vec![format!(
            "no model has the common number of rows in all of {}, so no configuration fits the result; give a base",
            cut.join(", ")
        )],
    })?;
    Ok(Layout { entries, cut, lender })
}

fn shapes_hint(is_cuttable: bool, unequal_rows: UnequalRows) -> &'static str {
    match (is_cuttable, unequal_rows) {
        (false, _) => "only models of one architecture and size can be merged",
        (true, UnequalRows::Refuse) => {
            "the vocabularies differ; if one only adds tokens at the end, set unequal_rows: cut"
        }
        (true, UnequalRows::Cut) => "a model has fewer rows than the base; choose the smaller one as the base",
    }
}

fn merge_tensor(
    method: &Method,
    settings: &Settings,
    base: Option<&Folder>,
    models: &[&Folder],
    entry: &Entry,
) -> Result<Vec<u8>> {
    let n: usize = entry.shape.iter().product();
    let Some(float) = Float::of(entry.dtype) else {
        return equal_bytes(base, models, entry);
    };
    if n == 0 {
        return Ok(Vec::new());
    }
    let base = base.map(|folder| values(folder, entry)).transpose()?;
    let models = models.iter().map(|folder| values(folder, entry)).collect::<Result<_>>()?;
    let inputs = Inputs { base, models };
    let kernel = (method.row().kernel)(settings, &inputs)
        .map_err(|reason| Error::Tensor { tensor: entry.name.clone(), reason })?;
    encode(&kernel, n, float).map_err(|(element, value)| Error::NotFinite {
        tensor: entry.name.clone(),
        element,
        value,
        dtype: entry.dtype,
    })
}

/// The values of a tensor, as many as the entry has: where rows are cut, the first ones.
fn values<'a>(folder: &'a Folder, entry: &Entry) -> Result<Values<'a>> {
    let TensorView { dtype, bytes, .. } = folder.get(&entry.name)?;
    let float = Float::of(dtype).ok_or_else(|| Error::NotFloat {
        folder: folder.path().to_owned(),
        tensor: entry.name.clone(),
        dtype,
    })?;
    let n: usize = entry.shape.iter().product();
    Ok(Values::new(float, &bytes[..n * float.size_bytes()]))
}

fn equal_bytes(base: Option<&Folder>, models: &[&Folder], entry: &Entry) -> Result<Vec<u8>> {
    let all: Vec<&Folder> = base.into_iter().chain(models.iter().copied()).collect();
    let first = all[0].get(&entry.name)?;
    for folder in &all[1..] {
        let other = folder.get(&entry.name)?;
        if other.dtype != first.dtype || other.bytes != first.bytes {
            return Err(Error::Integers {
                tensor: entry.name.clone(),
                dtype: first.dtype,
                left: all[0].path().to_owned(),
                right: folder.path().to_owned(),
            });
        }
    }
    Ok(first.bytes.to_vec())
}

/// Copies configuration, tokenizer and the like; the configuration says the type if it was chosen.
fn copy_companions(from: &Folder, out: &Path, dtype: Option<Float>) -> Result<Vec<String>> {
    let names = companions(from.path())?;
    for name in &names {
        let (source, target) = (from.path().join(name), out.join(name));
        let mut bytes = fs::read(&source).map_err(|error| Error::Read { path: source.clone(), source: error })?;
        if let (CONFIG_FILE, Some(dtype)) = (name.as_str(), dtype) {
            bytes = with_dtype(&source, &bytes, dtype)?;
        }
        // Not `fs::copy`: it would carry over a read-only mode.
        fs::write(&target, bytes).map_err(|error| Error::Write { path: target, source: error })?;
    }
    Ok(names)
}

fn with_dtype(path: &Path, config: &[u8], dtype: Float) -> Result<Vec<u8>> {
    let bad = |reason: String| Error::Config { path: path.to_owned(), reason };
    let mut config: Value = serde_json::from_slice(config).map_err(|error| bad(error.to_string()))?;
    let fields = config.as_object_mut().ok_or_else(|| bad("it is not a JSON object".to_owned()))?;
    // transformers renamed the field to `dtype` in version 5 and reads both.
    let field = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    fields.insert(field.to_owned(), json!(dtype.name()));
    Ok(format!("{config:#}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::dtype::Dtype;
    use crate::shard::{Tensor, write};

    const EMBEDDING: &str = "model.embed_tokens.weight";
    const NORM: &str = "model.norm.weight";

    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// A model of an embedding `[rows, 2]`, a norm `[2]` and a buffer of integers.
        fn model(&self, name: &str, float: Float, rows: usize, seed: f32) -> Folder {
            let values: Vec<f32> = (0..rows * 2).map(|i| seed * (i as f32 - 1.5)).collect();
            let tensors = [
                (EMBEDDING.to_owned(), Tensor::from_f32(float, &[rows, 2], &values).unwrap()),
                (NORM.to_owned(), Tensor::from_f32(float, &[2], &[seed, 1.0]).unwrap()),
                ("positions".to_owned(), Tensor::new(Dtype::I64, &[1], vec![0; 8]).unwrap()),
            ];
            let dir = self.path(name);
            write(&dir, tensors, 16).unwrap();
            let config =
                format!(r#"{{"model_type": "llama", "torch_dtype": "{}", "vocab_size": {rows}}}"#, float.name());
            fs::write(dir.join("config.json"), config).unwrap();
            fs::write(dir.join("tokenizer.json"), name).unwrap();
            fs::write(dir.join("README.md"), "a card").unwrap();
            Folder::open(&dir).unwrap()
        }

        fn merge(
            &self,
            method: &str,
            base: Option<&Folder>,
            models: &[&Folder],
            options: &Options,
        ) -> Result<(Folder, Summary)> {
            let method: Method = serde_json::from_str(method).unwrap();
            let out = self.path("out");
            let summary = merge(&method, base, models, &out, options, &mut |_, _| ControlFlow::Continue(()))?;
            Ok((Folder::open(&out)?, summary))
        }
    }

    const LINEAR: &str = r#"{"method": "linear", "weights": 1}"#;

    #[test]
    fn a_folder_merged_with_itself_has_the_same_tensors() {
        let bench = Bench::new();
        for float in [Float::F16, Float::BF16, Float::F32, Float::F64] {
            let base = bench.model("base", float, 3, 0.75);
            let model = bench.model("model", float, 3, 0.3);
            for method in [LINEAR, r#"{"method": "ties", "weights": 1}"#, r#"{"method": "sce"}"#] {
                let (merged, summary) =
                    bench.merge(method, Some(&base), &[&model, &model], &Options::default()).unwrap();
                assert_eq!((summary.n_tensors, summary.n_parameters), (3, 9));
                for name in model.names() {
                    assert_eq!(merged.get(name).unwrap().bytes, model.get(name).unwrap().bytes, "{method} {name}");
                    assert_eq!(merged.get(name).unwrap().dtype, model.get(name).unwrap().dtype);
                }
            }
        }
    }

    #[test]
    fn the_other_files_come_from_the_base_or_the_first_model() {
        let bench = Bench::new();
        let (base, a, b) = (
            bench.model("base", Float::F32, 3, 0.1),
            bench.model("a", Float::F32, 3, 1.0),
            bench.model("b", Float::F32, 3, 2.0),
        );
        let (merged, summary) = bench.merge(LINEAR, None, &[&a, &b], &Options::default()).unwrap();
        assert_eq!(fs::read_to_string(merged.path().join("tokenizer.json")).unwrap(), "a");
        assert!(!merged.path().join("README.md").exists());
        assert!(summary.files.contains(&"config.json".to_owned()));
        assert_eq!(merged.f32(NORM).unwrap(), [1.5, 1.0]);

        let options = Options { dtype: Some(Float::BF16), ..Options::default() };
        let (merged, _) = bench.merge(LINEAR, Some(&base), &[&a, &b], &options).unwrap();
        assert_eq!(fs::read_to_string(merged.path().join("tokenizer.json")).unwrap(), "base");
        let config: Value = serde_json::from_slice(&fs::read(merged.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(config["torch_dtype"], "bfloat16");
        assert_eq!(merged.get(NORM).unwrap().dtype, Dtype::BF16);
        assert_eq!(merged.get("positions").unwrap().dtype, Dtype::I64);
        assert_eq!(merged.f32(NORM).unwrap(), [1.5, 1.0]);
    }

    #[test]
    fn different_folders_are_refused_with_tensor_and_shapes() {
        let bench = Bench::new();
        let (a, b) = (bench.model("a", Float::F32, 3, 1.0), bench.model("b", Float::F32, 4, 2.0));
        let message = bench.merge(LINEAR, None, &[&a, &b], &Options::default()).unwrap_err().to_string();
        assert!(message.contains(EMBEDDING) && message.contains("[3, 2]") && message.contains("[4, 2]"), "{message}");
        assert!(message.contains("unequal_rows: cut"), "{message}");

        let dir = bench.path("c");
        write(&dir, [(NORM.to_owned(), Tensor::from_f32(Float::F32, &[2], &[1.0, 1.0]).unwrap())], 16).unwrap();
        let c = Folder::open(&dir).unwrap();
        let message = bench.merge(LINEAR, None, &[&a, &c], &Options::default()).unwrap_err().to_string();
        assert!(message.contains(&format!("\"{EMBEDDING}\" is in ")), "{message}");
        assert!(message.contains("not in both: 2"), "{message}");
        assert!(!bench.path("out").exists());
    }

    #[test]
    fn unequal_rows_can_be_cut() {
        let bench = Bench::new();
        let (small, large) = (bench.model("small", Float::F32, 3, 1.0), bench.model("large", Float::F32, 4, 3.0));
        let options = Options { unequal_rows: UnequalRows::Cut, ..Options::default() };
        let (merged, summary) = bench.merge(LINEAR, None, &[&large, &small], &options).unwrap();
        assert_eq!(merged.get(EMBEDDING).unwrap().shape, [3, 2]);
        // The rows of `seed * (i - 1.5)` with seeds 1 and 3 average to seed 2.
        assert_eq!(merged.f32(EMBEDDING).unwrap(), [-3.0, -1.0, 1.0, 3.0, 5.0, 7.0]);
        assert_eq!(summary.cut, [EMBEDDING]);
        assert_eq!(fs::read_to_string(merged.path().join("tokenizer.json")).unwrap(), "small");

        let ties = r#"{"method": "ties", "weights": 1}"#;
        let (merged, _) = bench.merge(ties, Some(&small), &[&large], &options).unwrap();
        assert_eq!(merged.get(EMBEDDING).unwrap().shape, [3, 2]);
        let message = bench.merge(ties, Some(&large), &[&small], &options).unwrap_err().to_string();
        assert!(message.contains("fewer rows than the base"), "{message}");
    }

    #[test]
    fn wrong_settings_are_listed_together() {
        let bench = Bench::new();
        let a = bench.model("a", Float::F32, 3, 1.0);
        let method = r#"{"method": "ties", "weights": [1, 2], "variant": "paper"}"#;
        let message = bench.merge(method, None, &[&a], &Options::default()).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 3, "{message}");
        assert!(message.contains("needs a base model"), "{message}");
        let message = bench.merge(LINEAR, None, &[], &Options::default()).unwrap_err().to_string();
        assert!(message.contains("at least one model"), "{message}");
    }

    #[test]
    fn what_cannot_be_merged_is_named() {
        let bench = Bench::new();
        let (a, b) = (bench.model("a", Float::F32, 3, 1.0), bench.model("b", Float::F32, 3, 1e6));
        let options = Options { dtype: Some(Float::F16), ..Options::default() };
        let message = bench.merge(LINEAR, None, &[&a, &b], &options).unwrap_err().to_string();
        assert!(
            message.contains(&format!("\"{EMBEDDING}\": element 0 of the result is -750000.75 as F16")),
            "{message}"
        );
        assert!(fs::read_dir(bench.path("out")).unwrap().next().is_none());

        let nan = bench.model("nan", Float::F32, 3, f32::NAN);
        for method in [r#"{"method": "ties", "weights": 1, "density": 0.5}"#, r#"{"method": "sce"}"#] {
            let message = bench.merge(method, Some(&a), &[&a, &nan], &Options::default()).unwrap_err().to_string();
            assert!(message.contains("of the result is NaN as F32"), "{message}");
        }

        let method: Method = serde_json::from_str(LINEAR).unwrap();
        let watch = &mut |_, _| ControlFlow::Continue(());
        let same = merge(&method, None, &[&a, &b], &bench.path("a"), &Options::default(), watch);
        assert!(matches!(same, Err(Error::OutputIsInput { .. })));
        let stop = &mut |_, _| ControlFlow::Break(());
        let stopped = merge(&method, None, &[&a, &b], &bench.path("out"), &Options::default(), stop);
        assert!(matches!(stopped, Err(Error::Cancelled)));
    }
}
