//! A Hugging Face model folder, opened for reading: `model.safetensors`, or `model.safetensors.index.json` with its
//! shards. Opening reads headers only; a tensor's bytes stay in the memory-mapped file until they are looked at.
//! Must not know architectures or what a tensor is for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::dtype::{Dtype, Float};
use crate::error::{Error, Result};

/// The name of the weights where one file holds them all.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The name of the index where several files hold them.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The weights of one model folder, open for reading.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: Vec<Mmap>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// A tensor as it lies in its file.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// The stored type.
    pub dtype: Dtype,
    /// The extents, slowest axis first.
    pub shape: &'a [usize],
    /// The elements, little endian, row-major.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Counts the elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Folder {
    /// Opens the weights of a model folder; where both forms are there, the single file is read, as transformers does.
    ///
    /// # Errors
    /// A missing folder or file, a truncated file, a bad header or index: each names the file.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NoFolder { folder: path.to_owned() });
        }
        let mut folder = Self { path: path.to_owned(), files: Vec::new(), places: BTreeMap::new() };
        let index = path.join(INDEX_FILE);
        if path.join(SINGLE_FILE).exists() {
            folder.map(SINGLE_FILE)?;
        } else if index.exists() {
            folder.map_shards(&index)?;
        } else {
            return Err(Error::NoWeights { folder: path.to_owned(), found: listing(path) });
        }
        Ok(folder)
    }

    /// Gives the folder's path as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the tensors' names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Says whether a tensor of that name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Gives a tensor's type, shape and bytes without reading them.
    ///
    /// # Errors
    /// No tensor of that name; the error names the most similar one.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>> {
        let place = self.places.get(name).ok_or_else(|| Error::NoTensor {
            folder: self.path.clone(),
            tensor: name.to_owned(),
            nearest: self
                .names()
                .map(|known| (strsim::damerau_levenshtein(known, name), known))
                .min()
                .filter(|(distance, known)| *distance <= known.len() / 3)
                .map(|(_, known)| known.to_owned()),
        })?;
        Ok(TensorView {
            dtype: place.dtype,
            shape: &place.shape,
            bytes: &self.files[place.file][place.start..place.end],
        })
    }

    /// Reads a tensor of floats as single precision: exact for F32, F16 and BF16, rounded once for F64.
    ///
    /// # Errors
    /// No tensor of that name, or one that does not hold floats.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        let view = self.get(name)?;
        let float = Float::of(view.dtype).ok_or_else(|| Error::NotFloat {
            folder: self.path.clone(),
            tensor: name.to_owned(),
            dtype: view.dtype,
        })?;
        Ok((0..view.n_elements())
            .into_par_iter()
            .with_min_len(1 << 16)
            .map(|index| float.decode(view.bytes, index) as f32)
            .collect())
    }

    fn map_shards(&mut self, index: &Path) -> Result<()> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let bad = |reason: String| Error::Index { path: index.to_owned(), reason };
        let text = fs::read(index).map_err(|source| Error::Read { path: index.to_owned(), source })?;
        let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;

        let mut shards: BTreeMap<&str, usize> = BTreeMap::new();
        for shard in weight_map.values() {
            if shards.contains_key(shard.as_str()) {
                continue;
            }
            // A shard is a plain name: an index must not reach outside its folder.
            if Path::new(shard).file_name() != Some(shard.as_ref()) {
                return Err(bad(format!("the shard name \"{shard}\" is not a plain file name")));
            }
            if !self.path.join(shard).exists() {
                return Err(Error::MissingShard { index: index.to_owned(), shard: shard.clone() });
            }
            shards.insert(shard, self.files.len());
            self.map(shard)?;
        }
        for (tensor, shard) in &weight_map {
            let holds = |place: &Place| place.file == shards[shard.as_str()];
            if !self.places.get(tensor).is_some_and(holds) {
                return Err(Error::NotInShard {
                    index: index.to_owned(),
                    tensor: tensor.clone(),
                    shard: shard.clone(),
                });
            }
        }
        self.places.retain(|name, _| weight_map.contains_key(name));
        Ok(())
    }

    fn map(&mut self, file_name: &str) -> Result<()> {
        let path = self.path.join(file_name);
        let read = |source| Error::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read)?;
        // SAFETY: a map is unsafe because another process may change the file under it. Model folders are written
        // once and renamed into place, never changed; a foreign write would give other numbers or end the process.
        #[allow(unsafe_code)]
        let bytes = unsafe { Mmap::map(&file) }.map_err(read)?;
        let (header_len, metadata) = header(&path, &bytes)?;
        let data_start = size_of::<u64>() + header_len;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            self.places.insert(
                name,
                Place {
                    file: self.files.len(),
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    start: data_start + start,
                    end: data_start + end,
                },
            );
        }
        self.files.push(bytes);
        Ok(())
    }
}

fn header(path: &Path, bytes: &[u8]) -> Result<(usize, Metadata)> {
    const AGAIN: &str = "copy or download it again";
    SafeTensors::read_metadata(bytes).map_err(|error| {
        if bytes.starts_with(b"version https://git-lfs") {
            return Error::Header {
                path: path.to_owned(),
                reason: "it is a Git LFS pointer, the weights themselves were not fetched".to_owned(),
                hint: "run `git lfs pull` in the folder it came from",
            };
        }
        match described_len(bytes) {
            Some(expected) if expected != bytes.len() as u64 => {
                Error::Length { path: path.to_owned(), expected, found: bytes.len() as u64 }
            }
            _ => Error::Header { path: path.to_owned(), reason: error.to_string(), hint: AGAIN },
        }
    })
}

/// The length that the header of a broken file describes, as far as it can be read.
fn described_len(bytes: &[u8]) -> Option<u64> {
    /// Longer headers are refused by safetensors, so the first eight bytes are then no length.
    const MAX_HEADER: u64 = 100_000_000;
    let header_len = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    if header_len > MAX_HEADER {
        return None;
    }
    let data_start = 8 + header_len;
    let Some(header) = bytes.get(8..data_start as usize) else {
        return Some(data_start);
    };
    let tensors: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let ends = tensors.values().filter_map(|info| info["data_offsets"][1].as_u64());
    data_start.checked_add(ends.max().unwrap_or(0))
}

/// Up to five file names of a folder, for an error message.
fn listing(folder: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    match names.len() {
        0 => "nothing".to_owned(),
        1..=5 => names.join(", "),
        n => format!("{} and {} more", names[..5].join(", "), n - 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Tensor, write};

    fn two_tensors(max_shard_bytes: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [
            ("a".to_owned(), Tensor::from_f32(Float::F32, &[2, 2], &[1.0, -2.5, 0.0, 4.0]).unwrap()),
            ("b".to_owned(), Tensor::from_f32(Float::BF16, &[3], &[1.0, 0.5, -8.0]).unwrap()),
        ];
        write(dir.path(), tensors, max_shard_bytes).unwrap();
        dir
    }

    #[test]
    fn reads_one_file_and_shards_alike() {
        for max_shard_bytes in [1, 1 << 20] {
            let dir = two_tensors(max_shard_bytes);
            let folder = Folder::open(dir.path()).unwrap();
            assert_eq!(folder.names().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(folder.get("a").unwrap().shape, [2, 2]);
            assert_eq!(folder.get("b").unwrap().dtype, Dtype::BF16);
            assert_eq!(folder.f32("a").unwrap(), [1.0, -2.5, 0.0, 4.0]);
            assert_eq!(folder.f32("b").unwrap(), [1.0, 0.5, -8.0]);
        }
    }

    #[test]
    fn a_truncated_file_says_how_long_it_should_be() {
        let dir = two_tensors(1 << 20);
        let file = dir.path().join(SINGLE_FILE);
        let whole = fs::read(&file).unwrap();
        for keep in [whole.len() - 3, 20] {
            fs::write(&file, &whole[..keep]).unwrap();
            let message = Folder::open(dir.path()).unwrap_err().to_string();
            assert!(message.contains(&format!("is {keep} bytes long")), "{message}");
            assert!(message.contains(SINGLE_FILE) && message.contains("hint:"), "{message}");
        }
        fs::write(&file, b"").unwrap();
        let message = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("not a safetensors file"), "{message}");
    }

    #[test]
    fn a_bad_header_and_a_pointer_are_named() {
        let dir = two_tensors(1 << 20);
        let file = dir.path().join(SINGLE_FILE);
        fs::write(&file, [b"\x04\0\0\0\0\0\0\0".as_slice(), b"nope"].concat()).unwrap();
        let message = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("not a safetensors file"), "{message}");
        fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
        let message = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("git lfs pull"), "{message}");
    }

    #[test]
    fn a_missing_shard_and_a_wrong_index_are_named() {
        let dir = two_tensors(1);
        fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
        let message = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("names the shard \"model-00002-of-00002.safetensors\""), "{message}");

        let index = dir.path().join(INDEX_FILE);
        fs::write(&index, r#"{"weight_map": {"c": "model-00001-of-00002.safetensors"}}"#).unwrap();
        let message = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("places the tensor \"c\""), "{message}");

        fs::write(&index, r#"{"weight_map": {"c": "../x.safetensors"}}"#).unwrap();
        let message = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("not a plain file name"), "{message}");

        fs::write(&index, "[").unwrap();
        assert!(matches!(Folder::open(dir.path()), Err(Error::Index { .. })));
    }

    #[test]
    fn missing_things_are_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pytorch_model.bin"), b"x").unwrap();
        let message = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("found pytorch_model.bin"), "{message}");
        assert!(matches!(Folder::open(&dir.path().join("no")), Err(Error::NoFolder { .. })));

        let dir = tempfile::tempdir().unwrap();
        let tensor = Tensor::from_f32(Float::F32, &[1], &[1.0]).unwrap();
        write(dir.path(), [("model.norm.weight".to_owned(), tensor)], 1 << 20).unwrap();
        let message = Folder::open(dir.path()).unwrap().get("model.norm.weigth").unwrap_err().to_string();
        assert!(message.contains("similar name there is \"model.norm.weight\""), "{message}");
    }
}
