//! Byte-pair merges learned from counted words, in one order only: equal counts are decided by the ids of the pair,
//! so neither threads nor a hash map's order can change a byte of the result.
//!
//! Sennrich, Haddow and Birch 2016 (arXiv 1508.07909), algorithm 1, with the usual incremental counts. It must not
//! know files or how words were cut from texts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

/// The learned part of a vocabulary.
pub(super) struct Merges {
    /// Tokens by id, those given first.
    pub tokens: Vec<String>,
    /// Pairs of tokens in the order in which they are merged.
    pub merges: Vec<(String, String)>,
}

type Pair = (u32, u32);

struct Word {
    symbols: Vec<u32>,
    count: i64,
}

/// Learns merges until the vocabulary has `vocab_size` tokens or no pair occurs `min_frequency` times.
///
/// `first` are the tokens that stand at the front and are never made or split by merges (special tokens, byte
/// tokens); `alphabet` are the characters after them. Characters of words that are not in the alphabet end a run.
pub(super) fn learn(
    first: &[String],
    alphabet: &[char],
    words: &BTreeMap<String, u64>,
    vocab_size: usize,
    min_frequency: u64,
) -> Merges {
    let mut tokens: Vec<String> = first.to_vec();
    let reserved: HashSet<String> = first.iter().cloned().collect();
    let mut ids: HashMap<String, u32> = HashMap::new();
    let mut letters: HashMap<char, u32> = HashMap::new();
    for letter in alphabet {
        letters.insert(*letter, tokens.len() as u32);
        ids.insert(letter.to_string(), tokens.len() as u32);
        tokens.push(letter.to_string());
    }

    let mut words = runs(words, &letters);
    let mut counts: HashMap<Pair, i64> = HashMap::new();
    let mut places: HashMap<Pair, Vec<u32>> = HashMap::new();
    for (index, word) in words.iter().enumerate() {
        for pair in word.symbols.windows(2) {
            let pair = (pair[0], pair[1]);
            *counts.entry(pair).or_default() += word.count;
            places.entry(pair).or_default().push(index as u32);
        }
    }
    // The heap's order is total on (count, pair): what is pushed when does not matter.
    let mut heap: BinaryHeap<(i64, Reverse<Pair>)> =
        counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
    let mut merges = Vec::new();

    while tokens.len() < vocab_size {
        let Some((count, Reverse(pair))) = heap.pop() else {
            break;
        };
        let now = counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            if now > 0 {
                heap.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < min_frequency.max(1) as i64 {
            break;
        }
        let (left, right) = (tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone());
        let joined = format!("{left}{right}");
        let mut indices = places.remove(&pair).unwrap_or_default();
        counts.remove(&pair);
        if reserved.contains(&joined) {
            continue;
        }
        let id = *ids.entry(joined.clone()).or_insert_with(|| {
            tokens.push(joined);
            tokens.len() as u32 - 1
        });
        merges.push((left, right));

        indices.sort_unstable();
        indices.dedup();
        let mut grown: HashSet<Pair> = HashSet::new();
        for index in indices {
            let word = &mut words[index as usize];
            let after = merged(&word.symbols, pair, id);
            if after.len() == word.symbols.len() {
                continue;
            }
            for old in word.symbols.windows(2) {
                let old = (old[0], old[1]);
                if old != pair
                    && let Some(count) = counts.get_mut(&old)
                {
                    *count -= word.count;
                }
            }
            for new in after.windows(2) {
                let new = (new[0], new[1]);
                *counts.entry(new).or_default() += word.count;
                if new.0 == id || new.1 == id {
                    places.entry(new).or_default().push(index);
                    grown.insert(new);
                }
            }
            word.symbols = after;
        }
        heap.extend(grown.into_iter().map(|pair| (counts[&pair], Reverse(pair))));
    }
    Merges { tokens, merges }
}

/// The words as ids, cut where a character is not in the alphabet; single symbols are of no use.
fn runs(words: &BTreeMap<String, u64>, letters: &HashMap<char, u32>) -> Vec<Word> {
    let mut out = Vec::new();
    for (word, count) in words {
        let mut symbols = Vec::new();
        for letter in word.chars().map(Some).chain([None]) {
            match letter.and_then(|letter| letters.get(&letter)) {
                Some(id) => symbols.push(*id),
                None => {
                    let symbols = std::mem::take(&mut symbols);
                    if symbols.len() > 1 {
                        out.push(Word { symbols, count: *count as i64 });
                    }
                }
            }
        }
    }
    out
}

fn merged(symbols: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(symbols.len());
    let mut index = 0;
    while index < symbols.len() {
        if index + 1 < symbols.len() && (symbols[index], symbols[index + 1]) == pair {
            out.push(id);
            index += 2;
        } else {
            out.push(symbols[index]);
            index += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_by_count_then_by_ids() {
        // ab ×3, bc ×3 (all in "abc" ×3), xy ×5: xy first; then ab and bc tie at 3 and the lower ids, ab, win;
        // then (ab, c) ×3.
        let words = BTreeMap::from([("abc".to_string(), 3), ("xy".to_string(), 5)]);
        let learned = learn(&[], &['a', 'b', 'c', 'x', 'y'], &words, 100, 2);
        assert_eq!(learned.tokens[5..], ["xy", "ab", "abc"]);
        let pair = |left: &str, right: &str| (left.to_string(), right.to_string());
        assert_eq!(learned.merges, [pair("x", "y"), pair("a", "b"), pair("ab", "c")]);
    }

    #[test]
    fn overlapping_pairs_and_unknown_letters() {
        // "aaaa" holds aa three times over, but merges to two; "b" is not in the alphabet and cuts the word.
        let words = BTreeMap::from([("aaaabaa".to_string(), 2)]);
        let learned = learn(&["<0x00>".to_string()], &['a'], &words, 100, 2);
        assert_eq!(learned.tokens, ["<0x00>", "a", "aa", "aaaa"]);
    }

    #[test]
    fn never_makes_a_reserved_token() {
        let words = BTreeMap::from([("<s>".to_string(), 9)]);
        let learned = learn(&["<s>".to_string()], &['<', 's', '>'], &words, 100, 1);
        assert_eq!(learned.tokens, ["<s>", "<", "s", ">", "<s"]);
    }
}
