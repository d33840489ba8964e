//! A mixture of experts in place of the feed-forward block. It must not know norms or residuals.
//!
//! Shazeer et al. 2017, arXiv 1701.06538: a router weighs the experts per token, the best `top_k`
//! are computed. Softmax over all experts in float32 before the choice, as in
//! `huggingface/transformers` `models/{mixtral,qwen2_moe}/modeling_*.py`.
//!
//! Letters: n tokens, d hidden, x experts, f width inside an expert, c chosen experts per token.

use fuseline_torch::tch::{Kind, Tensor};

use super::linear::Linear;
use super::mlp::{Mlp, gated};
use crate::arch::Activation;

/// Rows that an expert computes at once, the last block filled up with zeros. Then no shape depends
/// on what else is in a batch, so that a token's numbers do not, in their last digits.
const BLOCK: usize = 64;

/// The experts of one layer and their router.
#[derive(Debug)]
pub struct Experts {
    /// `d` to `x`.
    pub router: Linear,
    /// Gate, then gated projection, of every expert: `[x, 2·f, d]`.
    pub gate_up: Tensor,
    /// `[x, d, f]`.
    pub down: Tensor,
    /// How many experts a token goes through.
    pub top_k: i64,
    /// Whether the weights of the chosen are made to sum to one.
    pub normalize: bool,
    /// Applied to the gates.
    pub activation: Activation,
    /// What every token goes through besides.
    pub shared: Option<Shared>,
}

/// The expert of every token.
#[derive(Debug)]
pub struct Shared {
    /// Its feed-forward block.
    pub mlp: Mlp,
    /// `d` to 1: the sigmoid of it is the share of the block's output.
    pub share: Linear,
}

impl Experts {
    /// Maps `x: [.., d]` to the same shape: every expert computes its own tokens only.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let x_nd = x.reshape([-1, size[size.len() - 1]]);
        let (weights_nc, chosen_nc) = self.route(&x_nd);
        let (n, n_experts, device) = (x_nd.size()[0], self.gate_up.size()[0], x_nd.device());
        let chosen = Vec::<i64>::try_from(chosen_nc.view([-1])).expect("experts are numbered");
        // Places in `chosen` by expert; the filling's is beyond the last.
        let mut places = Vec::new();
        let mut experts = Vec::new();
        for expert in 0..n_experts {
            let own = (0..).zip(&chosen).filter(|(_, chosen)| **chosen == expert).map(|(place, _): (i64, _)| place);
            places.extend(own);
            places.resize(places.len().next_multiple_of(BLOCK), chosen.len() as i64);
            experts.resize(places.len() / BLOCK, expert);
        }
        let tokens: Vec<i64> = places.iter().map(|place| place / self.top_k).collect();
        let [places, tokens] = [places, tokens].map(|values| Tensor::from_slice(&values).to_device(device));
        let rows = x_nd.constant_pad_nd([0, 0, 0, 1]).index_select(0, &tokens);
        let (gate_up, down) = (self.gate_up.unbind(0), self.down.unbind(0));
        let blocks = rows.split(BLOCK as i64, 0);
        let outputs: Vec<Tensor> = blocks
            .iter()
            .zip(&experts)
            .map(|(block, &expert)| {
                let inner = gated(self.activation, &block.linear(&gate_up[expert as usize], None::<&Tensor>));
                inner.linear(&down[expert as usize], None::<&Tensor>)
            })
            .collect();
        let weights = weights_nc.reshape([-1]).constant_pad_nd([0, 1]).index_select(0, &places).unsqueeze(1);
        let sums = Tensor::zeros([n + 1, x_nd.size()[1]], (x_nd.kind(), device));
        let mixed = sums.index_add(0, &tokens, &(Tensor::cat(&outputs, 0) * weights)).narrow(0, 0, n);
        self.with_shared(&x_nd, mixed).view(size.as_slice())
    }

    /// [`Experts::forward`] for a step's rows `[n, d]`: every expert computes every row, and what
    /// was not chosen is dropped. No shape depends on the choices here either; with as many rows as
    /// a step has, nearly all experts' weights would be read anyway, and this is a handful of
    /// operations.
    pub fn forward_all(&self, x_nd: &Tensor) -> Tensor {
        let (weights_nc, chosen_nc) = self.route(x_nd);
        let (n, n_experts) = (x_nd.size()[0], self.gate_up.size()[0]);
        let weights_nx = weights_nc.new_zeros([n, n_experts], (weights_nc.kind(), weights_nc.device()));
        let weights_xn1 = weights_nx.scatter(1, &chosen_nc, &weights_nc).transpose(0, 1).unsqueeze(-1);
        let x_xnd = x_nd.unsqueeze(0).expand([n_experts, -1, -1], false);
        let inner_xnf = gated(self.activation, &x_xnd.bmm(&self.gate_up.transpose(1, 2)));
        let outputs_xnd = inner_xnf.bmm(&self.down.transpose(1, 2));
        // Not by a product with zero alone, which an overflow in an expert that nobody chose survives.
        let mixed = (outputs_xnd * &weights_xn1).masked_fill(&weights_xn1.eq(0.0), 0.0);
        self.with_shared(x_nd, mixed.sum_dim_intlist([0i64].as_slice(), false, x_nd.kind()))
    }

    /// Chooses each token's experts: their weights and numbers, `[n, c]` each, the best first.
    pub fn route(&self, x_nd: &Tensor) -> (Tensor, Tensor) {
        let shares_nx = self.router.forward(x_nd).softmax(-1, Kind::Float);
        let (weights_nc, chosen_nc) = shares_nx.topk(self.top_k, -1, true, true);
        let weights_nc = match self.normalize {
            true => &weights_nc / weights_nc.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float),
            false => weights_nc,
        };
        (weights_nc.to_kind(x_nd.kind()), chosen_nc)
    }

    fn with_shared(&self, x_nd: &Tensor, mixed: Tensor) -> Tensor {
        match &self.shared {
            None => mixed,
            Some(shared) => mixed + shared.share.forward(x_nd).sigmoid() * shared.mlp.forward(x_nd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experts(normalize: bool) -> Experts {
        // Three experts on two dimensions, one wide: expert i has the up row (i, 0) and gives (1, i).
        let matrix = |values: &[f32], shape: [i64; 3]| Tensor::from_slice(values).view(shape);
        Experts {
            router: Linear { weight: Tensor::from_slice(&[0f32, 1.0, 0.0, 2.0, 0.0, 3.0]).view([3, 2]), bias: None },
            gate_up: matrix(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 2.0, 0.0], [3, 2, 2]),
            down: matrix(&[1.0, 0.0, 1.0, 1.0, 1.0, 2.0], [3, 2, 1]),
            top_k: 2,
            normalize,
            activation: Activation::Silu,
            shared: None,
        }
    }

    #[test]
    fn by_hand() {
        // Routing logits of (2, 1) are 1, 2, 3: shares 0.0900, 0.2447, 0.6652; of (2, -1) the other
        // way about. silu(2) = 1.761594; expert 1 gives 2·1.7616·(1, 1), expert 2 4·1.7616·(1, 2).
        let x = Tensor::from_slice(&[2f32, 1.0, 2.0, -1.0]).view([1, 2, 2]);
        let (one, two) = (2.0 * 1.761_594, 4.0 * 1.761_594);
        let expected = [
            0.665_241 * two + 0.244_728 * one,
            0.665_241 * two * 2.0 + 0.244_728 * one,
            // Expert 0, which gives nothing, and expert 1.
            0.244_728 * one,
            0.244_728 * one,
        ];
        let forward = Vec::<f32>::try_from(experts(false).forward(&x).view([-1])).unwrap();
        let all = Vec::<f32>::try_from(experts(false).forward_all(&x.view([2, 2])).view([-1])).unwrap();
        for (found, expected) in forward.iter().chain(&all).zip(expected.iter().chain(&expected)) {
            assert!((found - expected).abs() < 1e-4, "{forward:?} {all:?} {expected:?}");
        }
        let (weights, chosen) = experts(true).route(&x.view([2, 2]));
        assert_eq!(Vec::<i64>::try_from(chosen.view([-1])).unwrap(), [2, 1, 0, 1]);
        let sums = Vec::<f32>::try_from(weights.sum_dim_intlist([1i64].as_slice(), false, Kind::Float)).unwrap();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{sums:?}");
    }

    #[test]
    fn an_overflow_in_an_expert_that_nobody_chose_is_not_seen() {
        let mut experts = experts(false);
        experts.gate_up = experts.gate_up.copy();
        let _ = experts.gate_up.get(0).fill_(f64::from(f32::MAX));
        let x = Tensor::from_slice(&[2f32, 1.0]).view([1, 2]);
        let difference = (experts.forward_all(&x) - experts.forward(&x)).abs().max().double_value(&[]);
        assert!(difference < 1e-4, "{difference}");
    }
}
