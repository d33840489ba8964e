//! Plain loops compiled for the vector instructions of the processor that runs them.
//!
//! It must not know what is computed. Nothing here may change a result: loops that fix their order of operations and
//! fuse by `mul_add` give the same bits at every level.

/// Work that is done in loops. Mark `run` `#[inline(always)]`, and what it calls, or the loops stay as they are.
pub trait Loops {
    /// What comes out.
    type Output;

    /// Does the work.
    fn run(self) -> Self::Output;
}

/// Vector instructions, the widest that this processor has of those that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of this architecture has.
    Plain,
    /// 16 registers of 8 float32 and fused multiplication.
    Avx2,
    /// 32 registers of 16 float32.
    Avx512,
    /// Products of bfloat16 besides.
    Avx512Bf16,
}

impl Level {
    /// The level of this processor.
    pub fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            match (avx2, avx512, avx512 && has!("avx512bf16")) {
                (_, _, true) => return Self::Avx512Bf16,
                (_, true, _) => return Self::Avx512,
                (true, ..) => return Self::Avx2,
                _ => {}
            }
        }
        Self::Plain
    }
}

/// Does work with the vector instructions of this processor.
pub fn vectorised<L: Loops>(work: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)] // Calling code for instructions that not every processor has is unsafe.
    {
        match Level::here() {
            // SAFETY: the processor has the instructions that these functions are compiled for.
            Level::Avx512 | Level::Avx512Bf16 => return unsafe { with_avx512(work) },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { with_avx2(work) },
            Level::Plain => {}
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn with_avx512<L: Loops>(work: L) -> L::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<L: Loops>(work: L) -> L::Output {
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [f32]);

    impl Loops for Sum<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            self.0.iter().fold(0.0, |sum, x| x.mul_add(*x, sum))
        }
    }

    #[test]
    fn the_level_changes_no_bit() {
        let x: Vec<f32> = (1..1000).map(|i| 1.0 / i as f32).collect();
        assert_eq!(vectorised(Sum(&x)).to_bits(), Sum(&x).run().to_bits());
    }
}
