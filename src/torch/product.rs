//! Products of rows with a packed matrix in which no row depends on another.
//!
//! A library's matrix product rounds by its shape: the same row gives other last digits in a batch of one and of
//! sixty-four. Here every element is the sum over the inputs in their order, `fma` by `fma`, whatever the number of rows
//! and whoever computes it, so in float32 it is the same on any processor. In bfloat16 the products are exact and the
//! sums float32; processors with instructions for it add two products at a time, and round otherwise than those without.
//!
//! It must not know models. The scheme (panels of columns, a tile of rows in registers) is that of Goto and van de
//! Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.

use crate::simd::{Level, Loops, vectorised};
#[cfg(target_arch = "x86_64")]
use registers::{paired, wide};

/// Columns of a panel: two registers of AVX-512.
pub const WIDTH: usize = 32;
/// Inputs that are multiplied before the next rows get their turn: a panel of them stays in a level-2 cache.
const DEPTH: usize = 512;
/// Rows of a tile at most: two registers each, and two for the matrix, of the 32.
const TILE: usize = 12;
/// The same for 16 registers of half the width.
const SMALL_TILE: usize = 3;

/// One row's part in a panel.
pub type Cells = [f32; WIDTH];

/// A matrix laid out for products.
#[derive(Debug)]
pub struct Matrix {
    n_in: usize,
    n_out: usize,
    panels: Panels,
}

#[derive(Debug)]
enum Panels {
    /// Panel by panel, its inputs in order.
    F32(Vec<[f32; WIDTH]>),
    /// The same with two inputs side by side: the even one in the low half.
    Bf16(Vec<[u32; WIDTH]>),
}

/// Rows in the number format of a matrix.
#[derive(Debug)]
pub enum Rows<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// Rounded, in pairs.
    Bf16(Vec<u32>),
}

impl Matrix {
    /// Packs a float32 matrix `[out, in]`.
    ///
    /// # Panics
    /// If the shape is not that of the elements.
    pub fn f32(weight: &[f32], n_out: usize, n_in: usize) -> Self {
        assert_eq!(weight.len(), n_out * n_in, "a matrix of {n_out} rows of {n_in}");
        let mut panels = vec![[0.0; WIDTH]; n_out.div_ceil(WIDTH) * n_in];
        for (out, row) in weight.chunks_exact(n_in).enumerate() {
            let panel = &mut panels[out / WIDTH * n_in..][..n_in];
            for (cells, value) in panel.iter_mut().zip(row) {
                cells[out % WIDTH] = *value;
            }
        }
        Self { n_in, n_out, panels: Panels::F32(panels) }
    }

    /// Packs a matrix `[out, in]` rounded to bfloat16.
    ///
    /// # Panics
    /// If the shape is not that of the elements.
    pub fn bf16(weight: &[f32], n_out: usize, n_in: usize) -> Self {
        assert_eq!(weight.len(), n_out * n_in, "a matrix of {n_out} rows of {n_in}");
        let pairs = n_in.div_ceil(2);
        let mut panels = vec![[0; WIDTH]; n_out.div_ceil(WIDTH) * pairs];
        for (out, row) in weight.chunks_exact(n_in).enumerate() {
            let panel = &mut panels[out / WIDTH * pairs..][..pairs];
            for (cells, two) in panel.iter_mut().zip(row.chunks(2)) {
                cells[out % WIDTH] = pair(two);
            }
        }
        Self { n_in, n_out, panels: Panels::Bf16(panels) }
    }

    /// Length of the rows that it multiplies.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Length of the rows that come out.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// How many panels of [`WIDTH`] columns the results come in; the last may be filled up.
    pub fn n_panels(&self) -> usize {
        self.n_out.div_ceil(WIDTH)
    }

    /// Brings rows `[m, in]` to this matrix's number format.
    pub fn prepare<'a>(&self, x: &'a [f32]) -> Rows<'a> {
        match &self.panels {
            Panels::F32(_) => Rows::F32(x),
            Panels::Bf16(_) => {
                let pairs = self.n_in.div_ceil(2);
                let mut rows = vec![0; x.len() / self.n_in * pairs];
                for (row, out) in x.chunks_exact(self.n_in).zip(rows.chunks_exact_mut(pairs)) {
                    vectorised(Round(row, out));
                }
                Rows::Bf16(rows)
            }
        }
    }

    /// Multiplies prepared rows by one panel: `out[i]` is row i's part.
    ///
    /// # Panics
    /// If the rows are another matrix's.
    pub fn panel(&self, panel: usize, x: &Rows, out: &mut [Cells]) {
        out.fill([0.0; WIDTH]);
        match (&self.panels, x) {
            (Panels::F32(all), Rows::F32(x)) => {
                let weights = &all[panel * self.n_in..][..self.n_in];
                tiles(weights, x, out, &|rows, weights, x, stride, out| f32_tile(rows, weights, x, stride, out));
            }
            (Panels::Bf16(all), Rows::Bf16(x)) => {
                let pairs = self.n_in.div_ceil(2);
                let weights = &all[panel * pairs..][..pairs];
                tiles(weights, x, out, &|rows, weights, x, stride, out| bf16_tile(rows, weights, x, stride, out));
            }
            _ => panic!("rows were prepared for a matrix of another number format"),
        }
    }
}

/// Rounds a row to bfloat16, in pairs.
struct Round<'a>(&'a [f32], &'a mut [u32]);

impl Loops for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (whole, rest) = self.0.as_chunks::<2>();
        for (out, [even, odd]) in self.1.iter_mut().zip(whole) {
            *out = u32::from(to_bf16(*even)) | u32::from(to_bf16(*odd)) << 16;
        }
        if let ([last], Some(out)) = (rest, self.1.last_mut()) {
            *out = u32::from(to_bf16(*last));
        }
    }
}

/// A number rounded to bfloat16, to the nearest and to even between two; as bits.
#[inline(always)]
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // A NaN stays one.
    (if x.is_nan() { bits | 0x40_0000 } else { rounded } >> 16) as u16
}

/// The number that bfloat16 bits stand for.
#[inline(always)]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

fn pair(two: &[f32]) -> u32 {
    let high = two.get(1).map_or(0, |x| to_bf16(*x));
    u32::from(to_bf16(two[0])) | u32::from(high) << 16
}

/// What one tile gets: how many rows, weights, rows with their stride, sums.
type Tile<'a, W, X> = &'a dyn Fn(usize, &[W], &[X], usize, &mut [Cells]);

/// Cuts a product into tiles. `x: [m, depth]`.
fn tiles<W, X>(weights: &[W], x: &[X], out: &mut [Cells], tile: Tile<W, X>) {
    let (depth, m) = (weights.len(), out.len());
    assert_eq!(x.len(), m * depth, "{m} rows of {depth}");
    let largest = if Level::here() >= Level::Avx512 { TILE } else { SMALL_TILE };
    let n = m.div_ceil(largest);
    for first in (0..depth).step_by(DEPTH) {
        let weights = &weights[first..depth.min(first + DEPTH)];
        for index in 0..n {
            // Tiles of like size: a small one is as slow as a large one.
            let (from, to) = (index * m / n, (index + 1) * m / n);
            tile(to - from, weights, &x[from * depth + first..], depth, &mut out[from..to]);
        }
    }
}

/// Calls a function with a constant for the number of rows.
macro_rules! by_rows {
    ($rows:expr, $of:ident, $arguments:tt) => {
        match $rows {
            1 => by_rows!(@ $of, 1, $arguments),
            2 => by_rows!(@ $of, 2, $arguments),
            3 => by_rows!(@ $of, 3, $arguments),
            4 => by_rows!(@ $of, 4, $arguments),
            5 => by_rows!(@ $of, 5, $arguments),
            6 => by_rows!(@ $of, 6, $arguments),
            7 => by_rows!(@ $of, 7, $arguments),
            8 => by_rows!(@ $of, 8, $arguments),
            9 => by_rows!(@ $of, 9, $arguments),
            10 => by_rows!(@ $of, 10, $arguments),
            11 => by_rows!(@ $of, 11, $arguments),
            12 => by_rows!(@ $of, 12, $arguments),
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
    (@ $of:ident, $rows:literal, ($($argument:expr),*)) => { $of::<$rows>($($argument),*) };
}

fn f32_tile(rows: usize, weights: &[[f32; WIDTH]], x: &[f32], stride: usize, out: &mut [Cells]) {
    #[cfg(target_arch = "x86_64")]
    if Level::here() >= Level::Avx512 {
        return by_rows!(rows, wide, (weights, x, stride, out));
    }
    by_rows!(rows, plain, (weights, x, stride, out));
}

/// A tile in float32 as the compiler vectorises it.
fn plain<const R: usize>(weights: &[[f32; WIDTH]], x: &[f32], stride: usize, out: &mut [Cells]) {
    struct Work<'a, const R: usize>(&'a [[f32; WIDTH]], &'a [f32], usize, &'a mut [Cells]);
    impl<const R: usize> Loops for Work<'_, R> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Work(weights, x, stride, out) = self;
            let mut sums: [Cells; R] = std::array::from_fn(|row| out[row]);
            let rows: [&[f32]; R] = std::array::from_fn(|row| &x[row * stride..][..weights.len()]);
            for (place, cells) in weights.iter().enumerate() {
                for row in 0..R {
                    let value = rows[row][place];
                    for column in 0..WIDTH {
                        sums[row][column] = value.mul_add(cells[column], sums[row][column]);
                    }
                }
            }
            out[..R].copy_from_slice(&sums);
        }
    }
    vectorised(Work::<R>(weights, x, stride, out));
}

fn bf16_tile(rows: usize, weights: &[[u32; WIDTH]], x: &[u32], stride: usize, out: &mut [Cells]) {
    #[cfg(target_arch = "x86_64")]
    if Level::here() == Level::Avx512Bf16 {
        return by_rows!(rows, paired, (weights, x, stride, out));
    }
    by_rows!(rows, halves, (weights, x, stride, out));
}

/// A tile in bfloat16 by float32 arithmetic.
fn halves<const R: usize>(weights: &[[u32; WIDTH]], x: &[u32], stride: usize, out: &mut [Cells]) {
    struct Work<'a, const R: usize>(&'a [[u32; WIDTH]], &'a [u32], usize, &'a mut [Cells]);
    impl<const R: usize> Loops for Work<'_, R> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Work(weights, x, stride, out) = self;
            let low = |pair: u32| f32::from_bits(pair << 16);
            let high = |pair: u32| f32::from_bits(pair & 0xffff_0000);
            let mut sums: [Cells; R] = std::array::from_fn(|row| out[row]);
            let rows: [&[u32]; R] = std::array::from_fn(|row| &x[row * stride..][..weights.len()]);
            for (place, cells) in weights.iter().enumerate() {
                for row in 0..R {
                    let pair = rows[row][place];
                    let (first, second) = (low(pair), high(pair));
                    for column in 0..WIDTH {
                        let sum = first.mul_add(low(cells[column]), sums[row][column]);
                        sums[row][column] = second.mul_add(high(cells[column]), sum);
                    }
                }
            }
            out[..R].copy_from_slice(&sums);
        }
    }
    vectorised(Work::<R>(weights, x, stride, out));
}

/// Tiles whose sums stay in registers of AVX-512: compilers load the weights anew for every row.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // Intrinsics take pointers, and may be called only where there are such instructions.
mod registers {
    use std::arch::x86_64::*;

    use super::{Cells, WIDTH};

    const HALF: usize = WIDTH / 2;

    macro_rules! tile {
        ($(#[$doc:meta])* $name:ident, $features:literal, $element:ty, $halves:ident, $splat:ident, $add:ident) => {
            $(#[$doc])*
            pub(super) fn $name<const R: usize>(
                weights: &[[$element; WIDTH]],
                x: &[$element],
                stride: usize,
                out: &mut [Cells],
            ) {
                #[target_feature(enable = $features)]
                fn work<const R: usize>(weights: &[[$element; WIDTH]], rows: [&[$element]; R], out: &mut [Cells; R]) {
                    let mut sums = [[_mm512_setzero_ps(); 2]; R];
                    for (sums, cells) in sums.iter_mut().zip(out.iter()) {
                        *sums = float_halves(cells);
                    }
                    for (place, cells) in weights.iter().enumerate() {
                        let [left, right] = $halves(cells);
                        for row in 0..R {
                            let value = $splat(rows[row][place]);
                            sums[row] = [$add(sums[row][0], value, left), $add(sums[row][1], value, right)];
                        }
                    }
                    for (sums, cells) in sums.iter().zip(out.iter_mut()) {
                        // SAFETY: 16 values are written to an array of 32, at 0 and at 16.
                        unsafe {
                            _mm512_storeu_ps(cells.as_mut_ptr(), sums[0]);
                            _mm512_storeu_ps(cells.as_mut_ptr().add(HALF), sums[1]);
                        }
                    }
                }

                let rows: [&[$element]; R] = std::array::from_fn(|row| &x[row * stride..][..weights.len()]);
                let out: &mut [Cells; R] = (&mut out[..R]).try_into().expect("a slice of that length");
                // SAFETY: the caller has asked whether the processor has the instructions.
                unsafe { work::<R>(weights, rows, out) }
            }
        };
    }

    tile!(
        /// A tile in float32.
        wide, "avx512f", f32, float_halves, float_splat, float_add
    );
    tile!(
        /// A tile in bfloat16 by the processor's own instruction for it.
        paired, "avx512f,avx512bf16", u32, pair_halves, pair_splat, pair_add
    );

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn float_halves(cells: &[f32; WIDTH]) -> [__m512; 2] {
        // SAFETY: 16 values are read from an array of 32, at 0 and at 16.
        unsafe { [_mm512_loadu_ps(cells.as_ptr()), _mm512_loadu_ps(cells.as_ptr().add(HALF))] }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn float_splat(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn float_add(sum: __m512, value: __m512, weight: __m512) -> __m512 {
        _mm512_fmadd_ps(value, weight, sum)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pair_halves(cells: &[u32; WIDTH]) -> [__m512bh; 2] {
        // SAFETY: 16 values are read from an array of 32, at 0 and at 16; the types are 64 bytes without meaning.
        unsafe {
            let half = |at| _mm512_loadu_si512(cells.as_ptr().add(at).cast());
            [half(0), half(HALF)].map(|half| std::mem::transmute::<__m512i, __m512bh>(half))
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pair_splat(value: u32) -> __m512bh {
        // SAFETY: both types are 64 bytes without meaning of their own.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(value.cast_signed())) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pair_add(sum: __m512, value: __m512bh, weight: __m512bh) -> __m512 {
        _mm512_dpbf16_ps(sum, value, weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, step: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * step) % 257) as f32 / 97.0 - 1.3).collect()
    }

    fn product(matrix: &Matrix, x: &[f32]) -> Vec<Vec<f32>> {
        let m = x.len() / matrix.n_in();
        let prepared = matrix.prepare(x);
        let mut out = vec![vec![0.0; matrix.n_out()]; m];
        for panel in 0..matrix.n_panels() {
            let mut cells = vec![[0.0; WIDTH]; m];
            matrix.panel(panel, &prepared, &mut cells);
            for (row, cells) in out.iter_mut().zip(&cells) {
                let part = &mut row[panel * WIDTH..];
                let n = part.len().min(WIDTH);
                part[..n].copy_from_slice(&cells[..n]);
            }
        }
        out
    }

    #[test]
    fn float32_is_the_sum_in_order() {
        // More inputs than are multiplied at once, an odd number of outputs.
        let (n_in, n_out, m) = (DEPTH + 7, 37, 29);
        let (weight, x) = (values(n_in * n_out, 31), values(n_in * m, 17));
        let found = product(&Matrix::f32(&weight, n_out, n_in), &x);
        for (row, found) in found.iter().enumerate() {
            for (out, found) in found.iter().enumerate() {
                let pairs = x[row * n_in..][..n_in].iter().zip(&weight[out * n_in..][..n_in]);
                let expected = pairs.fold(0f32, |sum, (x, w)| x.mul_add(*w, sum));
                assert_eq!(found.to_bits(), expected.to_bits(), "row {row}, output {out}");
            }
        }
        let mut cells = vec![[0.0; WIDTH]; 3];
        let Panels::F32(panels) = &Matrix::f32(&weight, n_out, n_in).panels else { unreachable!("a float32 matrix") };
        plain::<3>(&panels[..n_in], &x[..3 * n_in], n_in, &mut cells);
        for (row, cells) in cells.iter().enumerate() {
            assert_eq!(cells[..], found[row][..WIDTH], "without intrinsics");
        }
    }

    #[test]
    fn no_row_depends_on_another() {
        let (n_in, n_out) = (65, 70);
        let weight = values(n_in * n_out, 31);
        for matrix in [Matrix::f32(&weight, n_out, n_in), Matrix::bf16(&weight, n_out, n_in)] {
            let x = values(n_in * 64, 17);
            let all = product(&matrix, &x);
            for m in 1..64 {
                let first = 64 - m;
                assert_eq!(product(&matrix, &x[first * n_in..]), all[first..], "{m} rows");
            }
        }
    }

    #[test]
    fn bfloat16_is_close_by_both_ways() {
        let (n_in, n_out, m) = (33, 5, 3);
        let (weight, x) = (values(n_in * n_out, 31), values(n_in * m, 17));
        let matrix = Matrix::bf16(&weight, n_out, n_in);
        let Rows::Bf16(rows) = matrix.prepare(&x) else { unreachable!("a bfloat16 matrix") };
        let Panels::Bf16(panels) = &matrix.panels else { unreachable!("a bfloat16 matrix") };
        let mut plain = vec![[0.0; WIDTH]; m];
        halves::<3>(panels, &rows, n_in.div_ceil(2), &mut plain);
        for (row, found) in product(&matrix, &x).iter().enumerate() {
            for (out, found) in found.iter().enumerate() {
                let rounded = |x: &f32| f64::from(from_bf16(to_bf16(*x)));
                let pairs = x[row * n_in..][..n_in].iter().zip(&weight[out * n_in..][..n_in]);
                let expected: f64 = pairs.map(|(x, w)| rounded(x) * rounded(w)).sum();
                // 33 sums in float32 of values of about 1.
                assert!((f64::from(*found) - expected).abs() < 1e-4);
                assert!((f64::from(plain[row][out]) - expected).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn rounding_to_bfloat16_is_to_even() {
        // 1 + 2^-8 lies between 1 and 1 + 2^-7: even is 1; 1 + 3·2^-8 between 1 + 2^-7 and 1 + 2^-6.
        for (x, rounded) in [(1.0, 1.0), (257.0 / 256.0, 1.0), (259.0 / 256.0, 260.0 / 256.0), (-2.5, -2.5)] {
            assert_eq!(from_bf16(to_bf16(x)), rounded);
        }
        assert!(from_bf16(to_bf16(f32::NAN)).is_nan());
    }
}
