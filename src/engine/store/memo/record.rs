//! One remembered row as bytes, and finding the whole rows in a file of them.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | mark: [`MARK`] xor length; a damaged length shows at once |
//! | 4 | length of the row; the top bit: it replaces earlier ones of its key |
//! | 32 | key |
//! | 8 | check: the first bytes of BLAKE3 over length, key and row |
//! | length | the row |
//!
//! Numbers are little-endian. A file is records one after the other; a file of
//! a later format has another mark, so nothing in it is taken for a row.

use fuseline_contract::RowKey;

/// Names the format.
const MARK: u32 = 0x316d_6d66; // "fmm1"
/// Bytes before the row.
pub(crate) const HEAD: usize = 48;
/// The longest row.
pub(crate) const MAX_ROW: usize = (1 << 30) - 1;
const REPLACES: u32 = 1 << 31;

/// A record that was read and is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Its key.
    pub key: RowKey,
    /// It answers in place of earlier ones.
    pub replaces: bool,
    /// The row.
    pub row: &'a [u8],
}

fn check(length: u32, key: &RowKey, row: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length.to_le_bytes()).update(&key.0).update(row);
    hasher.finalize().as_bytes()[..8].try_into().expect("eight of 32 bytes")
}

/// Appends a record; the row is at most [`MAX_ROW`] long.
pub(crate) fn encode(key: &RowKey, replaces: bool, row: &[u8], out: &mut Vec<u8>) {
    let length = row.len() as u32 | if replaces { REPLACES } else { 0 };
    out.extend((MARK ^ length).to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(key.0);
    out.extend(check(length, key, row));
    out.extend(row);
}

/// Reads the record that begins here; nothing if it is not whole.
pub(crate) fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (mark, length) = (number(0)?, number(4)?);
    if mark != MARK ^ length {
        return None;
    }
    let key = RowKey(bytes.get(8..40)?.try_into().ok()?);
    let row = bytes.get(HEAD..)?.get(..(length & !REPLACES) as usize)?;
    let whole = check(length, &key, row) == bytes[40..HEAD];
    whole.then_some(Record { key, replaces: length & REPLACES != 0, row })
}

/// Finds every whole record with its offset, also behind a damaged one; gives
/// the end of the last.
pub(crate) fn scan<'a>(bytes: &'a [u8], mut found: impl FnMut(usize, Record<'a>)) -> usize {
    let (mut at, mut end) = (0, 0);
    while at + HEAD <= bytes.len() {
        match decode(&bytes[at..]) {
            Some(record) => {
                found(at, record);
                at += HEAD + record.row.len();
                end = at;
            }
            // Where a record is torn or damaged, the next may begin anywhere.
            None => at += 1,
        }
    }
    end
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> RowKey {
        RowKey(blake3::derive_key("toy rows", &number.to_le_bytes()))
    }

    /// Records of rows of these lengths, and where each begins.
    pub(crate) fn file(lengths: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (number, length) in lengths.iter().enumerate() {
            starts.push(bytes.len());
            encode(&key(number as u64), number % 3 == 2, &vec![number as u8; *length], &mut bytes);
        }
        (bytes, starts)
    }

    fn starts(bytes: &[u8]) -> (Vec<usize>, usize) {
        let mut found = Vec::new();
        let end = scan(bytes, |at, _| found.push(at));
        (found, end)
    }

    #[test]
    fn records_survive_their_bytes() {
        let (bytes, expected) = file(&[5, 0, 300]);
        let mut rows = Vec::new();
        let end = scan(&bytes, |at, record| rows.push((at, record)));
        assert_eq!(end, bytes.len());
        assert_eq!(rows.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
        assert_eq!(rows[2].1, Record { key: key(2), replaces: true, row: &[2; 300] });
    }

    #[test]
    fn a_file_cut_anywhere_keeps_all_whole_records() {
        let (bytes, all) = file(&[5, 0, 60, 1, 17]);
        let ends: Vec<usize> = all.iter().skip(1).copied().chain([bytes.len()]).collect();
        for length in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= length).count();
            let (found, end) = starts(&bytes[..length]);
            assert_eq!(found, all[..whole], "cut at {length}");
            assert_eq!(end, whole.checked_sub(1).map_or(0, |last| ends[last]), "cut at {length}");
        }
    }

    #[test]
    fn a_flipped_bit_costs_the_record_it_is_in_and_no_other() {
        let (bytes, all) = file(&[5, 0, 60, 1, 17]);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                let hit = all.iter().rposition(|start| *start <= place).expect("a record");
                let rest: Vec<usize> = all.iter().copied().filter(|start| *start != all[hit]).collect();
                assert_eq!(starts(&damaged).0, rest, "bit {bit} of byte {place}");
            }
        }
    }

    proptest! {
        /// Nothing panics, and what is found was written.
        #[test]
        fn any_bytes_can_be_scanned(
            lengths in proptest::collection::vec(0usize..40, 0..8),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let (written, _) = file(&lengths);
            let mut bytes = written.clone();
            bytes.extend(noise);
            for (place, byte) in edits {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            let mut known = std::collections::HashMap::new();
            scan(&written, |_, record| {
                known.insert(record.key, record);
            });
            let mut last = 0;
            let end = scan(&bytes, |at, record| {
                assert!(at >= last);
                assert_eq!(known.get(&record.key), Some(&record));
                last = at + HEAD + record.row.len();
            });
            prop_assert!(end == last && end <= bytes.len());
        }
    }
}
