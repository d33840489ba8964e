//! Mutations of bytes: flips, cuts, copies, words of the format, pieces of other
//! seeds.

/// Random numbers from one start (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another; zero where that is zero.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }
}

/// No input is longer; longer ones find nothing that these do not.
const MAX_BYTES: usize = 16 << 10;

/// Makes inputs out of seeds.
pub struct Mutator<'w> {
    /// Where random numbers come from.
    pub random: Random,
    /// What is mutated.
    pub seeds: Vec<Vec<u8>>,
    /// Words to put in.
    pub words: &'w [&'w str],
}

impl Mutator<'_> {
    /// The next input.
    pub fn next(&mut self) -> Vec<u8> {
        let seed = self.random.below(self.seeds.len());
        let mut bytes = self.seeds[seed].clone();
        // Half of the inputs are one step from what is right.
        let steps = if self.random.below(2) == 0 { 1 } else { 1 + self.random.below(6) };
        for _ in 0..steps {
            self.mutate(&mut bytes);
        }
        bytes.truncate(MAX_BYTES);
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.below(bytes.len() + 1);
        let to = (at + self.random.below(24)).min(bytes.len());
        match self.random.below(14) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.random.below(8),
            1 if at < bytes.len() => bytes[at] = self.random.below(256) as u8,
            2 => drop(bytes.drain(at..to)),
            3 => {
                let piece = bytes[at..to].to_vec();
                let into = self.random.below(bytes.len() + 1);
                bytes.splice(into..into, piece);
            }
            4 | 5 => {
                let word = self.words[self.random.below(self.words.len())];
                bytes.splice(at..at, word.bytes());
            }
            6 => {
                let word = self.words[self.random.below(self.words.len())];
                bytes.splice(at..to, word.bytes());
            }
            7 => {
                let other = self.random.below(self.seeds.len());
                let other = &self.seeds[other];
                let from = self.random.below(other.len());
                let piece = other[from..(from + self.random.below(80)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            8..12 => {
                // A word for a word, so that the form is kept.
                let seed = self.random.below(self.seeds.len());
                let (own, others) = (words(bytes), words(&self.seeds[seed]));
                if own.is_empty() || others.is_empty() {
                    return;
                }
                let other = others[self.random.below(others.len())].clone();
                let other = self.seeds[seed][other].to_vec();
                bytes.splice(own[self.random.below(own.len())].clone(), other);
            }
            _ => {
                // A whole line, or a field between commas, twice or not at all.
                let edge = |byte: &u8| matches!(byte, b'\n' | b',');
                let start = bytes[..at].iter().rposition(edge).map_or(0, |edge| edge + 1);
                let end = bytes[at..].iter().position(edge).map_or(bytes.len(), |edge| at + edge + 1);
                let piece: Vec<u8> = bytes.drain(start..end).collect();
                if self.random.below(2) == 0 {
                    let into = self.random.below(bytes.len() + 1);
                    bytes.splice(into..into, piece);
                }
            }
        }
    }
}

/// Where words are: letters, digits and _ side by side.
fn words(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let is_word = |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let starts = (0..bytes.len()).filter(|at| is_word(*at) && (*at == 0 || !is_word(at - 1)));
    starts.map(|start| start..(start..).find(|at| !is_word(*at)).unwrap_or(bytes.len())).collect()
}
