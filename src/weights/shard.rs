//! Writing weights: `model.safetensors`, or numbered shards with an index, as transformers expects them. The bytes
//! depend on names, types, shapes and values alone, and at most one tensor is held in memory at a time.
//! Must not know where the values come from.
//!
//! The rule of the shards is mergekit's (arcee-ai/mergekit, `mergekit/io/tensor_writer.py`): greedy in order, a
//! shard is closed when the next tensor would make it larger than the limit, an index from two shards on. The order
//! is by name. Within a file wider types come first, then names, as in the safetensors library: so every element
//! is aligned to its size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::dtype::{Dtype, Float};
use crate::error::{Error, Result};
use crate::folder::{INDEX_FILE, SINGLE_FILE};

/// The usual limit of a shard (arcee-ai/mergekit, `--out-shard-size` 5B, which means bytes).
pub const DEFAULT_MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// A tensor in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The type of the elements.
    pub dtype: Dtype,
    /// The extents, slowest axis first.
    pub shape: Vec<usize>,
    /// The elements, little endian, row-major.
    pub data: Vec<u8>,
}

impl Tensor {
    /// Makes a tensor of bytes that are already in their stored form.
    ///
    /// # Errors
    /// The number of bytes does not fit type and shape.
    pub fn new(dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Result<Self> {
        let expected = size_bytes(dtype, shape);
        if data.len() as u64 != expected {
            let tensor = format!("{dtype} {shape:?}");
            return Err(Error::Size { tensor, expected, found: data.len() as u64 });
        }
        Ok(Self { dtype, shape: shape.to_vec(), data })
    }

    /// Makes a tensor of single-precision values, rounded to `float` (to the nearest, ties to even).
    ///
    /// # Errors
    /// The number of values does not fit the shape.
    pub fn from_f32(float: Float, shape: &[usize], values: &[f32]) -> Result<Self> {
        Self::new(float.dtype(), shape, float.encode_f32(values))
    }
}

/// What is to be written under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tensor's name.
    pub name: String,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The extents, slowest axis first.
    pub shape: Vec<usize>,
}

impl Entry {
    fn size_bytes(&self) -> u64 {
        size_bytes(self.dtype, &self.shape)
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file names, weights first, then the index if there is one.
    pub files: Vec<String>,
    /// The sum of the tensors' bytes, without headers.
    pub total_bytes: u64,
}

/// Writes tensors that are in memory as the weights of `dir`; see [`write_with`].
///
/// # Errors
/// As [`write_with`].
pub fn write(dir: &Path, tensors: impl IntoIterator<Item = (String, Tensor)>, max_shard_bytes: u64) -> Result<Written> {
    let mut entries = Vec::new();
    let mut data = BTreeMap::new();
    for (name, tensor) in tensors {
        entries.push(Entry { name: name.clone(), dtype: tensor.dtype, shape: tensor.shape });
        data.insert(name, tensor.data);
    }
    write_with(dir, entries, max_shard_bytes, |entry| {
        Ok::<_, Error>(data.remove(&entry.name).expect("every entry has its data, and is asked for once"))
    })
}

/// Writes the weights of `dir`, asking for each tensor's bytes when its turn comes.
///
/// The folder is made if it is missing; weights that it held before are replaced once all new files are complete.
/// `max_shard_bytes` counts tensor bytes without headers; a larger tensor gets a shard of its own.
///
/// # Errors
/// Two entries of one name, bytes that do not fit type and shape, a disk that refuses, or what `produce` returns.
pub fn write_with<E: From<Error>>(
    dir: &Path,
    entries: Vec<Entry>,
    max_shard_bytes: u64,
    mut produce: impl FnMut(&Entry) -> std::result::Result<Vec<u8>, E>,
) -> std::result::Result<Written, E> {
    let shards = plan(entries, max_shard_bytes)?;
    let names = file_names(shards.len());
    fs::create_dir_all(dir).map_err(|source| write_error(dir, source))?;

    let mut partials = Partials(Vec::new());
    for (name, shard) in names.iter().zip(&shards) {
        let path = partials.add(dir, name);
        write_file(&path, shard, &mut produce)?;
    }
    let total_bytes = shards.iter().flatten().map(Entry::size_bytes).sum();
    let mut files = names.clone();
    if shards.len() > 1 {
        let path = partials.add(dir, INDEX_FILE);
        fs::write(&path, index(&names, &shards, total_bytes)).map_err(|source| write_error(&path, source))?;
        files.push(INDEX_FILE.to_owned());
    }
    remove_weights(dir)?;
    partials.publish()?;
    Ok(Written { files, total_bytes })
}

/// Distributes the entries over shards.
fn plan(mut entries: Vec<Entry>, max_shard_bytes: u64) -> Result<Vec<Vec<Entry>>> {
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::Duplicate { tensor: pair[0].name.clone() });
    }
    let mut shards: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut filled = 0;
    for entry in entries {
        let size = entry.size_bytes();
        let last = shards.last_mut().expect("there is always a last shard");
        if !last.is_empty() && filled + size > max_shard_bytes {
            filled = 0;
            shards.push(vec![entry]);
        } else {
            last.push(entry);
        }
        filled += size;
    }
    for shard in &mut shards {
        // Stable: names stay sorted within a width.
        shard.sort_by_key(|entry| std::cmp::Reverse(entry.dtype.bitsize()));
    }
    Ok(shards)
}

fn file_names(n_shards: usize) -> Vec<String> {
    match n_shards {
        1 => vec![SINGLE_FILE.to_owned()],
        n => (1..=n).map(|i| format!("model-{i:05}-of-{n:05}.safetensors")).collect(),
    }
}

fn write_file<E: From<Error>>(
    path: &Path,
    shard: &[Entry],
    produce: &mut impl FnMut(&Entry) -> std::result::Result<Vec<u8>, E>,
) -> std::result::Result<(), E> {
    let failed = |source| write_error(path, source);
    let mut file = File::create(path).map_err(failed)?;
    file.write_all(&header(shard)).map_err(failed)?;
    for entry in shard {
        let bytes = produce(entry)?;
        if bytes.len() as u64 != entry.size_bytes() {
            let (tensor, expected) = (entry.name.clone(), entry.size_bytes());
            return Err(Error::Size { tensor, expected, found: bytes.len() as u64 }.into());
        }
        file.write_all(&bytes).map_err(failed)?;
    }
    Ok(())
}

/// The length and the JSON text that begin a safetensors file, padded with spaces to a multiple of eight bytes.
fn header(shard: &[Entry]) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for entry in shard {
        let end = start + entry.size_bytes();
        let info = json!({"dtype": entry.dtype.to_string(), "shape": entry.shape, "data_offsets": [start, end]});
        fields.insert(entry.name.clone(), info);
        start = end;
    }
    let mut text = Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(size_of::<u64>()), b' ');
    [(text.len() as u64).to_le_bytes().as_slice(), &text].concat()
}

fn index(names: &[String], shards: &[Vec<Entry>], total_bytes: u64) -> String {
    let mut places = BTreeMap::new();
    for (name, shard) in names.iter().zip(shards) {
        places.extend(shard.iter().map(|entry| (entry.name.as_str(), name.as_str())));
    }
    let index = json!({"metadata": {"total_size": total_bytes}, "weight_map": places});
    format!("{index:#}\n")
}

fn size_bytes(dtype: Dtype, shape: &[usize]) -> u64 {
    let n: u64 = shape.iter().map(|&extent| extent as u64).product();
    (n * dtype.bitsize() as u64).div_ceil(8)
}

fn write_error(path: &Path, source: std::io::Error) -> Error {
    Error::Write { path: path.to_owned(), source }
}

/// Removes what `write_with` may have written earlier, so that no old index or shard is left beside the new ones.
fn remove_weights(dir: &Path) -> Result<()> {
    let listed = fs::read_dir(dir).map_err(|source| Error::Read { path: dir.to_owned(), source })?;
    let mut old = BTreeSet::new();
    for entry in listed {
        let entry = entry.map_err(|source| Error::Read { path: dir.to_owned(), source })?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_shard = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
        let is_shard = is_shard.and_then(|rest| rest.split_once("-of-")).is_some_and(|(i, n)| {
            [i, n].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        });
        if is_shard || name == SINGLE_FILE || name == INDEX_FILE {
            old.insert(entry.path());
        }
    }
    old.iter().try_for_each(|path| fs::remove_file(path).map_err(|source| write_error(path, source)))
}

/// Files under their temporary names; those not published are removed.
struct Partials(Vec<(PathBuf, PathBuf)>);

impl Partials {
    fn add(&mut self, dir: &Path, name: &str) -> PathBuf {
        let partial = dir.join(format!("{name}.partial"));
        self.0.push((partial.clone(), dir.join(name)));
        partial
    }

    fn publish(mut self) -> Result<()> {
        for (partial, path) in std::mem::take(&mut self.0) {
            fs::rename(&partial, &path).map_err(|source| write_error(&path, source))?;
        }
        Ok(())
    }
}

impl Drop for Partials {
    fn drop(&mut self) {
        for (partial, _) in &self.0 {
            // A file that cannot be removed either is the smaller of the two problems, and the first one is reported.
            let _ = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    fn bytes_of(name: &str, n: usize) -> (String, Tensor) {
        (name.to_owned(), Tensor::new(Dtype::U8, &[n], vec![7; n]).unwrap())
    }

    #[test]
    fn shards_follow_the_golden_rule() {
        let text = include_str!("../../tests/golden/merge_sharding.json");
        let golden: Value = serde_json::from_str(text).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let dir = tempfile::tempdir().unwrap();
            let tensors = case["input"]["tensors_in_write_order"].as_array().unwrap().iter();
            let tensors = tensors.map(|t| bytes_of(t["name"].as_str().unwrap(), t["bytes"].as_u64().unwrap() as usize));
            let limit = case["params"]["max_shard_bytes"].as_u64().unwrap();
            let written = write(dir.path(), tensors, limit).unwrap();

            let expected = &case["expected"];
            assert_eq!(json!(written.files), expected["files"]);
            assert_eq!(json!(written.total_bytes), expected["total_size"]);
            if written.files.len() > 1 {
                let index: Value = serde_json::from_slice(&fs::read(dir.path().join(INDEX_FILE)).unwrap()).unwrap();
                assert_eq!(index["weight_map"], expected["weight_map"]);
                assert_eq!(index["metadata"]["total_size"], expected["total_size"]);
            }
        }
    }

    #[test]
    fn bytes_do_not_depend_on_order_and_elements_are_aligned() {
        let tensors = || {
            vec![
                ("a".to_owned(), Tensor::from_f32(Float::BF16, &[3], &[1.0, 2.0, 3.0]).unwrap()),
                ("b".to_owned(), Tensor::from_f32(Float::F32, &[1], &[0.5]).unwrap()),
                ("c".to_owned(), Tensor::from_f32(Float::F64, &[], &[0.25]).unwrap()),
            ]
        };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), tensors(), 1 << 20).unwrap();
        write(two.path(), tensors().into_iter().rev(), 1 << 20).unwrap();
        let text = fs::read(one.path().join(SINGLE_FILE)).unwrap();
        assert_eq!(text, fs::read(two.path().join(SINGLE_FILE)).unwrap());
        let start = text.windows(22).position(|w| w == br#""__metadata__":{"forma"#).unwrap();
        assert_eq!(start, 9);

        let folder = Folder::open(one.path()).unwrap();
        for name in ["a", "b", "c"] {
            let view = folder.get(name).unwrap();
            let offset = view.bytes.as_ptr() as usize;
            assert_eq!(offset % (view.dtype.bitsize() / 8), 0, "{name}");
        }
        assert_eq!(folder.get("c").unwrap().shape, [] as [usize; 0]);
        assert_eq!(folder.f32("c").unwrap(), [0.25]);
    }

    #[test]
    fn writing_again_leaves_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [bytes_of("a", 4), bytes_of("b", 4)], 4).unwrap();
        write(dir.path(), [bytes_of("a", 4)], 4).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [SINGLE_FILE]);
    }

    #[test]
    fn a_failing_producer_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry { name: "a".to_owned(), dtype: Dtype::U8, shape: vec![2] };
        let error = write_with(dir.path(), vec![entry.clone()], 9, |_| Ok::<_, Error>(vec![1])).unwrap_err();
        assert_eq!(error.to_string(), "the tensor \"a\" has 1 bytes, its type and shape need 2");
        assert!(matches!(
            write_with(dir.path(), vec![entry.clone(), entry], 9, |_| Ok::<_, Error>(vec![1, 2])),
            Err(Error::Duplicate { .. })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
