//! Keys and values of tokens that were seen, in slots: one slot holds one sequence.
//!
//! Generation fills a slot by a prompt, copies it to the slots of the prompt's samples and
//! adds one token to each of them per step. This file must not know models or sampling;
//! `decoder.rs` computes what is stored here.
//!
//! A step computes every slot, used or not, and looks at keys in blocks of [`REACH`], so
//! the shapes of its matrix products do not depend on which sequences are about. Then a
//! sequence's numbers are, bit for bit on the CPU, the same alone and among others, as long
//! as the number of slots is the same: take [`SLOTS`].

use fuseline_torch::tch::{Device, Kind, Tensor};

use crate::arch::Architecture;
use crate::error::{Error, Result};
use crate::parts::packed::Packed;

/// Number of slots that generation should use; results are promised for equal numbers only.
pub const SLOTS: usize = 64;

/// Keys are looked at in multiples of this many, the rest masked.
const REACH: usize = 64;

/// Keys and values per layer and slot, and which tokens each slot holds.
///
/// It belongs to the weights that the model had when it was made: after a step of training it
/// must be made anew.
#[derive(Debug)]
pub struct Cache {
    /// Per layer `[slots, kv_heads, head_dim, places]`.
    keys: Vec<Tensor>,
    /// Per layer `[slots, kv_heads, places, head_dim]`.
    values: Vec<Tensor>,
    /// The projections as a step wants them.
    pub(crate) layout: Layout,
    /// Per slot the tokens that it holds.
    tokens: Vec<Vec<i64>>,
    max_len: usize,
    /// `0, 1, … slots − 1`.
    slot_numbers: Tensor,
}

/// A model's projections as a step wants them.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) blocks: Vec<BlockLayout>,
    pub(crate) head: Packed,
}

/// One block's projections.
#[derive(Debug)]
pub(crate) struct BlockLayout {
    pub(crate) qkv: Packed,
    pub(crate) o: Packed,
    /// Gate and projection up, and the projection back; none where there are experts.
    pub(crate) mlp: Option<(Packed, Packed)>,
}

impl Cache {
    /// Makes an empty cache of `slots` sequences of up to `max_len` tokens each.
    pub(crate) fn new(
        arch: &Architecture,
        layout: Layout,
        slots: usize,
        max_len: usize,
        device: Device,
        kind: Kind,
    ) -> Self {
        // One place more than tokens: a full slot that is not stepped has somewhere to write to.
        let places = (max_len + 1).next_multiple_of(REACH) as i64;
        let (n, kv_heads, e) = (slots as i64, arch.n_kv_heads, arch.head_dim);
        // Zeros, not fresh memory: a masked value is multiplied by zero, which NaN survives.
        let zeros = |shape: [i64; 4]| (0..arch.n_layers).map(|_| Tensor::zeros(shape, (kind, device))).collect();
        Self {
            keys: zeros([n, kv_heads, e, places]),
            values: zeros([n, kv_heads, places, e]),
            layout,
            tokens: vec![Vec::new(); slots],
            max_len,
            slot_numbers: Tensor::arange(slots as i64, (Kind::Int64, device)),
        }
    }

    /// Returns the number of slots.
    pub fn slots(&self) -> usize {
        self.tokens.len()
    }

    /// Returns how many tokens a slot can hold.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Returns how many tokens a slot holds; zero means that it is free.
    pub fn len(&self, slot: usize) -> usize {
        self.tokens[slot].len()
    }

    /// Says whether no slot holds anything.
    pub fn is_empty(&self) -> bool {
        self.tokens.iter().all(Vec::is_empty)
    }

    /// Returns how many more tokens fit into a slot.
    pub fn room(&self, slot: usize) -> usize {
        self.max_len - self.len(slot)
    }

    /// Forgets a slot's tokens from `len` on; zero frees it. See [`crate::Decoder::keeps_prefix`].
    pub fn truncate(&mut self, slot: usize, len: usize) {
        self.tokens[slot].truncate(len);
    }

    /// Copies a slot to others, which lose what they held.
    pub fn copy(&mut self, from: usize, to: &[usize]) {
        let length = self.len(from);
        let targets: Vec<i64> = to.iter().filter(|&&slot| slot != from).map(|&slot| slot as i64).collect();
        for &slot in &targets {
            self.tokens[slot as usize] = self.tokens[from].clone();
        }
        if targets.is_empty() || length == 0 {
            return;
        }
        let index = Tensor::from_slice(&targets).to_device(self.slot_numbers.device());
        for (tensors, axis) in [(&self.keys, 3), (&self.values, 2)] {
            for tensor in tensors {
                let held = tensor.narrow(axis, 0, length as i64);
                let source = held.narrow(0, from as i64, 1);
                let mut size = source.size();
                size[0] = targets.len() as i64;
                let _ = held.shallow_clone().index_copy_(0, &index, &source.expand(size, false));
            }
        }
    }

    /// Refuses what does not fit into a slot.
    pub(crate) fn check_room(&self, slot: usize, more: usize) -> Result<()> {
        match self.len(slot) + more {
            needed if needed > self.max_len => Err(Error::CacheFull { slot, needed, max_len: self.max_len }),
            _ => Ok(()),
        }
    }

    /// Stores a prompt's keys and values, `[1, t, kv_heads, head_dim]` each, from a slot's beginning.
    pub(crate) fn store(&mut self, layer: usize, slot: usize, keys: &Tensor, values: &Tensor) {
        let (slot, t) = (slot as i64, keys.size()[1]);
        self.keys[layer].get(slot).narrow(2, 0, t).copy_(&keys.squeeze_dim(0).permute([1, 2, 0]));
        self.values[layer].get(slot).narrow(1, 0, t).copy_(&values.squeeze_dim(0).transpose(0, 1));
    }

    /// Stores one token's key and value per slot, `[slots, kv_heads, head_dim]` each, at
    /// `places: [slots]`.
    pub(crate) fn append(&self, layer: usize, places: &Tensor, key: &Tensor, value: &Tensor) {
        let (slots, places) = (Some(&self.slot_numbers), Some(places));
        let _ = self.keys[layer].shallow_clone().index_put_(&[slots, None, None, places], key, false);
        let _ = self.values[layer].shallow_clone().index_put_(&[slots, None, places], value, false);
    }

    /// Returns a layer's keys, `[slots, kv_heads, head_dim, reach]`, and values,
    /// `[slots, kv_heads, reach, head_dim]`.
    pub(crate) fn held(&self, layer: usize, reach: usize) -> (Tensor, Tensor) {
        let reach = reach as i64;
        (self.keys[layer].narrow(3, 0, reach), self.values[layer].narrow(2, 0, reach))
    }

    /// Returns how many keys must be looked at for `length` tokens.
    pub(crate) fn reach(length: usize) -> usize {
        length.next_multiple_of(REACH)
    }

    /// Returns every slot's length as the place of its next token, `[slots]`.
    pub(crate) fn places(&self) -> Tensor {
        let lengths: Vec<i64> = self.tokens.iter().map(|tokens| tokens.len() as i64).collect();
        Tensor::from_slice(&lengths).to_device(self.slot_numbers.device())
    }

    /// Returns the tokens that a slot holds.
    pub(crate) fn tokens(&self, slot: usize) -> &[i64] {
        &self.tokens[slot]
    }

    /// Says which tokens a slot holds, their keys and values being stored.
    pub(crate) fn set(&mut self, slot: usize, tokens: &[i64]) {
        self.tokens[slot] = tokens.to_vec();
    }

    /// Says that a slot holds one token more.
    pub(crate) fn push(&mut self, slot: usize, token: i64) {
        self.tokens[slot].push(token);
    }
}
