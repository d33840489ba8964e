//! The random numbers of Python's `random.Random(0)`: programs that were run
//! with that seed can be met exactly.
//!
//! M. Matsumoto and T. Nishimura, Mersenne Twister, ACM TOMACS 8 (1998), MT19937
//! with `init_by_array`; how CPython makes floats, choices and normal deviates
//! of its words is in its `Lib/random.py`.

const N: usize = 624;
const M: usize = 397;

/// A generator in the state that a seed gives.
pub struct Random {
    state: [u32; N],
    index: usize,
    /// The second of a pair of normal deviates.
    next_normal: Option<f64>,
}

impl Random {
    /// `random.Random(seed)`, for a seed of 32 bits.
    pub fn new(seed: u32) -> Self {
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        let mut i = 1;
        let wrap = |state: &mut [u32; N], i: &mut usize| {
            *i += 1;
            if *i >= N {
                state[0] = state[N - 1];
                *i = 1;
            }
        };
        // The key is the one word of the seed, so its index is always 0.
        for _ in 0..N {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_664_525)).wrapping_add(seed);
            wrap(&mut state, &mut i);
        }
        for _ in 0..N - 1 {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            wrap(&mut state, &mut i);
        }
        state[0] = 0x8000_0000;
        Self { state, index: N, next_normal: None }
    }

    fn word(&mut self) -> u32 {
        if self.index == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let magic = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ magic;
            }
            self.index = 0;
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `random()`: a fraction of 53 bits.
    pub fn fraction(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `gauss(0.0, 1.0)`.
    pub fn normal(&mut self) -> f64 {
        self.next_normal.take().unwrap_or_else(|| {
            let angle = self.fraction() * std::f64::consts::TAU;
            let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
            self.next_normal = Some(angle.sin() * radius);
            angle.cos() * radius
        })
    }

    /// The index that `choice` takes of a list of `n` items, at least one.
    pub fn below(&mut self, n: u32) -> u32 {
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let word = self.word() >> (u32::BITS - bits);
            if word < n {
                return word;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        // r = random.Random(0); [r.gauss(0, 1), r.gauss(0, 1), r.random()] + [r.randrange(10) for _ in range(5)]
        let mut random = Random::new(0);
        for expected in [NORMALS[0], NORMALS[1]] {
            assert!((random.normal() - expected).abs() < 1e-15);
        }
        assert_eq!(random.fraction(), FRACTION);
        assert_eq!([0; 5].map(|_| random.below(10)), BELOW_TEN);
    }
    const NORMALS: [f64; 2] = [0.9417154046806644, -1.3965781047011498];
    const FRACTION: f64 = 0.420571580830845;
    const BELOW_TEN: [u32; 5] = [4, 8, 7, 6, 4];
}
