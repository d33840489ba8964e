//! The decoder on the CPU for generation: any number of tokens of any texts at once, each as if it were alone.
//!
//! Every number of a token follows from its text by sums in one order, whatever else is computed with it, by how many
//! threads, and in which pieces its text comes: a prompt in chunks, whole, or token by token gives the same bits. Weights
//! and what is kept of tokens are float32 or bfloat16; everything between is float32, but for the rows that are
//! multiplied by a bfloat16 matrix, which are rounded to it first.
//!
//! The formulas are those of [`crate::decoder`], which trains, scores and runs on other devices. This must not know
//! files, sampling or requests. Letters: m tokens, d width of the residual stream.

mod attention;
mod build;
mod feed;
mod linear;
mod math;
mod pages;
mod rows;
mod turns;

pub(crate) use math::{exp, sum};
pub use pages::{Layout, Number, PAGE, Sequence};
pub(crate) use rows::LogSumExp;

use fuseline_torch::product::from_bf16;
use fuseline_torch::simd::vectorised;
use rayon::prelude::*;

use crate::arch::{Architecture, QkNorm};
use crate::error::{Error, Result};
use attention::{Query, Settings};
use feed::Feed;
use linear::Linear;
use rows::{Add, Cap, Normal, Normalise, Turn};
use turns::{Turned, Turns};

/// A model ready for generation.
#[derive(Debug)]
pub struct Model {
    /// What it is made of.
    pub arch: Architecture,
    core: Core,
    turns: Turns,
    threads: rayon::ThreadPool,
}

/// What threads share.
#[derive(Debug)]
struct Core {
    embedding: Embedding,
    embedding_scale: Option<f32>,
    blocks: Vec<Block>,
    final_norm: Normal,
    head: Linear,
    settings: Settings,
    final_soft_cap: Option<f32>,
    clip: Option<f32>,
    d: usize,
    query_heads: usize,
    layout: Layout,
}

#[derive(Debug)]
enum Embedding {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

#[derive(Debug)]
struct Block {
    input_norm: Option<Normal>,
    qkv: Linear,
    o: Linear,
    qk_norms: Option<(QkNorm, Normal, Normal)>,
    after_attention_norm: Option<Normal>,
    before_mlp_norm: Option<Normal>,
    feed: Feed,
    after_mlp_norm: Option<Normal>,
    window: Option<usize>,
}

/// Tokens that follow what a sequence holds.
#[derive(Debug)]
pub struct Piece<'a> {
    /// What was seen of the text before; it grows by the tokens.
    pub sequence: &'a mut Sequence,
    /// The tokens, at least one.
    pub ids: &'a [u32],
    /// Tokens of the text as far as it is known, these included: angles may follow it.
    pub length: usize,
    /// After how many of the tokens, the last ones, logits are wanted.
    pub wanted: usize,
}

/// Where a token of a pass stands.
struct Token {
    piece: usize,
    place: usize,
}

impl Model {
    /// An empty sequence of this model.
    pub fn sequence(&self) -> Sequence {
        Sequence::new(self.core.layout)
    }

    /// What a page of its sequences holds.
    pub fn layout(&self) -> Layout {
        self.core.layout
    }

    /// Says whether a text of this length is seen otherwise than as a token more than one that is shorter by it: then all
    /// of it must be computed anew.
    pub fn changes_at(&self, length: usize) -> bool {
        self.turns.change_at(length)
    }

    /// Runs work on this model's threads.
    pub(crate) fn with_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// Computes pieces of texts and gives the logits that are wanted, one row of the vocabulary's length after the other.
    ///
    /// # Panics
    /// If logits are wanted after more tokens than there are.
    pub fn forward(&mut self, pieces: &mut [Piece]) -> Result<Vec<f32>> {
        let mut tokens = Vec::new();
        for (index, piece) in pieces.iter_mut().enumerate() {
            if piece.ids.is_empty() {
                return Err(Error::EmptyPrompt);
            }
            if let Some(id) = piece.ids.iter().find(|id| i64::from(**id) >= self.arch.vocab_size) {
                return Err(Error::TokenOutOfRange { id: i64::from(*id), vocab_size: self.arch.vocab_size });
            }
            let first = piece.sequence.len();
            tokens.extend((first..first + piece.ids.len()).map(|place| Token { piece: index, place }));
            piece.sequence.grow(piece.ids.len());
        }
        let places: Vec<(usize, usize)> =
            tokens.iter().map(|token| (token.place, pieces[token.piece].length)).collect();
        let turned = self.turns.of(&places);
        let core = &self.core;
        Ok(self.threads.install(|| core.forward(&tokens, pieces, &turned)))
    }
}

impl Core {
    fn forward(&self, tokens: &[Token], pieces: &mut [Piece], turned: &Turned) -> Vec<f32> {
        let d = self.d;
        let mut x = Vec::with_capacity(tokens.len() * d);
        for id in pieces.iter().flat_map(|piece| piece.ids) {
            self.embed(*id as usize, &mut x);
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            let mixed = self.attend(layer, block, &x, tokens, pieces, turned);
            add(&mut x, mixed, block.after_attention_norm.as_ref(), d);
            let mixed = block.feed.forward(&normal(&x, block.before_mlp_norm.as_ref(), d), d);
            add(&mut x, mixed, block.after_mlp_norm.as_ref(), d);
        }
        let mut last = Vec::new();
        let mut end = 0;
        for piece in pieces.iter() {
            end += piece.ids.len();
            last.extend_from_slice(&x[(end - piece.wanted) * d..end * d]);
        }
        if last.is_empty() {
            return Vec::new();
        }
        let n = last.len() / d;
        let mut logits = self.head.forward(&normal(&last, Some(&self.final_norm), d));
        if let Some(cap) = self.final_soft_cap {
            let vocabulary = logits.len() / n;
            each(&mut logits, vocabulary, |_, row| vectorised(Cap(cap, row)));
        }
        logits
    }

    /// Adds a token's embedding at the end.
    fn embed(&self, id: usize, x: &mut Vec<f32>) {
        let (start, d) = (x.len(), self.d);
        match &self.embedding {
            Embedding::F32(rows) => x.extend_from_slice(&rows[id * d..][..d]),
            Embedding::Bf16(rows) => x.extend(rows[id * d..][..d].iter().map(|bits| from_bf16(*bits))),
        }
        if let Some(scale) = self.embedding_scale {
            x[start..].iter_mut().for_each(|x| *x *= scale);
        }
    }

    /// Attention with its norm before and its projections: what comes to `x`, `[m, d]`.
    fn attend(
        &self,
        layer: usize,
        block: &Block,
        x: &[f32],
        tokens: &[Token],
        pieces: &mut [Piece],
        turned: &Turned,
    ) -> Vec<f32> {
        let Layout { heads: kv_heads, width, .. } = self.layout;
        let queries = self.query_heads * width;
        let stride = queries + 2 * kv_heads * width;
        let mut qkv = block.qkv.forward(&normal(x, block.input_norm.as_ref(), self.d));
        let angles = turned.of(block.window);
        each(&mut qkv, stride, |index, row| {
            vectorised(Turn {
                row,
                query_heads: self.query_heads,
                key_heads: kv_heads,
                width,
                normals: block.qk_norms.as_ref().map(|(reach, queries, keys)| (*reach, queries, keys)),
                clip: self.clip,
                angles: angles.map(|angles| angles.of(index)),
            });
        });
        for (token, row) in tokens.iter().zip(qkv.chunks_exact(stride)) {
            let (keys, values) = row[queries..].split_at(kv_heads * width);
            pieces[token.piece].sequence.write(layer, token.place, keys, values);
        }
        let sequences: Vec<&Sequence> = pieces.iter().map(|piece| &*piece.sequence).collect();
        let group = self.query_heads / kv_heads;
        let mut mixed = vec![0.0; tokens.len() * queries];
        mixed.par_chunks_mut(group * width).enumerate().for_each_init(Vec::new, |scores, (index, heads)| {
            let (token, kv_head) = (index / kv_heads, index % kv_heads);
            heads.copy_from_slice(&qkv[token * stride + kv_head * group * width..][..group * width]);
            let Token { piece, place } = tokens[token];
            vectorised(Query {
                settings: &self.settings,
                heads,
                first_head: kv_head * group,
                sequence: sequences[piece],
                layer,
                kv_head,
                place,
                window: block.window,
                scores,
            });
        });
        block.o.forward(&mixed)
    }
}

/// Numbers up to which rows are gone through by one thread: others would cost more to wake than they would do.
const ALONE: usize = 1 << 14;

/// Goes through rows of a width, by several threads where it pays.
fn each(rows: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    match rows.len() > ALONE {
        true => rows.par_chunks_mut(width).enumerate().for_each(|(index, row)| work(index, row)),
        false => rows.chunks_mut(width).enumerate().for_each(|(index, row)| work(index, row)),
    }
}

/// Rows, normalised where the model does.
fn normal(x: &[f32], normal: Option<&Normal>, d: usize) -> Vec<f32> {
    let mut rows = x.to_vec();
    if let Some(normal) = normal {
        each(&mut rows, d, |_, row| vectorised(Normalise(normal, row)));
    }
    rows
}

/// Adds rows to those of the residual stream, normalised first where the model does.
fn add(x: &mut [f32], mut rows: Vec<f32>, normal: Option<&Normal>, d: usize) {
    if let Some(normal) = normal {
        each(&mut rows, d, |_, row| vectorised(Normalise(normal, row)));
    }
    each(x, d, |index, to| vectorised(Add { to, row: &rows[index * d..][..d] }));
}

#[cfg(test)]
mod tests;
