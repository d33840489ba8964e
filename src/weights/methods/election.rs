//! The election of a sign for one element: models vote, those of the losing sign and those at zero are dropped.
//! TIES, arXiv 2306.01708, and SCE, arXiv 2408.07990, share it. Must not know what is summed.

/// The votes and sums of one element, collected model by model.
#[derive(Debug, Default)]
pub(super) struct Election {
    votes: f64,
    plus: Side,
    minus: Side,
}

/// The models of one sign.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Side {
    /// The sum of what they contribute.
    pub sum: f64,
    /// The sum of their weights.
    pub weight: f64,
}

impl Election {
    /// Counts a model whose value is `x`, which votes `vote`, and adds `contribution` and `weight` if its sign wins.
    /// A zero only votes; a NaN spoils both sides, so that it is not dropped silently.
    #[inline]
    pub fn count(&mut self, x: f64, vote: f64, contribution: f64, weight: f64) {
        self.votes += vote;
        if x > 0.0 {
            self.plus.sum += contribution;
            self.plus.weight += weight;
        } else if x < 0.0 {
            self.minus.sum += contribution;
            self.minus.weight += weight;
        } else if x.is_nan() {
            self.plus.sum = f64::NAN;
            self.minus.sum = f64::NAN;
        }
    }

    /// Says whether plus wins; it does so in a tie, too.
    #[inline]
    pub fn plus_wins(&self) -> bool {
        self.votes >= 0.0
    }

    /// Gives the side that wins.
    #[inline]
    pub fn winner(&self) -> Side {
        if self.plus_wins() { self.plus } else { self.minus }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn winner(votes: &[f64]) -> Side {
        let mut election = Election::default();
        votes.iter().for_each(|&x| election.count(x, x, 10.0 * x, 1.0));
        election.winner()
    }

    #[test]
    fn the_larger_total_wins_and_a_tie_is_plus() {
        assert_eq!(winner(&[1.0, 1.0, -3.0]), Side { sum: -30.0, weight: 1.0 });
        assert_eq!(winner(&[1.0, 2.0, -3.0, 0.0]), Side { sum: 30.0, weight: 2.0 });
        assert_eq!(winner(&[0.0]), Side { sum: 0.0, weight: 0.0 });
        assert!(winner(&[1.0, f64::NAN]).sum.is_nan());
    }
}
