//! Memory for keys and values, counted in pages before it is taken: who would go beyond the limit waits.
//!
//! A prompt's pages are counted once for all its samples; a sample counts the pages that it may come to write, those of
//! its longest answer. A prompt is let in together with room for one sample, so that whoever was let in can end.

use super::{Limits, Params, Request};
use crate::cpu::{Layout, PAGE};
use crate::error::{Error, Result};

/// The pages there may be, and those that are spoken for.
#[derive(Debug)]
pub(super) struct Room {
    pages: usize,
    taken: usize,
}

/// Pages of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// Of its prompt.
    pub prompt: usize,
    /// Of each sample besides: from the page in which the prompt ends, which it cannot share.
    pub sample: usize,
}

impl Need {
    pub(super) fn of(prompt_tokens: usize, answer_tokens: usize) -> Self {
        let shared = prompt_tokens / PAGE;
        Self { prompt: Layout::pages(prompt_tokens), sample: Layout::pages(prompt_tokens + answer_tokens) - shared }
    }
}

impl Room {
    pub(super) fn new(layout: Layout, limits: &Limits) -> Self {
        Self { pages: (limits.cache_bytes / layout.page_bytes().max(1)) as usize, taken: 0 }
    }

    /// Takes pages if there are so many.
    pub(super) fn take(&mut self, pages: usize) -> bool {
        let fits = self.taken + pages <= self.pages;
        if fits {
            self.taken += pages;
        }
        fits
    }

    pub(super) fn give_back(&mut self, pages: usize) {
        self.taken -= pages;
    }
}

/// Refuses a request that cannot be answered: no prompt, one too long for the model, or for the memory there may be.
pub(super) fn check(
    index: usize,
    request: &Request,
    max_positions: usize,
    layout: Layout,
    params: &Params,
    limits: &Limits,
) -> Result<()> {
    let (what, tokens) = (|| format!("prompt {index}"), request.prompt.len());
    if tokens == 0 {
        return Err(Error::EmptyPrompt);
    }
    if tokens >= max_positions {
        return Err(Error::TooLong { what: what(), tokens, limit: max_positions });
    }
    let answer = params.max_tokens.min(max_positions - tokens);
    let need = Need::of(tokens, answer);
    let needed_bytes = (need.prompt + need.sample) as u64 * layout.page_bytes();
    match needed_bytes > limits.cache_bytes {
        true => {
            let cache_bytes = limits.cache_bytes;
            Err(Error::CacheTooSmall { what: what(), tokens: tokens + answer, needed_bytes, cache_bytes })
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_by_hand() {
        // 130 tokens lie in three pages, two of them full; with 70 more there are four.
        assert_eq!(Need::of(130, 70), Need { prompt: 3, sample: 2 });
        assert_eq!(Need::of(64, 1), Need { prompt: 1, sample: 1 });
        let mut room = Room { pages: 5, taken: 0 };
        assert!(room.take(4) && !room.take(2));
        room.give_back(1);
        assert!(room.take(2) && !room.take(1));
    }
}
