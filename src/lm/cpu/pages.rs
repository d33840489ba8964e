//! Keys and values of sequences, in pages of [`PAGE`] tokens.
//!
//! A sequence takes a page when it needs one, and sequences with a common beginning share its pages until one of them
//! writes there: the samples of a prompt hold its keys and values once. It must not know models.

use std::sync::Arc;

use fuseline_torch::product::{from_bf16, to_bf16};

/// Tokens of a page.
pub const PAGE: usize = 64;

/// The number format of weights and of what is kept of tokens; sums are float32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// 32 bits.
    F32,
    /// The upper 16 of them.
    Bf16,
}

/// What a page has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Blocks of the model.
    pub layers: usize,
    /// Heads of keys and values of a block.
    pub heads: usize,
    /// Width of a head.
    pub width: usize,
    /// The format.
    pub number: Number,
}

impl Layout {
    /// Size of a page.
    pub fn page_bytes(&self) -> u64 {
        let bytes = match self.number {
            Number::F32 => 4,
            Number::Bf16 => 2,
        };
        bytes * self.cells() as u64
    }

    /// Pages of so many tokens.
    pub fn pages(tokens: usize) -> usize {
        tokens.div_ceil(PAGE)
    }

    fn cells(&self) -> usize {
        2 * self.layers * self.heads * self.width * PAGE
    }

    /// Where a head's keys, `[width, PAGE]`, and its values, `[PAGE, width]`, begin in a page.
    fn start(&self, layer: usize, head: usize) -> [usize; 2] {
        let block = self.width * PAGE;
        let keys = (2 * layer * self.heads + head) * block;
        [keys, keys + self.heads * block]
    }
}

/// One page.
#[derive(Debug, Clone)]
enum Page {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

/// A head's keys, `[width, PAGE]`, or values, `[PAGE, width]`, of one page.
#[derive(Debug, Clone, Copy)]
pub enum Held<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// As bits.
    Bf16(&'a [u16]),
}

/// What was seen of one text.
#[derive(Debug, Clone)]
pub struct Sequence {
    layout: Layout,
    pages: Vec<Arc<Page>>,
    len: usize,
}

impl Sequence {
    /// A sequence without tokens.
    pub fn new(layout: Layout) -> Self {
        Self { layout, pages: Vec::new(), len: 0 }
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Width of a head.
    pub(super) fn width(&self) -> usize {
        self.layout.width
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.len = 0;
    }

    /// Makes room for more tokens in pages of its own and counts them as held.
    pub(super) fn grow(&mut self, more: usize) {
        let first = self.len / PAGE;
        self.len += more;
        for page in self.pages.iter_mut().skip(first) {
            Arc::make_mut(page);
        }
        let cells = self.layout.cells();
        self.pages.resize_with(Layout::pages(self.len), || {
            Arc::new(match self.layout.number {
                Number::F32 => Page::F32(vec![0.0; cells]),
                Number::Bf16 => Page::Bf16(vec![0; cells]),
            })
        });
    }

    /// Writes one token's keys and values, `[heads, width]` each, at a place that [`Self::grow`] has made.
    pub(super) fn write(&mut self, layer: usize, place: usize, keys: &[f32], values: &[f32]) {
        let layout = self.layout;
        let page = Arc::get_mut(&mut self.pages[place / PAGE]).expect("pages with new tokens are the sequence's own");
        for head in 0..layout.heads {
            let starts = layout.start(layer, head);
            let heads = [keys, values].map(|side| &side[head * layout.width..][..layout.width]);
            match page {
                Page::F32(cells) => put(cells, starts, place % PAGE, heads, |x| x),
                Page::Bf16(cells) => put(cells, starts, place % PAGE, heads, to_bf16),
            }
        }
    }

    /// A head's keys and values in one page.
    pub(super) fn held(&self, layer: usize, head: usize, page: usize) -> [Held<'_>; 2] {
        let length = self.layout.width * PAGE;
        self.layout.start(layer, head).map(|start| match &*self.pages[page] {
            Page::F32(cells) => Held::F32(&cells[start..start + length]),
            Page::Bf16(cells) => Held::Bf16(&cells[start..start + length]),
        })
    }
}

/// Writes a head's key and value at a place of a page.
fn put<T>(cells: &mut [T], [key, value]: [usize; 2], at: usize, heads: [&[f32]; 2], kept: impl Fn(f32) -> T) {
    for (cell, x) in cells[key + at..].iter_mut().step_by(PAGE).zip(heads[0]) {
        *cell = kept(*x);
    }
    for (cell, x) in cells[value + at * heads[1].len()..].iter_mut().zip(heads[1]) {
        *cell = kept(*x);
    }
}

/// A number that is kept.
pub(super) trait Kept: Copy {
    fn get(self) -> f32;
}

impl Kept for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
}

impl Kept for u16 {
    #[inline(always)]
    fn get(self) -> f32 {
        from_bf16(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_page_is_copied_when_it_is_written() {
        let layout = Layout { layers: 1, heads: 1, width: 1, number: Number::Bf16 };
        let mut one = Sequence::new(layout);
        one.grow(PAGE + 1);
        for place in 0..=PAGE {
            one.write(0, place, &[place as f32], &[1.0]);
        }
        let mut two = one.clone();
        two.grow(1);
        two.write(0, PAGE + 1, &[7.0], &[2.0]);
        assert!(Arc::ptr_eq(&one.pages[0], &two.pages[0]), "the full page is shared");
        let keys = |sequence: &Sequence, place: usize| match sequence.held(0, 0, place / PAGE)[0] {
            Held::Bf16(keys) => keys[place % PAGE].get(),
            Held::F32(_) => unreachable!("kept in bfloat16"),
        };
        assert_eq!((keys(&two, PAGE), keys(&two, PAGE + 1), keys(&one, PAGE + 1)), (64.0, 7.0, 0.0));
        assert_eq!((one.len(), two.len()), (65, 66));
        // 2 sides of 64 places of 2 bytes.
        assert_eq!(layout.page_bytes(), 256);
        two.clear();
        assert!(two.is_empty());
    }
}
