//! Complex numbers in floating point, as far as answers need them. Principal
//! branches everywhere.

use std::ops::{Add, Div, Mul, Neg, Sub};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Complex {
    pub re: f64,
    pub im: f64,
}

impl Complex {
    pub const ZERO: Self = Self::real(0.0);
    pub const ONE: Self = Self::real(1.0);
    pub const I: Self = Self { re: 0.0, im: 1.0 };

    pub const fn real(re: f64) -> Self {
        Self { re, im: 0.0 }
    }

    pub fn abs(self) -> f64 {
        self.re.hypot(self.im)
    }

    pub fn is_finite(self) -> bool {
        self.re.is_finite() && self.im.is_finite()
    }

    /// Whether it is a real number, but for rounding.
    pub fn is_real(self) -> bool {
        self.im == 0.0 || self.im.abs() <= 1e-12 * self.re.abs().max(1.0)
    }

    pub fn exp(self) -> Self {
        let size = self.re.exp();
        if self.im == 0.0 {
            return Self::real(size);
        }
        Self { re: size * self.im.cos(), im: size * self.im.sin() }
    }

    pub fn ln(self) -> Self {
        Self { re: self.abs().ln(), im: self.im.atan2(self.re) }
    }

    pub fn sqrt(self) -> Self {
        if self.im == 0.0 {
            let root = self.re.abs().sqrt();
            return if self.re < 0.0 { Self { re: 0.0, im: root } } else { Self::real(root) };
        }
        self.pow(Self::real(0.5))
    }

    pub fn pow(self, exponent: Self) -> Self {
        if exponent.im == 0.0 {
            if exponent.re == 0.0 {
                return Self::ONE;
            }
            if exponent.re.fract() == 0.0 && exponent.re.abs() <= 64.0 {
                return self.powi(exponent.re as i32);
            }
            if self.im == 0.0 && self.re >= 0.0 {
                return Self::real(self.re.powf(exponent.re));
            }
        }
        if self == Self::ZERO {
            return if exponent.re > 0.0 { Self::ZERO } else { Self::real(f64::NAN) };
        }
        (self.ln() * exponent).exp()
    }

    fn powi(self, exponent: i32) -> Self {
        let mut power = Self::ONE;
        for _ in 0..exponent.unsigned_abs() {
            power = power * self;
        }
        if exponent < 0 { Self::ONE / power } else { power }
    }

    pub fn sin(self) -> Self {
        Self { re: self.re.sin() * self.im.cosh(), im: self.re.cos() * self.im.sinh() }
    }

    pub fn cos(self) -> Self {
        Self { re: self.re.cos() * self.im.cosh(), im: -self.re.sin() * self.im.sinh() }
    }
}

impl Add for Complex {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Mul for Complex {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        if self.im == 0.0 && other.im == 0.0 {
            // Keeps infinities real: ∞·0i would be NaN.
            return Self::real(self.re * other.re);
        }
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }
}

impl Div for Complex {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        if self.im == 0.0 && other.im == 0.0 {
            return Self::real(self.re / other.re);
        }
        let size = other.re * other.re + other.im * other.im;
        Self {
            re: (self.re * other.re + self.im * other.im) / size,
            im: (self.im * other.re - self.re * other.im) / size,
        }
    }
}

impl Neg for Complex {
    type Output = Self;
    fn neg(self) -> Self {
        Self { re: -self.re, im: if self.im == 0.0 { 0.0 } else { -self.im } }
    }
}
