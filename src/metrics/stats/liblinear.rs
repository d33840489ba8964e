//! L1-regularised logistic regression as LIBLINEAR solves it (G. Yuan, C. Ho, C. Lin, An improved GLMNET for L1-regularized
//! logistic regression, JMLR 13, 2012), in the form in which scikit-learn 1.4 has it: weighted rows, and coordinates in an order
//! that a seeded generator draws. It stops at a tolerance, and published figures hold what it had then: to meet them to the
//! digit, the same steps are taken here in the same order. For a minimum, use [`fit_logistic`](super::fit_logistic).

/// Rows of one of two classes, with weights; rows of weight zero must not be among them.
#[derive(Debug, Clone, Default)]
pub struct Classified {
    /// For each column the rows in which it is not zero, ascending, with its values. Rows of the negative class come first.
    pub columns: Vec<Vec<(usize, f64)>>,
    /// What an error on each row costs.
    pub costs: Vec<f64>,
    /// How many rows are of the negative class.
    pub n_negative: usize,
}

/// How exact a solution is, relative to the first gradient; scikit-learn's `tol`.
const TOLERANCE: f64 = 1e-4;
/// Newton steps at most; scikit-learn's `max_iter`.
const MOST_STEPS: usize = 100;
/// Rounds over the coordinates in a step at most.
const MOST_ROUNDS: usize = 1000;
/// Halvings of a step at most.
const MOST_HALVINGS: usize = 20;
/// Added to the Hessian's diagonal.
const RIDGE: f64 = 1e-12;
/// The share of the predicted decrease that a step must achieve.
const SUFFICIENT: f64 = 0.01;
/// A coordinate's change that is no change, and the largest one.
const SMALLEST_CHANGE: f64 = 1e-12;
const LARGEST_CHANGE: f64 = 10.0;

/// The coefficients that minimise `Σ |β| + Σ cost · ln(1 + exp(∓ x·β))`, as far as LIBLINEAR goes.
pub fn fit_liblinear(rows: &Classified, seed: u32) -> Vec<f64> {
    let mut state = State::new(rows, seed);
    let n_positive = rows.costs.len() - rows.n_negative;
    let tolerance = TOLERANCE * rows.n_negative.min(n_positive).max(1) as f64 / rows.costs.len() as f64;
    let mut inner_tolerance = 1.0;
    let mut first_norm = None;
    let mut largest = f64::INFINITY;
    for _ in 0..MOST_STEPS {
        let (n_active, norm, largest_now) = state.gradient(largest);
        let first_norm = *first_norm.get_or_insert(norm);
        if norm <= tolerance * first_norm {
            break;
        }
        let rounds = state.quadratic(n_active, inner_tolerance * first_norm);
        state.line_search();
        if rounds == 1 {
            inner_tolerance *= 0.25;
        }
        largest = largest_now;
    }
    state.beta
}

/// Everything that a step changes.
struct State<'a> {
    rows: &'a Classified,
    random: Mersenne,
    /// Columns in the order in which they are visited, the active ones first.
    order: Vec<usize>,
    beta: Vec<f64>,
    /// Where the quadratic model would go.
    goal: Vec<f64>,
    gradient: Vec<f64>,
    diagonal: Vec<f64>,
    /// For each column the sum of cost times value over rows of the negative class.
    negative_sum: Vec<f64>,
    /// Σ |β|.
    size: f64,
    /// For each row exp(x·β), cost / (1 + exp(x·β)), the loss's second derivative, and x·(goal − β).
    exp: Vec<f64>,
    tau: Vec<f64>,
    bend: Vec<f64>,
    toward: Vec<f64>,
}

/// How far a coefficient is from what the subgradient allows, or none where it may rest at zero: within `slack` of it.
fn violation(value: f64, gradient: f64, slack: f64) -> Option<f64> {
    let (up, down) = (gradient + 1.0, gradient - 1.0);
    if value > 0.0 {
        Some(up.abs())
    } else if value < 0.0 {
        Some(down.abs())
    } else if up < 0.0 {
        Some(-up)
    } else if down > 0.0 {
        Some(down)
    } else if up > slack && down < -slack {
        None
    } else {
        Some(0.0)
    }
}

impl<'a> State<'a> {
    fn new(rows: &'a Classified, seed: u32) -> Self {
        let (n, n_rows) = (rows.columns.len(), rows.costs.len());
        let negative_sum = |column: &Vec<(usize, f64)>| {
            let negative = column.iter().filter(|(row, _)| *row < rows.n_negative);
            negative.fold(0.0, |sum, (row, value)| sum + rows.costs[*row] * value)
        };
        let mut state = Self {
            rows,
            random: Mersenne::new(seed),
            order: (0..n).collect(),
            beta: vec![0.0; n],
            goal: vec![0.0; n],
            gradient: vec![0.0; n],
            diagonal: vec![0.0; n],
            negative_sum: rows.columns.iter().map(negative_sum).collect(),
            size: 0.0,
            exp: vec![1.0; n_rows],
            tau: vec![0.0; n_rows],
            bend: vec![0.0; n_rows],
            toward: vec![0.0; n_rows],
        };
        state.derive();
        state
    }

    /// The derivatives of every row's loss at the present exp(x·β).
    fn derive(&mut self) {
        for (row, cost) in self.rows.costs.iter().enumerate() {
            let part = 1.0 / (1.0 + self.exp[row]);
            self.tau[row] = cost * part;
            self.bend[row] = cost * self.exp[row] * part * part;
        }
    }

    /// Gradient and diagonal of the Hessian; columns that may rest at zero are put behind the active ones. Gives how many are
    /// active, the sum of violations and the largest.
    fn gradient(&mut self, largest_before: f64) -> (usize, f64, f64) {
        let slack = largest_before / self.rows.costs.len() as f64;
        let (mut n_active, mut norm, mut largest) = (self.order.len(), 0.0, 0.0_f64);
        let mut place = 0;
        while place < n_active {
            let j = self.order[place];
            let (mut diagonal, mut sum) = (RIDGE, 0.0);
            for (row, value) in &self.rows.columns[j] {
                diagonal += value * value * self.bend[*row];
                sum += value * self.tau[*row];
            }
            self.diagonal[j] = diagonal;
            self.gradient[j] = -sum + self.negative_sum[j];
            match violation(self.beta[j], self.gradient[j], slack) {
                None => {
                    n_active -= 1;
                    self.order.swap(place, n_active);
                }
                Some(violation) => {
                    largest = largest.max(violation);
                    norm += violation;
                    place += 1;
                }
            }
        }
        (n_active, norm, largest)
    }

    /// Coordinate descent on the quadratic model; gives how many rounds were made.
    fn quadratic(&mut self, n_active: usize, tolerance: f64) -> usize {
        let n_rows = self.rows.costs.len() as f64;
        let (mut n_moving, mut largest_before) = (n_active, f64::INFINITY);
        self.toward.fill(0.0);
        for round in 1..=MOST_ROUNDS {
            for place in 0..n_moving {
                let other = place + self.random.below((n_moving - place) as u32) as usize;
                self.order.swap(place, other);
            }
            let (mut norm, mut largest) = (0.0, 0.0_f64);
            let mut place = 0;
            while place < n_moving {
                let j = self.order[place];
                let start = self.gradient[j] + (self.goal[j] - self.beta[j]) * RIDGE;
                let column = &self.rows.columns[j];
                let slope =
                    column.iter().fold(start, |sum, (row, value)| sum + value * self.bend[*row] * self.toward[*row]);
                let Some(violation) = violation(self.goal[j], slope, largest_before / n_rows) else {
                    n_moving -= 1;
                    self.order.swap(place, n_moving);
                    continue;
                };
                largest = largest.max(violation);
                norm += violation;
                place += 1;
                let (up, down, bend) = (slope + 1.0, slope - 1.0, self.diagonal[j]);
                let change = if up < bend * self.goal[j] {
                    -up / bend
                } else if down > bend * self.goal[j] {
                    -down / bend
                } else {
                    -self.goal[j]
                };
                if change.abs() < SMALLEST_CHANGE {
                    continue;
                }
                let change = change.clamp(-LARGEST_CHANGE, LARGEST_CHANGE);
                self.goal[j] += change;
                for (row, value) in column {
                    self.toward[*row] += value * change;
                }
            }
            if norm <= tolerance {
                if n_moving == n_active {
                    return round;
                }
                // Those that rested are looked at once more.
                (n_moving, largest_before) = (n_active, f64::INFINITY);
            } else {
                largest_before = largest;
            }
        }
        MOST_ROUNDS
    }

    /// Goes as far towards the goal as the loss falls enough, halving the way.
    fn line_search(&mut self) {
        let steps = self.gradient.iter().zip(self.goal.iter().zip(&self.beta));
        let mut predicted: f64 = steps.fold(0.0, |sum, (gradient, (goal, beta))| sum + gradient * (goal - beta));
        let size_of = |beta: &[f64]| beta.iter().fold(0.0, |sum, beta| sum + beta.abs());
        let mut size = size_of(&self.goal);
        predicted += size - self.size;
        let negative = self.rows.costs.iter().zip(&self.toward).take(self.rows.n_negative);
        let mut negative_change: f64 = negative.fold(0.0, |sum, (cost, toward)| sum + cost * toward);
        for _ in 0..MOST_HALVINGS {
            let mut change = size - self.size + negative_change - SUFFICIENT * predicted;
            let mut moved = Vec::with_capacity(self.exp.len());
            for (row, cost) in self.rows.costs.iter().enumerate() {
                let step = self.toward[row].exp();
                let exp = self.exp[row] * step;
                change += cost * ((1.0 + exp) / (step + exp)).ln();
                moved.push(exp);
            }
            if change <= 0.0 {
                self.size = size;
                self.beta.copy_from_slice(&self.goal);
                self.exp = moved;
                self.derive();
                return;
            }
            for (goal, beta) in self.goal.iter_mut().zip(&self.beta) {
                *goal = (beta + *goal) * 0.5;
            }
            size = size_of(&self.goal);
            predicted *= 0.5;
            negative_change *= 0.5;
            self.toward.iter_mut().for_each(|toward| *toward *= 0.5);
        }
        self.exp.fill(0.0);
        for (column, beta) in self.rows.columns.iter().zip(&self.beta).filter(|(_, beta)| **beta != 0.0) {
            for (row, value) in column {
                self.exp[*row] += beta * value;
            }
        }
        self.exp.iter_mut().for_each(|exp| *exp = exp.exp());
    }
}

/// MT19937 (M. Matsumoto, T. Nishimura, ACM TOMACS 8, 1998) with the seeding of C++'s `std::mt19937`.
struct Mersenne {
    words: Vec<u32>,
    next: usize,
}

const N_WORDS: usize = 624;
const SHIFT: usize = 397;

impl Mersenne {
    fn new(seed: u32) -> Self {
        let mut words = vec![seed];
        for i in 1..N_WORDS {
            let last = words[i - 1];
            words.push(1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32));
        }
        Self { words, next: N_WORDS }
    }

    fn bits(&mut self) -> u32 {
        if self.next == N_WORDS {
            for i in 0..N_WORDS {
                let joined = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % N_WORDS] & 0x7fff_ffff);
                let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.words[i] = self.words[(i + SHIFT) % N_WORDS] ^ (joined >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut bits = self.words[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    /// A number in `0..bound` by Lemire's multiplication with rejection.
    fn below(&mut self, bound: u32) -> u32 {
        let reject_below = bound.wrapping_neg() % bound;
        loop {
            let wide = u64::from(self.bits()) * u64::from(bound);
            if wide as u32 >= reject_below {
                return (wide >> 32) as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_standard_one() {
        // The C++ standard: the 10,000th number of the default seed is 4123659995.
        let mut random = Mersenne::new(5489);
        let last = (0..10_000).map(|_| random.bits()).last();
        assert_eq!(last, Some(4_123_659_995));
        assert!((0..100).all(|_| random.below(3) < 3));
    }

    #[test]
    fn a_constant_is_found_to_the_tolerance() {
        // Three of one class, one of the other, cost 2 each: 8 (σ(β) − 3/4) + 1 = 0, σ(β) = 5/8.
        let column: Vec<(usize, f64)> = (0..4).map(|row| (row, 1.0)).collect();
        let rows = Classified { columns: vec![column], costs: vec![2.0; 4], n_negative: 1 };
        let beta = fit_liblinear(&rows, 1)[0];
        assert!((beta - (5.0_f64 / 3.0).ln()).abs() < 1e-4, "{beta}");
        // With next to no cost nothing moves.
        let idle = Classified { costs: vec![0.1; 4], ..rows };
        assert_eq!(fit_liblinear(&idle, 1), [0.0]);
    }
}
