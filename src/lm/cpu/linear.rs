//! Projections of rows, shared among threads by columns. It must not know what they project.

use fuseline_torch::product::{Cells, Matrix, WIDTH};
use rayon::prelude::*;

use super::each;
use super::pages::Number;

/// One or several projections of the same rows, their outputs side by side.
#[derive(Debug)]
pub(super) struct Linear {
    matrix: Matrix,
    /// `[out]`.
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Packs a matrix `[out, in]`.
    pub(super) fn new(weight: &[f32], n_in: usize, bias: Option<Vec<f32>>, number: Number) -> Self {
        let n_out = weight.len() / n_in;
        let matrix = match number {
            Number::F32 => Matrix::f32(weight, n_out, n_in),
            Number::Bf16 => Matrix::bf16(weight, n_out, n_in),
        };
        Self { matrix, bias }
    }

    /// Projects rows `[m, in]` to `[m, out]`. No row depends on another.
    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (m, n_out) = (x.len() / self.matrix.n_in(), self.matrix.n_out());
        let x = self.matrix.prepare(x);
        let mut panels: Vec<Cells> = vec![[0.0; WIDTH]; self.matrix.n_panels() * m];
        panels.par_chunks_mut(m.max(1)).enumerate().for_each(|(panel, out)| self.matrix.panel(panel, &x, out));
        let mut rows = vec![0.0; m * n_out];
        each(&mut rows, n_out, |row, out| {
            for (panel, part) in out.chunks_mut(WIDTH).enumerate() {
                part.copy_from_slice(&panels[panel * m + row][..part.len()]);
            }
            for (x, bias) in out.iter_mut().zip(self.bias.iter().flatten()) {
                *x += bias;
            }
        });
        rows
    }
}
