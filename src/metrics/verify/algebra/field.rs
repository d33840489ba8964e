//! The prime field of 2^61 − 1 elements, in which rational functions are
//! evaluated exactly, whatever the length of their numbers.

use std::ops::{Add, Mul, Neg};

const PRIME: u64 = (1 << 61) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element(u64);

impl Element {
    pub const ZERO: Self = Self(0);
    pub const ONE: Self = Self(1);

    pub fn new(value: u64) -> Self {
        Self(value % PRIME)
    }

    /// The element of an unsigned decimal literal such as `12.50`.
    pub fn decimal(literal: &str) -> Option<Self> {
        let (ten, mut value, mut scale) = (Self(10), Self::ZERO, Self::ONE);
        let mut after_point = false;
        for c in literal.chars() {
            match c.to_digit(10) {
                Some(digit) => {
                    value = value * ten + Self(u64::from(digit));
                    if after_point {
                        scale = scale * ten;
                    }
                }
                None if c == '.' && !after_point => after_point = true,
                None => return None,
            }
        }
        Some(value * scale.inverse()?)
    }

    /// None for zero.
    pub fn inverse(self) -> Option<Self> {
        (self.0 != 0).then(|| self.power(PRIME - 2))
    }

    pub fn power(self, mut exponent: u64) -> Self {
        let (mut base, mut power) = (self, Self::ONE);
        while exponent > 0 {
            if exponent & 1 == 1 {
                power = power * base;
            }
            base = base * base;
            exponent >>= 1;
        }
        power
    }
}

impl Add for Element {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self((self.0 + other.0) % PRIME)
    }
}

impl Mul for Element {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let product = u128::from(self.0) * u128::from(other.0) % u128::from(PRIME);
        Self(u64::try_from(product).expect("a remainder of a 61-bit number"))
    }
}

impl Neg for Element {
    type Output = Self;
    fn neg(self) -> Self {
        Self((PRIME - self.0) % PRIME)
    }
}
