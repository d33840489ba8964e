//! Digests of files' bytes: read in large pieces, one ahead of the hashing, and
//! never through a memory map, where a disk that cannot be read ends the process
//! without a word.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::channel;

use fuseline_contract::Digest;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Bytes that are read at once.
const PIECE: usize = 8 << 20;
/// From so many bytes on, all cores hash.
const MANY: usize = 256 << 10;

/// Digests a file's bytes.
pub fn file(path: &Path) -> Result<Digest> {
    let external = |source| Error::External { path: path.to_owned(), source };
    read(path, &File::open(path).map_err(external)?, &[], None).map(|passed| passed.whole)
}

/// What was hashed on the way.
pub(crate) struct Passed {
    /// All bytes.
    pub whole: Digest,
    /// Those of each part.
    pub parts: Vec<[u8; 32]>,
}

/// Where the bytes go besides.
pub(crate) type Sink<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<()> + Send);

/// Reads a file from where it stands to its end, once, and hashes all of it and
/// parts of it, which are sorted by their start; `sink` gets every byte too.
pub(crate) fn read(path: &Path, file: &File, parts: &[Range<u64>], sink: Option<Sink<'_>>) -> Result<Passed> {
    let failed = |source| Error::External { path: path.to_owned(), source };
    let size = file.metadata().map_err(failed)?.len();
    pass(file, size, parts, sink, &failed)
}

fn pass(
    source: impl Read + Send,
    size: u64,
    parts: &[Range<u64>],
    mut sink: Option<Sink<'_>>,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<Passed> {
    let mut whole = blake3::Hasher::new();
    let mut hashers = vec![blake3::Hasher::new(); parts.len()];
    let (mut at, mut first) = (0, 0);
    pieces(source, size, failed, |piece| {
        let end = at + piece.len() as u64;
        let last = parts.partition_point(|part| part.start < end);
        let mut hash = || {
            rayon::join(
                || update(&mut whole, piece),
                || {
                    parts[first..last].par_iter().zip(&mut hashers[first..last]).for_each(|(part, hasher)| {
                        let from = part.start.saturating_sub(at) as usize;
                        let to = part.end.min(end).saturating_sub(at) as usize;
                        update(hasher, piece.get(from..to).unwrap_or_default());
                    });
                },
            );
        };
        match &mut sink {
            None => hash(),
            Some(sink) => std::thread::scope(|scope| {
                let sunk = scope.spawn(|| sink(piece));
                hash();
                sunk.join().expect("what takes the bytes does not panic")
            })?,
        }
        first += parts[first..last].iter().take_while(|part| part.end <= end).count();
        at = end;
        Ok(())
    })?;
    let whole = Digest { hash: *whole.finalize().as_bytes(), size: at };
    Ok(Passed { whole, parts: hashers.iter().map(|hasher| *hasher.finalize().as_bytes()).collect() })
}

fn update(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    match bytes.len() >= MANY {
        true => hasher.update_rayon(bytes),
        false => hasher.update(bytes),
    };
}

/// Hands out all bytes of a source in pieces; the next is read meanwhile.
fn pieces(
    mut source: impl Read + Send,
    size: u64,
    failed: &dyn Fn(io::Error) -> Error,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut piece = Vec::with_capacity(size.min(PIECE as u64) as usize + 1);
    fill(&mut source, &mut piece).map_err(failed)?;
    let is_last = |piece: &Vec<u8>| piece.len() < PIECE;
    if is_last(&piece) {
        return take(&piece);
    }
    let (give, given) = channel::<io::Result<Vec<u8>>>();
    let (give_back, given_back) = channel();
    std::thread::scope(move |scope| {
        scope.spawn(move || {
            while let Ok(mut piece) = given_back.recv() {
                let read = fill(&mut source, &mut piece).map(|()| piece);
                let ends = read.as_ref().map_or(true, is_last);
                // Nobody takes it where taking failed.
                if give.send(read).is_err() || ends {
                    return;
                }
            }
        });
        for _ in 0..2 {
            let _ = give_back.send(Vec::with_capacity(PIECE));
        }
        loop {
            take(&piece)?;
            if is_last(&piece) {
                return Ok(());
            }
            // The thread has ended if it gave the last piece.
            let _ = give_back.send(piece);
            piece = given.recv().expect("it gives until the end").map_err(failed)?;
        }
    })
}

/// Reads a piece; a short one is the last.
fn fill(source: &mut impl Read, piece: &mut Vec<u8>) -> io::Result<()> {
    piece.clear();
    source.by_ref().take(PIECE as u64).read_to_end(piece).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that fails after so many bytes, or ends there.
    struct Disk {
        left: usize,
        fails: bool,
    }

    impl Read for Disk {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(self.left).min(1 << 20);
            if n == 0 && self.fails && !buffer.is_empty() {
                return Err(nix::errno::Errno::EIO.into());
            }
            buffer[..n].iter_mut().enumerate().for_each(|(i, byte)| *byte = (self.left - i) as u8);
            self.left -= n;
            Ok(n)
        }
    }

    fn external(source: io::Error) -> Error {
        Error::External { path: "weights".into(), source }
    }

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (n - i) as u8).collect()
    }

    #[test]
    fn whole_and_parts_are_hashed_and_passed_on_whatever_the_size() {
        for n in [0, 1, 1 << 20, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 77] {
            let (all, n) = (bytes(n), n as u64);
            let parts = [0..n / 3, n / 3..n / 2, n / 2..n / 2, n / 4..n, n - n.min(5)..n];
            let mut parts = parts.to_vec();
            parts.sort_by_key(|part| part.start);
            let mut copy: Vec<u8> = Vec::new();
            let mut sink = |piece: &[u8]| {
                copy.extend(piece);
                Ok(())
            };
            let disk = Disk { left: all.len(), fails: false };
            let passed = pass(disk, n, &parts, Some(&mut sink), &external).expect("read");
            assert_eq!(passed.whole, Digest::of_bytes(&all), "{n}");
            for (part, hash) in parts.iter().zip(&passed.parts) {
                let expected = blake3::hash(&all[part.start as usize..part.end as usize]);
                assert_eq!(hash, expected.as_bytes(), "{part:?} of {n}");
            }
            assert!(copy == all, "{n}");
        }
    }

    #[test]
    fn a_disk_that_fails_is_an_error_with_the_name_of_the_file() {
        for left in [0, 5, PIECE, 2 * PIECE + 5] {
            let disk = Disk { left, fails: true };
            let error = pass(disk, 3 * PIECE as u64, &[], None, &external).err().expect("it fails");
            let text = error.to_string();
            assert!(text.contains("weights") && text.contains("Input/output error"), "{text}");
        }
    }

    #[test]
    fn a_sink_that_fails_ends_the_reading() {
        let disk = Disk { left: 4 * PIECE, fails: false };
        let mut sink = |_: &[u8]| Err(external(nix::errno::Errno::ENOSPC.into()));
        let error = pass(disk, 0, &[], Some(&mut sink), &external).err().expect("it fails");
        assert!(error.to_string().contains("No space left"), "{error}");
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_hashed_is_another_file_and_no_crash() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(3 * PIECE as u64).expect("grown");
        let mut sink = |_: &[u8]| {
            file.as_file().set_len(PIECE as u64).expect("cut");
            Ok(())
        };
        let opened = File::open(file.path()).expect("there");
        let passed = read(file.path(), &opened, &[], Some(&mut sink)).expect("what is left is read");
        assert!(passed.whole.size < 3 * PIECE as u64, "{:?}", passed.whole);
    }
}
