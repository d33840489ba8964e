//! A decoder from a Hugging Face folder and back: `config.json`, weights,
//! `generation_config.json`, and the tokenizer's files, as `transformers` reads them.
//!
//! It must not know what the tokenizer's files mean, nor pipelines or artifacts.

use std::collections::BTreeMap;
use std::path::Path;

use fuseline_torch::tch::{Device, Kind, Tensor};
use fuseline_weights::folder::Folder;
use fuseline_weights::names::{CONFIG_FILE, companions};
use fuseline_weights::{DEFAULT_MAX_SHARD_BYTES, Entry, Float, write_with};
use serde_json::{Map, Value, json};

use crate::arch::{Architecture, Piece, WeightSpec};
use crate::cpu::{Model, Number};
use crate::decoder::Decoder;
use crate::error::{Error, Result};

const GENERATION_CONFIG: &str = "generation_config.json";

impl Model {
    /// Reads a model's folder for generation by so many threads, one weight after the other: no more memory is needed than
    /// for the model and its largest tensor.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn load(dir: &Path, number: Number, threads: usize) -> Result<Self> {
        let (folder, arch) = open(dir)?;
        let specs: BTreeMap<String, WeightSpec> =
            arch.weights().into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        Self::new(&arch, number, threads, &|name| {
            let Some(spec) = specs.get(name) else { return Ok(None) };
            let values = put_together(&folder, spec, Device::Cpu, Kind::Float)?.contiguous().view([-1]);
            let doing = || format!("failed to read tensor {name:?}");
            Vec::<f32>::try_from(values).map(Some).map_err(|source| Error::Torch { doing: doing(), source })
        })
    }
}

impl Decoder {
    /// Reads a model's folder onto a device, its weights rounded to `kind`.
    ///
    /// # Errors
    /// A missing or truncated file, a configuration that cannot be followed, a tensor that is
    /// missing, has another shape, or is not asked for.
    pub fn load(dir: &Path, device: Device, kind: Kind) -> Result<Self> {
        let (folder, arch) = open(dir)?;
        let mut weights = BTreeMap::new();
        for spec in arch.weights() {
            let weight = put_together(&folder, &spec, device, kind)?;
            weights.insert(spec.name, weight);
        }
        Decoder::new(arch, weights)
    }

    /// Checks a model's folder as [`Decoder::load`] does, without reading its weights.
    ///
    /// # Errors
    /// Those of [`Decoder::load`].
    pub fn check(dir: &Path) -> Result<()> {
        open(dir).map(drop)
    }

    /// Writes the model into a folder, made if it is missing, its weights rounded to `dtype`.
    ///
    /// `config.json` is the one that was read, with the number format of these weights.
    /// `generation_config.json` gets the configuration's special tokens unless
    /// [`carry_files`] has put one there.
    pub fn save(&self, dir: &Path, dtype: Float) -> Result<()> {
        self.save_sharded(dir, dtype, DEFAULT_MAX_SHARD_BYTES)
    }

    /// [`Decoder::save`] with another limit on the size of one file.
    pub fn save_sharded(&self, dir: &Path, dtype: Float, max_shard_bytes: u64) -> Result<()> {
        let parameters: BTreeMap<String, Tensor> = self.parameters().into_iter().collect();
        let entries = self
            .arch
            .stored()
            .into_iter()
            .map(|(name, shape)| Entry {
                name,
                dtype: dtype.dtype(),
                shape: shape.iter().map(|&extent| extent as usize).collect(),
            })
            .collect();
        let sources = sources(&self.arch);
        write_with(dir, entries, max_shard_bytes, |entry| {
            bytes(&assemble(&sources[&entry.name], &parameters), dtype)
                .map_err(|source| Error::Torch { doing: format!("failed to read tensor {:?}", entry.name), source })
        })?;
        write_json(dir, CONFIG_FILE, &config_for(&self.arch.config, dtype))?;
        match dir.join(GENERATION_CONFIG).exists() {
            true => Ok(()),
            false => write_json(dir, GENERATION_CONFIG, &generation_config(&self.arch.config)),
        }
    }
}

/// A folder and its architecture, which agree.
fn open(dir: &Path) -> Result<(Folder, Architecture)> {
    let folder = Folder::open(dir)?;
    let arch = Architecture::read(dir)?;
    check_tensors(dir, &folder, &arch)?;
    Ok((folder, arch))
}

/// Checks that a folder holds the tensors of an architecture and no others, and that they are numbers.
fn check_tensors(dir: &Path, folder: &Folder, arch: &Architecture) -> Result<()> {
    let stored = arch.stored();
    for name in folder.names() {
        if !stored.contains_key(name) && !can_be_left(name, arch) {
            return Err(Error::ExtraTensor { folder: dir.into(), name: name.into() });
        }
    }
    for (name, expected) in stored {
        if !folder.contains(&name) {
            let present = folder.names().len();
            return Err(Error::MissingTensor { folder: dir.into(), name, present });
        }
        let view = folder.get(&name)?;
        let found: Vec<i64> = view.shape.iter().map(|&extent| extent as i64).collect();
        if found != expected {
            return Err(Error::Shape { name, found, expected });
        }
        if Float::of(view.dtype).is_none() {
            return Err(Error::Dtype { name, found: view.dtype.to_string() });
        }
    }
    Ok(())
}

/// Reads the stored rows of a weight.
fn put_together(folder: &Folder, spec: &WeightSpec, device: Device, kind: Kind) -> Result<Tensor> {
    let parts: Vec<Tensor> =
        spec.pieces.iter().map(|piece| read(folder, piece, device, kind)).collect::<Result<_>>()?;
    let tensor = match parts.as_slice() {
        [whole] => whole.shallow_clone(),
        several => Tensor::cat(several, 0),
    };
    Ok(tensor.view(spec.shape.as_slice()))
}

/// Reads some rows of a stored tensor that [`check_tensors`] has seen.
fn read(folder: &Folder, piece: &Piece, device: Device, kind: Kind) -> Result<Tensor> {
    let view = folder.get(&piece.tensor)?;
    let Some(stored) = Float::of(view.dtype) else {
        return Err(Error::Dtype { name: piece.tensor.clone(), found: view.dtype.to_string() });
    };
    let mut shape: Vec<i64> = view.shape.iter().map(|&extent| extent as i64).collect();
    let row_bytes = view.bytes.len() / view.shape[0];
    let bytes = &view.bytes[piece.first as usize * row_bytes..][..piece.rows as usize * row_bytes];
    shape[0] = piece.rows;
    Tensor::f_from_data_size(bytes, &shape, kind_of(stored))
        .and_then(|tensor| tensor.f_to_device(device))
        .and_then(|tensor| tensor.f_to_kind(kind))
        .map_err(|source| Error::Torch {
            doing: format!("failed to load tensor {:?} onto {device:?}", piece.tensor),
            source,
        })
}

/// Some rows of a parameter.
pub(crate) struct Source {
    /// The first row in the stored tensor.
    at: i64,
    /// The parameter.
    parameter: String,
    /// The first row in the parameter.
    first: i64,
    rows: i64,
}

/// Lists of which rows each stored tensor is made, in their order.
pub(crate) fn sources(arch: &Architecture) -> BTreeMap<String, Vec<Source>> {
    let mut sources: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    for spec in arch.weights() {
        let mut first = 0;
        for piece in &spec.pieces {
            sources.entry(piece.tensor.clone()).or_default().push(Source {
                at: piece.first,
                parameter: spec.name.clone(),
                first,
                rows: piece.rows,
            });
            first += piece.rows;
        }
    }
    for list in sources.values_mut() {
        list.sort_by_key(|source| source.at);
    }
    sources
}

/// Puts a stored tensor together from the rows of parameters.
pub(crate) fn assemble(sources: &[Source], parameters: &BTreeMap<String, Tensor>) -> Tensor {
    let rows = |source: &Source| {
        let parameter = parameters[&source.parameter].detach();
        let rows = match parameter.size().as_slice() {
            [_] => parameter,
            [.., length] => parameter.reshape([-1, *length]),
            [] => unreachable!("parameters have axes"),
        };
        rows.narrow(0, source.first, source.rows)
    };
    match sources {
        [one] => rows(one),
        several => Tensor::cat(&several.iter().map(rows).collect::<Vec<_>>(), 0),
    }
}

/// Copies what belongs to a model besides configuration and weights (tokenizer, chat template,
/// generation settings, licence) from one model's folder to another's.
pub fn carry_files(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|source| Error::Write { path: to.into(), source })?;
    for name in companions(from)?.into_iter().filter(|name| name != CONFIG_FILE) {
        let path = from.join(&name);
        let contents = std::fs::read(&path).map_err(|source| Error::Read { path, source })?;
        let path = to.join(&name);
        std::fs::write(&path, contents).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// Tensors that published folders hold although nothing reads them.
fn can_be_left(name: &str, arch: &Architecture) -> bool {
    let tied_head = arch.tied_embeddings && name == format!("{}.weight", arch.names.head);
    tied_head || name.ends_with("rotary_emb.inv_freq")
}

fn kind_of(float: Float) -> Kind {
    match float {
        Float::F16 => Kind::Half,
        Float::BF16 => Kind::BFloat16,
        Float::F32 => Kind::Float,
        Float::F64 => Kind::Double,
    }
}

/// A tensor's elements, little endian, row-major.
fn bytes(tensor: &Tensor, dtype: Float) -> Result<Vec<u8>, fuseline_torch::tch::TchError> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(kind_of(dtype))?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * dtype.size_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// The configuration as it was read, with the number format of what is written.
fn config_for(config: &Value, dtype: Float) -> Value {
    let mut config = config.clone();
    if let Value::Object(fields) = &mut config {
        // `dtype` is the name in transformers 5, `torch_dtype` the one that all versions read.
        let field = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        fields.insert(field.into(), json!(dtype.name()));
    }
    config
}

fn generation_config(config: &Value) -> Value {
    let mut fields = Map::new();
    fields.insert("_from_model_config".into(), json!(true));
    for field in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(id) = config.get(field).filter(|id| !id.is_null()) {
            fields.insert(field.into(), id.clone());
        }
    }
    Value::Object(fields)
}

fn write_json(dir: &Path, name: &str, value: &Value) -> Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, format!("{value:#}\n")).map_err(|source| Error::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::{NewModel, new_config};

    fn small() -> Decoder {
        let config = new_config(&NewModel {
            family: "llama".into(),
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size: 12,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            max_positions: 32,
            tied_embeddings: false,
            bos_token_id: None,
            eos_token_ids: vec![2, 3],
            pad_token_id: None,
        })
        .unwrap();
        Decoder::init(Architecture::from_config(&config).unwrap(), 5, Device::Cpu, Kind::Float)
    }

    fn error(dir: &Path) -> String {
        Decoder::load(dir, Device::Cpu, Kind::Float).unwrap_err().to_string()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (dir, decoder) = (tempfile::tempdir().unwrap(), small());
        decoder.save(dir.path(), Float::F32).unwrap();
        let again = Decoder::load(dir.path(), Device::Cpu, Kind::Float).unwrap();
        for ((name, left), (_, right)) in decoder.parameters().iter().zip(again.parameters()) {
            assert_eq!(*left, right, "{name}");
        }
        let generation = std::fs::read_to_string(dir.path().join(GENERATION_CONFIG)).unwrap();
        assert!(generation.contains("\"eos_token_id\""), "{generation}");
        assert_eq!(again.arch.config["eos_token_id"], json!([2, 3]));
        assert_eq!(again.arch.config["torch_dtype"], json!("float32"));
    }

    #[test]
    fn half_precision_is_half_the_bytes_and_close() {
        let (dir, decoder) = (tempfile::tempdir().unwrap(), small());
        decoder.save(dir.path(), Float::BF16).unwrap();
        let again = Decoder::load(dir.path(), Device::Cpu, Kind::Float).unwrap();
        let difference = (decoder.head() - again.head()).abs().max().double_value(&[]);
        // bfloat16 keeps eight bits: 2^-9 of weights of about 0.06 at most.
        assert!(difference > 0.0 && difference < 0.06 / 256.0, "{difference}");
        assert_eq!(again.arch.config["torch_dtype"], json!("bfloat16"));
    }

    #[test]
    fn a_wrong_folder_is_said_to_be_wrong() {
        let (dir, decoder) = (tempfile::tempdir().unwrap(), small());
        decoder.save(dir.path(), Float::F32).unwrap();
        let config = dir.path().join(CONFIG_FILE);
        let text = std::fs::read_to_string(&config).unwrap();

        std::fs::write(&config, text.replace("\"intermediate_size\": 12", "\"intermediate_size\": 13")).unwrap();
        assert_eq!(
            error(dir.path()),
            "tensor \"model.layers.0.mlp.down_proj.weight\" has shape [8, 12]; config.json asks for [8, 13]"
        );
        std::fs::write(&config, text.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2")).unwrap();
        assert!(
            error(dir.path()).contains(
                "has no tensor \"model.layers.1.input_layernorm.weight\", which its config.json asks for (12 tensors"
            ),
            "{}",
            error(dir.path())
        );
        std::fs::write(&config, text.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0")).unwrap();
        assert_eq!(error(dir.path()), "config.json has num_hidden_layers = 0; expected a number of at least 1");
        std::fs::write(&config, &text[..40]).unwrap();
        assert!(error(dir.path()).contains("config.json is not valid JSON"), "{}", error(dir.path()));
        std::fs::write(&config, text).unwrap();
        let weights = dir.path().join("model.safetensors");
        let bytes = std::fs::read(&weights).unwrap();
        std::fs::write(&weights, &bytes[..bytes.len() - 4]).unwrap();
        assert!(error(dir.path()).contains("model.safetensors is"), "{}", error(dir.path()));
    }
}
