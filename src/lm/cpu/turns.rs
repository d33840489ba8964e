//! Cosine and sine of the angles by which tokens are turned, kept by position. It must not know heads.

use fuseline_torch::tch::{Device, Kind, Tensor};

use crate::arch::Positions;
use crate::parts::rope::Rotary;

/// Positions that are computed at once.
const STEP: usize = 256;
/// Lengths of texts of which angles are kept, where they follow the length.
const KEPT: usize = 4;

/// The rotary embeddings of a model; none where positions are told otherwise.
#[derive(Debug)]
pub(super) struct Turns {
    all: Option<Table>,
    /// Of layers with a window, where it is another.
    windowed: Option<Table>,
}

/// The angles of the tokens of one pass.
#[derive(Debug)]
pub(super) struct Angles {
    width: usize,
    /// `[m, width]`.
    cos: Vec<f32>,
    /// `[m, width]`, the first half of each token's negated.
    sin: Vec<f32>,
}

/// The angles of one pass.
#[derive(Debug)]
pub(super) struct Turned {
    all: Option<Angles>,
    windowed: Option<Angles>,
}

#[derive(Debug)]
struct Table {
    rotary: Rotary,
    width: usize,
    /// Cosines and sines by position, for lengths with the same angles, named by one of them.
    by_length: Vec<(usize, Vec<f32>, Vec<f32>)>,
}

impl Turns {
    pub(super) fn new(positions: &Positions) -> Self {
        match positions {
            Positions::Alibi => Self { all: None, windowed: None },
            Positions::Rotary { rope, windowed } => {
                let table = |rope| Table::new(Rotary::new(rope, Device::Cpu), rope.width as usize);
                Self { all: Some(table(rope)), windowed: windowed.as_ref().map(table) }
            }
        }
    }

    /// Says whether a text of this length has other angles than it had one token before.
    pub(super) fn change_at(&self, length: usize) -> bool {
        self.all.iter().chain(&self.windowed).any(|table| table.rotary.changes_at(length))
    }

    /// Angles of tokens, each with its place and the length of its text.
    pub(super) fn of(&mut self, tokens: &[(usize, usize)]) -> Turned {
        let angles = |table: &mut Option<Table>| table.as_mut().map(|table| table.of(tokens));
        Turned { all: angles(&mut self.all), windowed: angles(&mut self.windowed) }
    }
}

impl Turned {
    /// Those of a layer with this window.
    pub(super) fn of(&self, window: Option<usize>) -> Option<&Angles> {
        self.windowed.as_ref().filter(|_| window.is_some()).or(self.all.as_ref())
    }
}

impl Angles {
    /// Cosines and sines of one token of the pass.
    pub(super) fn of(&self, token: usize) -> (&[f32], &[f32]) {
        let places = token * self.width..(token + 1) * self.width;
        (&self.cos[places.clone()], &self.sin[places])
    }
}

impl Table {
    fn new(rotary: Rotary, width: usize) -> Self {
        Self { rotary, width, by_length: Vec::new() }
    }

    fn of(&mut self, tokens: &[(usize, usize)]) -> Angles {
        let width = self.width;
        let (mut cos, mut sin) = (Vec::with_capacity(tokens.len() * width), Vec::with_capacity(tokens.len() * width));
        for &(place, length) in tokens {
            let index = self.table(length, place);
            let (_, cosines, sines) = &self.by_length[index];
            cos.extend_from_slice(&cosines[place * width..][..width]);
            sin.extend_from_slice(&sines[place * width..][..width]);
        }
        Angles { width, cos, sin }
    }

    /// The entry of texts of this length, which reaches this place.
    fn table(&mut self, length: usize, place: usize) -> usize {
        let name = self.rotary.same_as(length);
        let index = self.by_length.iter().position(|(known, ..)| *known == name).unwrap_or_else(|| {
            if self.by_length.len() == KEPT {
                self.by_length.remove(0);
            }
            self.by_length.push((name, Vec::new(), Vec::new()));
            self.by_length.len() - 1
        });
        let held = self.by_length[index].1.len() / self.width;
        if held <= place {
            let end = (place + 1).next_multiple_of(STEP);
            let positions = Tensor::arange_start(held as i64, end as i64, (Kind::Int64, Device::Cpu));
            let lengths = || Tensor::full([(end - held) as i64], length as i64, (Kind::Int64, Device::Cpu));
            let [cos, sin] = self.rotary.angles(&positions, lengths, Kind::Float).values();
            self.by_length[index].1.extend(cos);
            self.by_length[index].2.extend(sin);
        }
        index
    }
}
