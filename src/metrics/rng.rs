//! Random numbers as a function of a key and a counter, so that a draw depends
//! on nothing but its place: no global state, no clock, no thread.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood: Fast splittable
//! pseudorandom number generators, OOPSLA 2014; the finaliser is David
//! Stafford's variant 13). Draw `i` of key `k` is `mix(k + (i + 1) * GAMMA)`.
//! It is good enough to draw problems and resamples; it is no cryptography.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes 64 bits: a bijection in which every input bit reaches every output bit.
pub const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Hashes a text to 64 bits: FNV-1a, then [`mix`], because the low bits of
/// FNV alone follow the last characters. The value never changes.
pub fn hash(text: &str) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Rng {
    key: u64,
    counter: u64,
}

impl Rng {
    /// The stream of a key.
    pub const fn new(key: u64) -> Self {
        Self { key, counter: 0 }
    }

    /// The stream of a seed for one purpose; streams of different labels have nothing in common.
    pub fn labelled(seed: u64, label: &str) -> Self {
        Self::new(mix(seed.wrapping_add(GAMMA)) ^ hash(label))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GAMMA)))
    }

    /// A whole number in `0..bound`, each equally likely (Lemire's multiplication with rejection,
    /// ACM TOMACS 2019). A bound of zero counts as one.
    pub fn below(&mut self, bound: u64) -> u64 {
        let bound = bound.max(1);
        let reject_below = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.bits()) * u128::from(bound);
            if wide as u64 >= reject_below {
                return (wide >> 64) as u64;
            }
        }
    }

    /// A position in a list of `n`, each equally likely; 0 for an empty list.
    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// A whole number in `low..=high`, each equally likely.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// `n` different characters of an ASCII alphabet in random order, all of them if it has fewer.
    pub fn distinct(&mut self, alphabet: &str, n: usize) -> Vec<char> {
        let mut letters: Vec<char> = alphabet.chars().collect();
        let n = n.min(letters.len());
        for position in 0..n {
            let other = position + self.index(letters.len() - position);
            letters.swap(position, other);
        }
        letters.truncate(n);
        letters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // The published values of SplitMix64 for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let expected = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([rng.bits(), rng.bits(), rng.bits()], expected);
    }

    #[test]
    fn below_reaches_everything_about_equally() {
        let mut rng = Rng::labelled(1, "test");
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[rng.index(7)] += 1;
        }
        // Standard deviation of a count is sqrt(70000 * 6/49) = 93; six of them.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 560), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn labels_and_seeds_separate_streams() {
        let first = |seed, label| Rng::labelled(seed, label).bits();
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_eq!(first(1, "a"), first(1, "a"));
    }

    #[test]
    fn distinct_letters_are_distinct() {
        let mut rng = Rng::new(3);
        let mut letters = rng.distinct("abcdef", 6);
        letters.sort_unstable();
        assert_eq!(letters.into_iter().collect::<String>(), "abcdef");
        assert_eq!(rng.distinct("ab", 5).len(), 2);
    }
}
