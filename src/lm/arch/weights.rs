//! The list of a model's weights: what the decoder holds, and where in a folder it lies.
//!
//! The decoder has one parameter per projection, and one for the matrices of all experts of a
//! layer. Folders hold some projections fused and experts one by one. Either way a parameter's
//! rows are rows of stored tensors, so one list of pieces serves loading and saving.

use std::collections::BTreeMap;

use super::{Architecture, Mixture, QkNorm, at_layer};

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightSpec {
    /// Its published name; where it is stored fused, the name it has in families that do not.
    pub name: String,
    /// Shape; a projection is `[out, in]`, those of experts `[expert, out, in]`.
    pub shape: Vec<i64>,
    /// What it is, which decides how it is filled in a fresh model.
    pub role: Role,
    /// Where its rows are stored, in order.
    pub pieces: Vec<Piece>,
}

/// Some rows of a stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Published name of the tensor.
    pub tensor: String,
    /// The first row.
    pub first: i64,
    /// How many rows.
    pub rows: i64,
}

/// What a weight is, which decides how it is filled in a fresh model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A projection or an embedding: normal with deviation `initializer_range`.
    Matrix,
    /// A projection's bias: zero.
    Bias,
    /// A norm's weight: such that it multiplies by one.
    Norm,
}

impl WeightSpec {
    /// Returns the length of a row: a bias or a norm has rows of one.
    pub fn row_length(&self) -> i64 {
        match self.shape.as_slice() {
            [.., length] if self.shape.len() > 1 => *length,
            _ => 1,
        }
    }
}

impl Architecture {
    /// Lists every parameter, sorted by name.
    pub fn weights(&self) -> Vec<WeightSpec> {
        let mut list = List { arch: self, specs: Vec::new() };
        let names = &self.names;
        list.matrix(names.embedding.into(), self.vocab_size, self.hidden_size);
        list.norm(names.final_norm.into(), self.hidden_size);
        if !self.tied_embeddings {
            list.matrix(names.head.into(), self.vocab_size, self.hidden_size);
        }
        for layer in 0..self.n_layers {
            list.norms(layer);
            list.attention(layer);
            match self.mixture_at(layer) {
                None => list.mlp(layer),
                Some(mixture) => list.experts(layer, mixture),
            }
        }
        list.specs.sort_by(|a, b| a.name.cmp(&b.name));
        list.specs
    }

    /// Lists the tensors of a folder with their shapes, by published name.
    pub fn stored(&self) -> BTreeMap<String, Vec<i64>> {
        let mut stored: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for spec in self.weights() {
            for piece in &spec.pieces {
                let shape = stored.entry(piece.tensor.clone()).or_insert_with(|| match spec.shape.len() {
                    1 => vec![0],
                    _ => vec![0, spec.row_length()],
                });
                shape[0] = shape[0].max(piece.first + piece.rows);
            }
        }
        stored
    }

    /// Returns the number of parameters.
    pub fn n_parameters(&self) -> i64 {
        self.weights().iter().map(|weight| weight.shape.iter().product::<i64>()).sum()
    }
}

/// The list in the making.
struct List<'a> {
    arch: &'a Architecture,
    specs: Vec<WeightSpec>,
}

impl List<'_> {
    fn push(&mut self, name: String, shape: Vec<i64>, role: Role) {
        let pieces = vec![Piece { tensor: name.clone(), first: 0, rows: shape[0] }];
        self.specs.push(WeightSpec { name, shape, role, pieces });
    }

    fn matrix(&mut self, name: String, out: i64, inner: i64) {
        self.push(format!("{name}.weight"), vec![out, inner], Role::Matrix);
    }

    fn norm(&mut self, name: String, width: i64) {
        self.push(format!("{name}.weight"), vec![width], Role::Norm);
    }

    /// A projection; `pieces` names the tensor, without `.weight`, that holds its rows.
    fn projection(&mut self, name: &str, (out, inner): (i64, i64), bias: bool, pieces: &[Piece]) {
        let mut push = |end: &str, shape: Vec<i64>, role| {
            let stored = |piece: &Piece| Piece { tensor: format!("{}.{end}", piece.tensor), ..piece.clone() };
            let pieces = pieces.iter().map(stored).collect();
            self.specs.push(WeightSpec { name: format!("{name}.{end}"), shape, role, pieces });
        };
        push("weight", vec![out, inner], Role::Matrix);
        if bias {
            push("bias", vec![out], Role::Bias);
        }
    }

    fn norms(&mut self, layer: i64) {
        let (arch, names) = (self.arch, &self.arch.names);
        let mut wanted = Vec::new();
        if arch.norm_places.before() {
            wanted.extend([names.input_norm, names.before_mlp_norm]);
        }
        if arch.norm_places.after() {
            wanted.extend([names.after_attention_norm, names.after_mlp_norm]);
        }
        for name in wanted {
            self.norm(at_layer(name, layer), arch.hidden_size);
        }
        let (q, k) = match arch.qk_norm {
            None => return,
            Some(QkNorm::Head) => (1, 1),
            Some(QkNorm::Projection) => (arch.n_heads, arch.n_kv_heads),
        };
        self.norm(at_layer(names.q_norm, layer), q * arch.head_dim);
        self.norm(at_layer(names.k_norm, layer), k * arch.head_dim);
    }

    fn attention(&mut self, layer: i64) {
        let (arch, names) = (self.arch, &self.arch.names);
        let (d, e, kv_heads) = (arch.hidden_size, arch.head_dim, arch.n_kv_heads);
        let (q, kv) = (arch.n_heads * e, kv_heads * e);
        let starts = [(names.q, q, 0), (names.k, kv, q), (names.v, kv, q + kv)];
        for (name, rows, start) in starts {
            let name = at_layer(name, layer);
            let pieces = match names.fused_qkv {
                None => vec![whole(&name, rows)],
                Some(fused) => {
                    let tensor = at_layer(fused.name, layer);
                    let piece = |first, rows| Piece { tensor: tensor.clone(), first, rows };
                    match fused.per_kv_head {
                        false => vec![piece(start, rows)],
                        true => {
                            let (group, part) = ((q + 2 * kv) / kv_heads, rows / kv_heads);
                            (0..kv_heads).map(|head| piece(head * group + start / kv_heads, part)).collect()
                        }
                    }
                }
            };
            self.projection(&name, (rows, d), arch.qkv_bias, &pieces);
        }
        let o = at_layer(names.o, layer);
        self.projection(&o, (d, q), arch.output_bias, &[whole(&o, d)]);
    }

    fn mlp(&mut self, layer: i64) {
        let (arch, names) = (self.arch, &self.arch.names);
        let (d, ff, bias) = (arch.hidden_size, arch.intermediate_size, arch.mlp_bias);
        let halves = match arch.gated_mlp {
            true => vec![(names.gate, 0), (names.up, ff)],
            false => vec![(names.up, 0)],
        };
        for (name, first) in halves {
            let name = at_layer(name, layer);
            let piece = match names.fused_gate_up {
                None => whole(&name, ff),
                Some(fused) => Piece { tensor: at_layer(fused, layer), first, rows: ff },
            };
            self.projection(&name, (ff, d), bias, &[piece]);
        }
        let down = at_layer(names.down, layer);
        self.projection(&down, (d, ff), bias, &[whole(&down, d)]);
    }

    fn experts(&mut self, layer: i64, mixture: &Mixture) {
        let (d, names) = (self.arch.hidden_size, self.arch.names.experts);
        let (n, ff) = (mixture.n_experts, mixture.intermediate_size);
        self.matrix(at_layer(names.router, layer), n, d);
        let piece = |name: &str, expert: i64, rows| {
            let name = at_layer(name, layer).replace("{e}", &expert.to_string());
            Piece { tensor: format!("{name}.weight"), first: 0, rows }
        };
        self.specs.push(WeightSpec {
            name: stacked(names.up, layer),
            shape: vec![n, 2 * ff, d],
            role: Role::Matrix,
            pieces: (0..n).flat_map(|expert| [piece(names.gate, expert, ff), piece(names.up, expert, ff)]).collect(),
        });
        self.specs.push(WeightSpec {
            name: stacked(names.down, layer),
            shape: vec![n, d, ff],
            role: Role::Matrix,
            pieces: (0..n).map(|expert| piece(names.down, expert, d)).collect(),
        });
        if let Some(ff) = mixture.shared_intermediate_size {
            self.matrix(at_layer(names.shared_gate, layer), ff, d);
            self.matrix(at_layer(names.shared_up, layer), ff, d);
            self.matrix(at_layer(names.shared_down, layer), d, ff);
            self.matrix(at_layer(names.shared_share, layer), 1, d);
        }
    }
}

/// The name of the parameter that holds one projection of all experts of a layer.
pub(crate) fn stacked(name: &str, layer: i64) -> String {
    format!("{}.weight", at_layer(name, layer).replace("{e}", "*"))
}

fn whole(name: &str, rows: i64) -> Piece {
    Piece { tensor: name.into(), first: 0, rows }
}
