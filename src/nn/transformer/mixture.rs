//! Mixtures of experts: each token meets a few of many feed-forward parts, which a router chooses.
//!
//! Shazeer et al., "Outrageously Large Neural Networks", arXiv:1701.06538; as in Mixtral, arXiv:2401.04088, and Qwen's models.
//!
//! ```text
//! p = softmax(W_router x)
//! T = the `active` experts with the largest p; of equal ones the lower number
//! y = Σ_{e in T} w_e F_e(x)                 w_e = p_e, or p_e / Σ_{j in T} p_j where weights are normalised
//!     + σ(w_s · x) F_s(x)                   where there is a shared expert
//! ```
//!
//! The router is a parameter like a norm, and none of the linear layers that are pruned and stored otherwise: which expert a token meets hangs on
//! small differences. An expert works on its tokens alone.

use super::attention::Carry;
use super::{FeedForward, Linear};
use crate::kernels::vector;
use crate::nn::observer::Observer;
use crate::nn::parameters::{Change, See};
use crate::{Error, Result};
use ndarray::{Array1, Array2, Axis};

/// The expert that all tokens meet, and the layer `(1, features)` that says how much.
#[derive(Debug, Clone)]
pub struct SharedExpert {
    /// The expert.
    pub feed: FeedForward,
    /// Its gate.
    pub gate: Linear,
}

/// Feed-forward parts of which a token meets a few.
#[derive(Debug, Clone)]
pub struct Mixture {
    router: Linear,
    experts: Vec<FeedForward>,
    shared: Option<Box<SharedExpert>>,
    active: usize,
    normalised: bool,
}

/// Which tokens an expert has, and by how much each counts, in the order of the tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routed {
    /// Rows of x.
    pub tokens: Vec<usize>,
    /// Factors of the expert's outputs.
    pub weights: Vec<f32>,
}

impl Routed {
    /// Adds what the expert gives for its tokens, `y (tokens of its own, features)`, times their factors to `h`.
    pub(crate) fn add(&self, y: &Array2<f32>, h: &mut Array2<f32>) {
        for ((&token, &weight), y) in self.tokens.iter().zip(&self.weights).zip(y.rows()) {
            h.row_mut(token).scaled_add(weight, &y);
        }
    }
}

/// Is shown the number of an expert, its tokens, and its outputs for them.
pub(crate) type SeeExpert<'f> = dyn FnMut(usize, &Routed, &Array2<f32>) + 'f;

impl Mixture {
    /// A mixture of these parts, of which a token meets `active`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the router has not a row for each expert; [`Error::InvalidOption`] if `active` is 0 or above the number of experts.
    pub fn new(
        router: Linear,
        experts: Vec<FeedForward>,
        shared: Option<SharedExpert>,
        active: usize,
        normalised: bool,
    ) -> Result<Self> {
        if router.shape().0 != experts.len() {
            return Err(Error::shape(format!("rows of {}", router.name()), &[experts.len()], &[router.shape().0]));
        }
        if active == 0 || active > experts.len() {
            return Err(Error::invalid_option(router.name(), format!("{active} of {} experts for a token", experts.len())));
        }
        Ok(Mixture { router, experts, shared: shared.map(Box::new), active, normalised })
    }

    /// The layer that chooses, `(experts, features)`.
    pub fn router(&self) -> &Linear {
        &self.router
    }

    /// The experts among which it chooses.
    pub fn experts(&self) -> &[FeedForward] {
        &self.experts
    }

    /// As [`Mixture::experts`], to be changed.
    pub fn experts_mut(&mut self) -> &mut [FeedForward] {
        &mut self.experts
    }

    /// The expert that all tokens meet, if there is one.
    pub fn shared(&self) -> Option<&SharedExpert> {
        self.shared.as_deref()
    }

    /// How many experts a token meets.
    pub fn active(&self) -> usize {
        self.active
    }

    /// The experts' linear layers, those of the shared one last.
    pub fn linears(&self) -> Vec<&Linear> {
        let shared = self.shared.iter().map(|shared| &shared.feed);
        self.experts.iter().chain(shared).flat_map(FeedForward::linears).collect()
    }

    /// As [`Mixture::linears`], to be changed.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let shared = self.shared.iter_mut().map(|shared| &mut shared.feed);
        self.experts.iter_mut().chain(shared).flat_map(FeedForward::linears_mut).collect()
    }

    /// Probabilities of the experts, `(tokens, experts)`.
    fn probabilities(&self, x: &Array2<f32>) -> Array2<f32> {
        let mut p = self.router.apply(x);
        for mut row in p.rows_mut() {
            let row = row.as_slice_mut().expect("a new array is in standard layout");
            let sum = vector::exp_sum(row, 1.0, vector::max(row));
            vector::scale(row, (1.0 / sum) as f32);
        }
        p
    }

    /// The experts of a token by its probabilities, with their weights.
    fn chosen(&self, p: ndarray::ArrayView1<'_, f32>) -> Vec<(usize, f32)> {
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        order.truncate(self.active);
        let sum: f32 = if self.normalised { order.iter().map(|&e| p[e]).sum() } else { 1.0 };
        order.into_iter().map(|e| (e, p[e] / sum)).collect()
    }

    fn routed(&self, p: &Array2<f32>) -> Vec<Routed> {
        let mut all = vec![Routed::default(); self.experts.len()];
        for (token, p) in p.rows().into_iter().enumerate() {
            for (expert, weight) in self.chosen(p) {
                all[expert].tokens.push(token);
                all[expert].weights.push(weight);
            }
        }
        all
    }

    /// For each expert its tokens among `x (tokens, features)`.
    ///
    /// # Panics
    /// If x has another number of features.
    pub fn routes(&self, x: &Array2<f32>) -> Vec<Routed> {
        self.routed(&self.probabilities(x))
    }

    /// Adds the outputs for `x (tokens, features)` to `h`; `observer` sees what each expert's layers read.
    pub(crate) fn add_to(&self, x: &Array2<f32>, h: &mut Array2<f32>, observer: &mut dyn Observer) {
        self.add_seen(x, h, observer, &mut |_, _, _| {});
    }

    /// As [`Mixture::add_to`]; `see` is shown what each expert gives for its tokens, before their weights.
    pub(crate) fn add_seen(&self, x: &Array2<f32>, h: &mut Array2<f32>, observer: &mut dyn Observer, see: &mut SeeExpert<'_>) {
        for (number, (expert, routed)) in self.experts.iter().zip(self.routes(x)).enumerate() {
            if routed.tokens.is_empty() {
                continue;
            }
            let y = expert.outputs(&x.select(Axis(0), &routed.tokens), observer);
            see(number, &routed, &y);
            routed.add(&y, h);
        }
        self.add_shared(x, h, observer);
    }

    /// Adds the outputs of the expert that all tokens meet, if there is one.
    pub(crate) fn add_shared(&self, x: &Array2<f32>, h: &mut Array2<f32>, observer: &mut dyn Observer) {
        if let Some(shared) = &self.shared {
            let y = shared.feed.outputs(x, observer);
            let gate = shared.gate.apply(x);
            for ((mut h, y), z) in h.rows_mut().into_iter().zip(y.rows()).zip(gate.column(0)) {
                h.scaled_add(sigmoid(*z), &y);
            }
        }
    }

    /// The way back: adds to `dx`, given the gradient `dy` at the output.
    pub(crate) fn back(&self, x: &Array2<f32>, dy: &Array2<f32>, dx: &mut Array2<f32>, carry: &mut Carry<'_, '_>) {
        let p = self.probabilities(x);
        // Gradients at the weights of the experts that were chosen.
        let mut d_weight = Array2::<f32>::zeros(p.dim());
        for (number, (expert, routed)) in self.experts.iter().zip(self.routed(&p)).enumerate() {
            if routed.tokens.is_empty() {
                for linear in expert.linears() {
                    if (carry.wanted)(&linear.tensor()) {
                        carry.give(&linear.tensor(), Array2::zeros(linear.shape()).into_dyn());
                    }
                    if let Some(bias) = linear.bias().filter(|_| (carry.wanted)(&linear.bias_tensor())) {
                        carry.give(&linear.bias_tensor(), Array1::zeros(bias.len()).into_dyn());
                    }
                }
                continue;
            }
            let (x, mut dy) = (x.select(Axis(0), &routed.tokens), dy.select(Axis(0), &routed.tokens));
            let open = expert.open(&x, &mut ());
            let inner = expert.inner(&open);
            let y = expert.down().apply(&inner);
            for (i, (&token, &weight)) in routed.tokens.iter().zip(&routed.weights).enumerate() {
                d_weight[[token, number]] = dot(dy.row(i), y.row(i));
                dy.row_mut(i).mapv_inplace(|d| d * weight);
            }
            let mut d_x = Array2::zeros(x.dim());
            expert.back(&x, &open, &inner, &dy, &mut d_x, carry);
            routed.tokens.iter().zip(d_x.rows()).for_each(|(&token, d)| dx.row_mut(token).scaled_add(1.0, &d));
        }
        let mut d_logits = Array2::<f32>::zeros(p.dim());
        for (token, mut d) in d_logits.rows_mut().into_iter().enumerate() {
            let p = p.row(token);
            let chosen = self.chosen(p);
            let sum: f32 = if self.normalised { chosen.iter().map(|&(e, _)| p[e]).sum() } else { 1.0 };
            let level: f32 = match self.normalised {
                true => chosen.iter().map(|&(e, w)| w * d_weight[[token, e]]).sum(),
                false => 0.0,
            };
            for &(e, _) in &chosen {
                d[e] = (d_weight[[token, e]] - level) / sum;
            }
            let along: f32 = chosen.iter().map(|&(e, _)| p[e] * d[e]).sum();
            d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - along));
        }
        carry.weight_gradient(&self.router, &d_logits, x);
        self.router.input_gradient(&d_logits, dx);
        if let Some(shared) = &self.shared {
            let open = shared.feed.open(x, &mut ());
            let inner = shared.feed.inner(&open);
            let (y, gate) = (shared.feed.down().apply(&inner), shared.gate.apply(x));
            let mut d_y = dy.clone();
            let mut d_gate = Array2::zeros(gate.dim());
            for (t, mut d) in d_y.rows_mut().into_iter().enumerate() {
                let g = sigmoid(gate[[t, 0]]);
                d_gate[[t, 0]] = g * (1.0 - g) * dot(d.view(), y.row(t));
                d.mapv_inplace(|d| d * g);
            }
            shared.feed.back(x, &open, &inner, &d_y, dx, carry);
            carry.weight_gradient(&shared.gate, &d_gate, x);
            shared.gate.input_gradient(&d_gate, dx);
        }
    }

    pub(crate) fn visit(&self, f: &mut See<'_>) {
        self.router.visit(f);
        self.experts.iter().for_each(|expert| expert.visit(f));
        if let Some(shared) = &self.shared {
            shared.feed.visit(f);
            shared.gate.visit(f);
        }
    }

    pub(crate) fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.router.visit_mut(f)?;
        self.experts.iter_mut().try_for_each(|expert| expert.visit_mut(f))?;
        if let Some(shared) = &mut self.shared {
            shared.feed.visit_mut(f)?;
            shared.gate.visit_mut(f)?;
        }
        Ok(())
    }
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

fn dot(a: ndarray::ArrayView1<'_, f32>, b: ndarray::ArrayView1<'_, f32>) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}
