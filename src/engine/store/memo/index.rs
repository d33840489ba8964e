//! Where the rows of a segment lie: sorted entries, in memory for a segment
//! that is being written, in a file beside one that is complete.
//!
//! ```text
//! magic 16, entries u64, covered u64      covered: bytes of the segment
//! entries, 28 bytes each                  prefix u128, offset u64, length u32 (top bit: replaces)
//! one fence a block of 256 entries        first prefix u128, check of the block u64
//! check u64                               of everything but the entries
//! ```
//!
//! The prefix is the first half of a key, big-endian; other numbers are
//! little-endian. A look-up reads the fences and those blocks that may hold a
//! wanted key, so its cost follows what is asked, not what is remembered.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use fuseline_contract::RowKey;

const MAGIC: [u8; 16] = *b"fuseline index 1";
const BLOCK: usize = 256;
const ENTRY: usize = 28;
const FENCE: usize = 24;
const HEAD: usize = 32;
const REPLACES: u32 = 1 << 31;

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first half of its key.
    pub prefix: u128,
    /// Where its record begins.
    pub offset: u64,
    /// The record's length.
    pub length: u32,
    /// It answers in place of earlier ones.
    pub replaces: bool,
}

/// The first half of a key, which names it: no two of 10^15 rows share it.
pub(crate) fn prefix(key: &RowKey) -> u128 {
    u128::from_be_bytes(key.0[..16].try_into().expect("16 of 32 bytes"))
}

/// Sorts entries that stand in the order of writing, and leaves of every key
/// the one that answers: the first, or the last that replaces.
pub(crate) fn settle(entries: &mut Vec<Entry>) {
    // Stable, so that entries of one key stay in the order of writing.
    entries.sort_by_key(|entry| entry.prefix);
    entries.dedup_by(|later, chosen| {
        let same = later.prefix == chosen.prefix;
        if same && later.replaces {
            *chosen = *later;
        }
        same
    });
}

/// The bytes of an index file over settled entries.
pub(crate) fn encode(entries: &[Entry], covered: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + entries.len() * ENTRY + entries.len().div_ceil(BLOCK) * FENCE + 8);
    bytes.extend(MAGIC);
    bytes.extend((entries.len() as u64).to_le_bytes());
    bytes.extend(covered.to_le_bytes());
    let mut fences = Vec::new();
    for block in entries.chunks(BLOCK) {
        let start = bytes.len();
        for entry in block {
            let length = entry.length | if entry.replaces { REPLACES } else { 0 };
            bytes.extend(entry.prefix.to_be_bytes());
            bytes.extend(entry.offset.to_le_bytes());
            bytes.extend(length.to_le_bytes());
        }
        fences.extend(block[0].prefix.to_be_bytes());
        fences.extend(check(&[&bytes[start..]]).to_le_bytes());
    }
    let whole = check(&[&bytes[..HEAD], &fences]);
    bytes.extend(fences);
    bytes.extend(whole.to_le_bytes());
    bytes
}

fn check(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    number(&hasher.finalize().as_bytes()[..8])
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn half_key(bytes: &[u8]) -> u128 {
    u128::from_be_bytes(bytes.try_into().expect("16 bytes"))
}

/// An index file, open.
pub(crate) struct Index {
    file: File,
    entries: usize,
    /// First prefix and check of every block.
    fences: Vec<(u128, u64)>,
    /// Bytes of the segment that the index knows.
    pub covered: u64,
}

impl Index {
    /// Opens an index file; nothing if it is damaged or of a later format.
    pub(crate) fn open(file: File) -> io::Result<Option<Self>> {
        let size = file.metadata()?.len();
        let mut head = [0; HEAD];
        if size < HEAD as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut head, 0)?;
        let (entries, covered) = (number(&head[16..24]), number(&head[24..]));
        let blocks = entries.div_ceil(BLOCK as u64);
        // A damaged count must neither overflow nor be allocated for.
        let expected = entries
            .checked_mul(ENTRY as u64)
            .and_then(|bytes| bytes.checked_add(blocks.checked_mul(FENCE as u64)?))
            .and_then(|bytes| bytes.checked_add(HEAD as u64 + 8));
        if head[..16] != MAGIC || expected != Some(size) {
            return Ok(None);
        }
        let mut tail = vec![0; blocks as usize * FENCE + 8];
        file.read_exact_at(&mut tail, HEAD as u64 + entries * ENTRY as u64)?;
        let (fences, stored) = tail.split_at(blocks as usize * FENCE);
        if check(&[&head, fences]) != number(stored) {
            return Ok(None);
        }
        let fences = fences.chunks_exact(FENCE).map(|fence| (half_key(&fence[..16]), number(&fence[16..])));
        Ok(Some(Self { file, entries: entries as usize, fences: fences.collect(), covered }))
    }

    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Reads a block; nothing if it is damaged.
    fn block(&self, block: usize) -> io::Result<Option<Vec<Entry>>> {
        let first = block * BLOCK;
        let mut bytes = vec![0; (self.entries - first).min(BLOCK) * ENTRY];
        self.file.read_exact_at(&mut bytes, (HEAD + first * ENTRY) as u64)?;
        if check(&[&bytes]) != self.fences[block].1 {
            return Ok(None);
        }
        let entry = |bytes: &[u8]| {
            let length = u32::from_le_bytes(bytes[24..].try_into().expect("four bytes"));
            Entry {
                prefix: half_key(&bytes[..16]),
                offset: number(&bytes[16..24]),
                length: length & !REPLACES,
                replaces: length & REPLACES != 0,
            }
        };
        Ok(Some(bytes.chunks_exact(ENTRY).map(entry).collect()))
    }

    /// Every entry, in order; nothing if a block is damaged.
    pub(crate) fn all(&self) -> io::Result<Option<Vec<Entry>>> {
        let mut entries = Vec::with_capacity(self.entries);
        for block in 0..self.fences.len() {
            match self.block(block)? {
                Some(block) => entries.extend(block),
                None => return Ok(None),
            }
        }
        Ok(Some(entries))
    }

    /// Finds sorted prefixes; false if a block that was needed is damaged.
    pub(crate) fn find(&self, wanted: &[u128], found: &mut dyn FnMut(usize, Entry)) -> io::Result<bool> {
        let mut from = 0;
        while from < wanted.len() {
            let after = self.fences.partition_point(|(first, _)| *first <= wanted[from]);
            let end = self
                .fences
                .get(after)
                .map_or(wanted.len(), |(next, _)| from + wanted[from..].partition_point(|prefix| prefix < next));
            if let Some(block) = after.checked_sub(1) {
                let Some(entries) = self.block(block)? else { return Ok(false) };
                find(&entries, &wanted[from..end], &mut |place, entry| found(from + place, entry));
            }
            from = end;
        }
        Ok(true)
    }
}

/// Finds sorted prefixes in settled entries.
pub(crate) fn find(entries: &[Entry], wanted: &[u128], found: &mut dyn FnMut(usize, Entry)) {
    let mut rest = entries;
    for (place, prefix) in wanted.iter().enumerate() {
        rest = &rest[rest.partition_point(|entry| entry.prefix < *prefix)..];
        if let Some(entry) = rest.first().filter(|entry| entry.prefix == *prefix) {
            found(place, *entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entries(n: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..n)
            .map(|i| Entry {
                prefix: prefix(&RowKey(blake3::derive_key("toy rows", &i.to_le_bytes()))),
                offset: i * 100,
                length: 100,
                replaces: i % 5 == 0,
            })
            .collect();
        settle(&mut entries);
        entries
    }

    fn open(bytes: &[u8]) -> Option<Index> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        Index::open(file).expect("readable")
    }

    fn found(index: &Index, wanted: &[u128]) -> Option<Vec<(usize, Entry)>> {
        let mut all = Vec::new();
        let whole = index.find(wanted, &mut |place, entry| all.push((place, entry))).expect("readable");
        whole.then_some(all)
    }

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        for n in [0, 1, 255, 256, 257, 1000] {
            let entries = entries(n);
            let index = open(&encode(&entries, 7)).expect("an index");
            assert_eq!(index.covered, 7);
            assert_eq!(index.all().expect("readable").expect("whole"), entries);
            let wanted: Vec<u128> = entries.iter().map(|entry| entry.prefix).collect();
            let expected: Vec<(usize, Entry)> = entries.iter().copied().enumerate().collect();
            assert_eq!(found(&index, &wanted).expect("whole"), expected, "{n}");
            let absent: Vec<u128> = [0].into_iter().chain(wanted.iter().map(|prefix| prefix + 1)).collect();
            assert_eq!(found(&index, &absent).expect("whole"), [], "{n}");
            // Asked twice, found twice; one alone is found too.
            for (place, entry) in expected.iter().step_by(97) {
                let twice = [entries[*place].prefix; 2];
                assert_eq!(found(&index, &twice).expect("whole"), [(0, *entry), (1, *entry)]);
            }
        }
    }

    #[test]
    fn the_first_of_a_key_answers_unless_a_later_one_replaces_it() {
        let entry = |prefix, offset, replaces| Entry { prefix, offset, length: 1, replaces };
        let mut entries = vec![
            entry(2, 0, false),
            entry(1, 1, false),
            entry(2, 2, false),
            entry(3, 3, false),
            entry(3, 4, true),
            entry(3, 5, true),
            entry(3, 6, false),
        ];
        settle(&mut entries);
        assert_eq!(entries, [entry(1, 1, false), entry(2, 0, false), entry(3, 5, true)]);
    }

    #[test]
    fn a_flipped_byte_or_another_length_is_noticed() {
        let entries = entries(300);
        let wanted: Vec<u128> = entries.iter().map(|entry| entry.prefix).collect();
        let bytes = encode(&entries, 7);
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            let index = open(&damaged);
            assert!(index.is_none_or(|index| found(&index, &wanted).is_none()), "byte {place}");
        }
        for length in (0..bytes.len()).step_by(13) {
            assert!(open(&bytes[..length]).is_none(), "cut at {length}");
        }
        assert!(open(&[bytes.as_slice(), &[0]].concat()).is_none());
    }
}
