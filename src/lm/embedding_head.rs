//! What stands before the first block and behind the last: embedding, final norm and head.

use super::Config;
use super::architecture::{Architecture, LearnedPositions};
use super::load::Reader;
use super::next_token::{known, rows_with, sequences};
use crate::io::{Weights, WeightsMut};
use crate::kernels::vector;
use crate::linalg::{Threads, gemm};
use crate::nn::attention::Carry;
use crate::nn::{Change, Linear, Norm, Objective, See, check_rows};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, Axis, s};

/// Embedding, learned positions where there are some, final norm and head.
#[derive(Debug, Clone)]
pub struct EmbeddingHead {
    embedding: Linear,
    positions: Option<(String, Array2<f32>)>,
    /// The table of kinds of tokens.
    token_types: Option<(String, Array2<f32>)>,
    /// Behind the embedding.
    embedding_norm: Option<Norm>,
    /// From the embedding's width to that of the hidden states, and back.
    projections: Option<Box<[Linear; 2]>>,
    /// Behind the last block.
    norm: Option<Norm>,
    /// None where the head is the embedding.
    head: Option<Linear>,
    /// What is added to the logits where the head is the embedding: a bias has no other place then.
    tied_bias: Option<(String, Array1<f32>)>,
    /// Tensors of the file that are the embedding over again.
    copies: Vec<String>,
    recipe: Architecture,
}

/// What holds of every array here that is used as a slice.
const STANDARD: &str = "made or read in standard layout";

/// Logits that are held at once.
const LOGITS: usize = 8 << 20;
/// The same on the way back, where each part reads the weight twice and its gradient once.
const LOGITS_BACK: usize = 32 << 20;

impl EmbeddingHead {
    /// Reads the tensors that lie outside the blocks.
    ///
    /// # Errors
    /// If one is missing or has another shape than the config says; the error names it.
    pub fn load(weights: &dyn Weights, config: &Config) -> Result<Self> {
        EmbeddingHead::read(&Reader::new(weights, config), config)
    }

    /// As [`EmbeddingHead::load`], without a head of its own: good for [`EmbeddingHead::embed`] alone.
    pub(crate) fn for_embedding(weights: &dyn Weights, config: &Config) -> Result<Self> {
        EmbeddingHead::parts(&Reader::new(weights, config), config, false)
    }

    pub(super) fn read(reader: &Reader<'_>, config: &Config) -> Result<Self> {
        EmbeddingHead::parts(reader, config, true)
    }

    fn parts(reader: &Reader<'_>, config: &Config, with_head: bool) -> Result<Self> {
        let recipe = config.recipe();
        let (names, tie) = (&recipe.names, reader.tie()?);
        let width = recipe.embedding_features();
        let embedding = reader.linear(&tie.embedding, (recipe.vocab, width), false, false)?;
        let positions = match recipe.positions {
            None => None,
            Some(learned) => {
                let tensor = format!("{}.weight", reader.name(names.positions));
                Some((tensor.clone(), reader.matrix(&tensor, (learned.count + learned.offset, recipe.hidden))?))
            }
        };
        let token_types = match recipe.token_types {
            None => None,
            Some(count) => {
                let tensor = format!("{}.weight", reader.name(names.token_types));
                Some((tensor.clone(), reader.matrix(&tensor, (count, recipe.hidden))?))
            }
        };
        let optional = |name: Option<&str>| name.map(|name| reader.norm(&reader.name(name))).transpose();
        let norm = optional(recipe.stacks.last().and_then(|stack| stack.final_norm))?;
        let embedding_norm = optional(names.embedding_norm)?;
        let projections = match recipe.embedding_width {
            None => None,
            Some(width) => {
                let [inward, outward] = names.projections.map(|name| reader.name(name));
                let inward = reader.linear(&inward, (recipe.hidden, width), false, false)?;
                Some(Box::new([inward, reader.linear(&outward, (width, recipe.hidden), false, false)?]))
            }
        };
        let head = match tie.tied || !with_head {
            true => None,
            false => Some(reader.linear(names.head, (recipe.vocab, width), recipe.head_bias, false)?),
        };
        let tied_bias = match tie.tied && with_head && recipe.head_bias {
            false => None,
            true => {
                let tensor = format!("{}.bias", names.head);
                Some((tensor.clone(), reader.vector(&tensor, recipe.vocab)?))
            }
        };
        let (copies, recipe) = (tie.copies, recipe.clone());
        Ok(EmbeddingHead {
            embedding,
            positions,
            token_types,
            embedding_norm,
            projections,
            norm,
            head,
            tied_bias,
            copies,
            recipe,
        })
    }

    /// The head; of a tied model its embedding, without the bias that a tied head may have beside it.
    pub fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The head, to be changed; none where it is the embedding.
    pub fn head_mut(&mut self) -> Option<&mut Linear> {
        self.head.as_mut()
    }

    /// Embedding, and the head where it is not the embedding.
    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.embedding].into_iter().chain(self.head.as_mut())
    }

    /// The embedding, `(vocab, hidden)`.
    pub fn embedding(&self) -> &Linear {
        &self.embedding
    }

    /// Writes the tensors of the file that hold the embedding over again: under another name of it, or as the head that is tied to it.
    pub(super) fn write_copies(&self, to: &mut dyn WeightsMut) -> Result<()> {
        if self.copies.is_empty() {
            return Ok(());
        }
        let weight = self.embedding.dense_weight();
        self.copies.iter().try_for_each(|name| to.write(name, weight.view().into_dyn()))
    }

    /// The norm behind the last block; there may be none.
    pub fn norm(&self) -> Option<&Norm> {
        self.norm.as_ref()
    }

    /// Hidden states behind the last block through its norm, if there is one.
    pub(crate) fn final_norm(&self, h: &ArrayRef2<f32>) -> Array2<f32> {
        self.norm.as_ref().map_or_else(|| h.to_owned(), |norm| norm.apply(h))
    }

    /// Refuses ids that the model does not know, and positions behind the last.
    pub(super) fn check(&self, ids: &[u32], last: usize) -> Result<()> {
        known(ids.iter().copied(), self.recipe.vocab)?;
        match self.recipe.positions {
            Some(LearnedPositions { count, .. }) if last > count => {
                Err(Error::invalid_option("ids", format!("{last} positions; the model has learned {count}")))
            }
            _ => Ok(()),
        }
    }

    /// What goes into the first block, `(tokens, hidden)`: of sequences of `length` tokens, each from position `first` on.
    ///
    /// # Errors
    /// If the tokens are not whole sequences, an id is not in the vocabulary, or a position not among those that were learned.
    pub fn embed(&self, ids: &[u32], length: usize, first: usize) -> Result<Array2<f32>> {
        sequences(ids, length)?;
        self.check(ids, first.saturating_add(length))?;
        let h = self.before_norm(ids, length, first);
        Ok(match &self.embedding_norm {
            Some(norm) => norm.apply(&h),
            None => h,
        })
    }

    /// As [`EmbeddingHead::embed`], before the norm behind it.
    fn before_norm(&self, ids: &[u32], length: usize, first: usize) -> Array2<f32> {
        let mut h = self.rows_of(ids);
        if let Some(projections) = &self.projections {
            h = projections[0].apply(&h);
        }
        if let Some((_, positions)) = &self.positions {
            let first = first + self.offset();
            h.rows_mut().into_iter().enumerate().for_each(|(t, mut h)| h += &positions.row(first + t % length));
        }
        if let Some((_, types)) = &self.token_types {
            h += &types.row(0);
        }
        h
    }

    /// Rows of the embedding, times its factor.
    fn rows_of(&self, ids: &[u32]) -> Array2<f32> {
        let mut h = Array2::zeros((ids.len(), self.recipe.embedding_features()));
        for (&id, mut h) in ids.iter().zip(h.rows_mut()) {
            self.embedding.row_into(id as usize, h.as_slice_mut().expect(STANDARD));
            if self.recipe.embedding_scale != 1.0 {
                h *= self.recipe.embedding_scale;
            }
        }
        h
    }

    /// Rows of the table of positions before that of the first.
    fn offset(&self) -> usize {
        self.recipe.positions.map_or(0, |positions| positions.offset)
    }

    /// Logits `(tokens, vocab)` of what the last block gives.
    ///
    /// # Panics
    /// If `h` has another width.
    pub fn logits(&self, h: &ArrayRef2<f32>) -> Array2<f32> {
        self.logits_of(&self.before_head(h))
    }

    /// What the head reads, `(tokens, hidden)`; as wide as the embedding, where that has a width of its own.
    pub fn before_head(&self, h: &ArrayRef2<f32>) -> Array2<f32> {
        let mut x = self.final_norm(h);
        if let Some(projections) = &self.projections {
            x = projections[1].apply(&x);
        }
        if self.recipe.head_scale != 1.0 {
            x *= self.recipe.head_scale;
        }
        x
    }

    fn logits_of(&self, x: &ArrayRef2<f32>) -> Array2<f32> {
        let mut logits = self.head().apply(x);
        if let Some((_, bias)) = &self.tied_bias {
            logits += bias;
        }
        if let Some(cap) = self.recipe.logit_cap {
            rows(&mut logits, |_, row| vector::soft_cap(row, 1.0, cap));
        }
        logits
    }

    /// Tokens whose logits are held at once.
    fn chunk(&self) -> usize {
        (LOGITS / self.recipe.vocab).clamp(8, 256)
    }

    /// `-ln p` of each target that there is, in order; `targets[t]` follows token t. Logits are made a few tokens at a time.
    ///
    /// # Errors
    /// If a target is not in the vocabulary, or there are not as many as tokens.
    pub fn nll(&self, h: &ArrayRef2<f32>, targets: &[Option<u32>]) -> Result<Vec<f64>> {
        self.check_targets(h.nrows(), targets)?;
        let mut all = Vec::with_capacity(targets.len());
        for (h, targets) in h.axis_chunks_iter(Axis(0), self.chunk()).zip(targets.chunks(self.chunk())) {
            let mut logits = self.logits_of(&self.before_head(&h));
            let mut losses = vec![0.0; targets.len()];
            rows_with(&mut logits, &mut losses, |t, row, loss| {
                if let Some(target) = targets[t] {
                    *loss = -f64::from(row[target as usize]);
                    *loss += log_sum_exp(row);
                }
            });
            all.extend(losses.into_iter().zip(targets).filter(|(_, target)| target.is_some()).map(|(loss, _)| loss));
        }
        Ok(all)
    }

    /// The mean over tokens of KL(p ‖ q), in nats: the next token's distribution p by its `logits (tokens, vocab)`, q where the last block
    /// gives `h (tokens, hidden)`. Logits of the latter are made a few tokens at a time. NaN or infinite where logits are.
    ///
    /// # Panics
    /// If the shapes differ, or are of another width.
    pub fn divergence(&self, logits: &ArrayRef2<f32>, h: &ArrayRef2<f32>) -> f64 {
        assert_eq!(logits.dim(), (h.nrows(), self.recipe.vocab), "logits of as many tokens");
        let mut sum = 0.0;
        for (p, h) in logits.axis_chunks_iter(Axis(0), self.chunk()).zip(h.axis_chunks_iter(Axis(0), self.chunk())) {
            let mut q = self.logits(&h);
            let mut parts = vec![0.0; p.nrows()];
            rows_with(&mut q, &mut parts, |t, q, part| {
                let mut weights = p.row(t).to_vec();
                let max = vector::max(&weights);
                let apart: Vec<f32> = weights.iter().zip(&*q).map(|(p, q)| p - q).collect();
                let whole = vector::exp_sum(&mut weights, 1.0, max);
                *part = vector::dot(&weights, &apart) / whole - (f64::from(max) + whole.ln()) + log_sum_exp(q);
            });
            sum += parts.iter().sum::<f64>();
        }
        // Rounding may leave it a little below 0; NaN stays NaN.
        if sum < 0.0 { 0.0 } else { sum / h.nrows().max(1) as f64 }
    }

    fn check_targets(&self, tokens: usize, targets: &[Option<u32>]) -> Result<()> {
        if targets.len() != tokens {
            return Err(Error::shape("targets", &[tokens], &[targets.len()]));
        }
        let known: Vec<u32> = targets.iter().flatten().copied().collect();
        self.check(&known, 0)
    }

    /// The sum of the losses of rows `rows` of the objective, the gradient of the sum divided by `count` at `h`, and the gradient of the embedding's
    /// weight as a head where they are one. Other parameters' gradients go to the sink.
    pub(super) fn back(
        &self,
        h: &Array2<f32>,
        (objective, rows, count): (&dyn Objective, &[usize], usize),
        carry: &mut Carry<'_, '_>,
    ) -> Result<(f64, Array2<f32>, Option<Array2<f32>>)> {
        check_rows(objective, rows, (h.nrows(), self.recipe.vocab))?;
        if count == 0 {
            return Err(Error::invalid_option("ids", "there is no token to predict"));
        }
        let (x, head) = (self.before_head(h), self.head());
        let weight = head.dense_weight();
        let mut dx = Array2::zeros(x.dim());
        let tensor = head.tensor();
        let mut d_weight = (carry.wanted)(&tensor).then(|| Array2::zeros(head.shape()));
        let bias = head.bias().map(|_| head.bias_tensor()).or(self.tied_bias.as_ref().map(|(tensor, _)| tensor.clone()));
        let mut d_bias = vec![0.0f64; if bias.is_some() { head.shape().0 } else { 0 }];
        let mut loss = 0.0;
        // Parts of much the same size.
        let most = (LOGITS_BACK / self.recipe.vocab).clamp(8, 1024);
        let part = x.nrows().div_ceil(x.nrows().div_ceil(most).max(1)).max(1);
        for start in (0..x.nrows()).step_by(part) {
            let end = (start + part).min(x.nrows());
            let x = x.slice(s![start..end, ..]);
            let mut d = self.logits_of(&x);
            let capped = self.recipe.logit_cap.map(|cap| (cap, d.clone()));
            loss += objective.loss(&rows[start..end], &mut d, count);
            if let Some((cap, capped)) = capped {
                // A token without a target has no slope, whatever its logits.
                d.zip_mut_with(&capped, |d, y| {
                    if *d != 0.0 {
                        *d *= 1.0 - (y / cap) * (y / cap);
                    }
                });
            }
            gemm(1.0, &d, &weight, 0.0, &mut dx.slice_mut(s![start..end, ..]), Threads::Pool);
            if let Some(d_weight) = &mut d_weight {
                gemm(1.0, &d.t(), &x, 1.0, d_weight, Threads::Pool);
            }
            if !d_bias.is_empty() {
                d.rows().into_iter().for_each(|row| d_bias.iter_mut().zip(row).for_each(|(b, d)| *b += f64::from(*d)));
            }
        }
        drop(x);
        if self.recipe.head_scale != 1.0 {
            dx *= self.recipe.head_scale;
        }
        if let Some(projections) = &self.projections {
            let outward = &projections[1];
            carry.weight_gradient(outward, &dx, &self.final_norm(h));
            let mut d = Array2::zeros(h.dim());
            outward.input_gradient(&dx, &mut d);
            dx = d;
        }
        let dh = match &self.norm {
            Some(norm) => {
                let mut dh = Array2::zeros(h.dim());
                norm.back(h, &dx, &mut dh, carry.sink);
                dh
            }
            None => dx,
        };
        if let Some(tensor) = bias {
            carry.give(&tensor, d_bias.iter().map(|&d| d as f32).collect::<Array1<f32>>().into_dyn());
        }
        if self.head.is_some() {
            d_weight.into_iter().for_each(|d| carry.give(&tensor, d.into_dyn()));
            return Ok((loss, dh, None));
        }
        Ok((loss, dh, d_weight))
    }

    /// The gradient of an objective's sum over all rows at the hidden states behind the last block, `(tokens, features)`.
    pub(crate) fn slope(&self, h: &Array2<f32>, objective: &dyn Objective) -> Result<Array2<f32>> {
        let rows: Vec<usize> = (0..h.nrows()).collect();
        let sink = &mut |_: &str, _| {};
        let mut carry = Carry::new(sink);
        carry.wanted = &|_| false;
        Ok(self.back(h, (objective, &rows, 1), &mut carry)?.1)
    }

    /// Gives the gradients of the embedding and of learned positions: `parts` are ids and the gradient of what
    /// [`EmbeddingHead::embed`] gave for them, and `tied` is that of the embedding as a head.
    pub(super) fn embed_back(
        &self,
        parts: &[(&[u32], &Array2<f32>)],
        length: usize,
        tied: Option<Array2<f32>>,
        carry: &mut Carry<'_, '_>,
    ) {
        assert!(length > 0, "sequences of no tokens");
        let embedding = self.embedding.tensor();
        let mut gradient = (carry.wanted)(&embedding).then(|| tied.unwrap_or_else(|| Array2::zeros(self.embedding.shape())));
        let normed: Option<Vec<Array2<f32>>> = self.embedding_norm.as_ref().map(|norm| {
            let mut back = |(ids, d): &(&[u32], &Array2<f32>)| {
                let x = self.before_norm(ids, length, 0);
                let mut dx = Array2::zeros(x.dim());
                norm.back(&x, d, &mut dx, carry.sink);
                dx
            };
            parts.iter().map(&mut back).collect()
        });
        let before = |i: usize| normed.as_ref().map_or(parts[i].1, |normed| &normed[i]);
        for (i, (ids, _)) in parts.iter().enumerate() {
            let narrow = self.projections.as_ref().map(|projections| {
                let x = self.rows_of(ids);
                carry.weight_gradient(&projections[0], before(i), &x);
                let mut dx = Array2::zeros(x.dim());
                projections[0].input_gradient(before(i), &mut dx);
                dx
            });
            let d = narrow.as_ref().unwrap_or(before(i));
            if let Some(gradient) = &mut gradient {
                for (&id, d) in ids.iter().zip(d.rows()) {
                    gradient.row_mut(id as usize).scaled_add(self.recipe.embedding_scale, &d);
                }
            }
        }
        gradient.into_iter().for_each(|gradient| carry.give(&embedding, gradient.into_dyn()));
        if let Some((tensor, types)) = &self.token_types {
            let mut gradient = Array2::zeros(types.dim());
            (0..parts.len()).flat_map(|i| before(i).rows()).for_each(|d| gradient.row_mut(0).scaled_add(1.0, &d));
            carry.give(tensor, gradient.into_dyn());
        }
        if let Some((tensor, table)) = &self.positions {
            let mut gradient = Array2::zeros(table.dim());
            for (t, d) in (0..parts.len()).flat_map(|i| before(i).rows()).enumerate() {
                gradient.row_mut(self.offset() + t % length).scaled_add(1.0, &d);
            }
            carry.give(tensor, gradient.into_dyn());
        }
    }

    pub(super) fn visit(&self, f: &mut See<'_>) {
        self.embedding.visit(f);
        if let Some((tensor, table)) = &self.positions {
            f(tensor, table.view().into_dyn(), None);
        }
        if let Some((tensor, types)) = &self.token_types {
            f(tensor, types.view().into_dyn(), None);
        }
        self.embedding_norm.iter().for_each(|norm| norm.visit(f));
        self.projections.iter().flat_map(|both| both.iter()).for_each(|layer| layer.visit(f));
        self.norm.iter().for_each(|norm| norm.visit(f));
        self.head.iter().for_each(|head| head.visit(f));
        if let Some((tensor, bias)) = &self.tied_bias {
            f(tensor, bias.view().into_dyn(), None);
        }
    }

    pub(super) fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.embedding.visit_mut(f)?;
        if let Some((tensor, table)) = &mut self.positions {
            f(tensor, table.as_slice_mut().expect(STANDARD), None);
        }
        if let Some((tensor, types)) = &mut self.token_types {
            f(tensor, types.as_slice_mut().expect(STANDARD), None);
        }
        self.embedding_norm.iter_mut().for_each(|norm| norm.visit_mut(f));
        self.projections.iter_mut().flat_map(|both| both.iter_mut()).try_for_each(|layer| layer.visit_mut(f))?;
        self.norm.iter_mut().for_each(|norm| norm.visit_mut(f));
        self.head.iter_mut().try_for_each(|head| head.visit_mut(f))?;
        if let Some((tensor, bias)) = &mut self.tied_bias {
            f(tensor, bias.as_slice_mut().expect(STANDARD), None);
        }
        Ok(())
    }
}

/// `ln Σ eˣ`; the row is used up.
fn log_sum_exp(row: &mut [f32]) -> f64 {
    let max = vector::max(row);
    f64::from(max) + vector::exp_sum(row, 1.0, max).ln()
}

fn rows(x: &mut Array2<f32>, f: impl Fn(usize, &mut [f32]) + Sync) {
    let mut nothing = vec![0.0; x.nrows()];
    rows_with(x, &mut nothing, |t, row, _| f(t, row));
}
