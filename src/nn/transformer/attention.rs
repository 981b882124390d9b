//! An attention layer: its four linear layers around [`attend`].

use super::attend_back::attend_back;
use super::positions::part;
use super::query_key::{Grouped, QueryKeyNorms};
use super::{AttentionRule, Heads, LayerCache, Linear, Norm, Positions, RotaryTable, Seen, attend};
use crate::nn::observer::{Observer, Sink, Wanted};
use crate::nn::parameters::{Change, See};
use crate::{Error, Result};
use ndarray::{Array2, ArrayD, ArrayRef2, s};
use std::ops::Range;

/// The layers that make queries, keys and values.
#[derive(Debug, Clone)]
pub enum QkvProjection {
    /// One for queries, one for keys, one for values.
    Apart(Box<[Linear; 3]>),
    /// One for all three, whose rows are those of queries, then of keys, then of values.
    Fused(Linear),
    /// One for all three, whose rows are those of a head of keys and values and of the queries that share it: queries, keys, values; then of the
    /// next.
    Grouped(Linear),
}

/// Attention of a sequence to itself, or to a memory.
#[derive(Debug, Clone)]
pub struct Attention {
    inputs: QkvProjection,
    output: Linear,
    heads: Heads,
    rule: AttentionRule,
    norms: Option<QueryKeyNorms>,
    rotary: Option<usize>,
}

/// Where the keys and values come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// From the sequence itself.
    Own,
    /// From these states of another one, `(tokens, features)`.
    States(&'a Array2<f32>),
    /// From there, but made before: `(tokens, 2 · keys · dim)`.
    Ready(&'a Array2<f32>),
}

/// What the way back needs of a forward pass.
#[derive(Debug, Clone)]
pub(crate) struct Mixing {
    /// Queries, keys and values `(tokens, ..)`; of attention to a memory the queries alone.
    own: Array2<f32>,
    /// Queries and keys before their norms, where there are some.
    before: Option<Array2<f32>>,
    /// Keys and values of the memory.
    memory: Option<Array2<f32>>,
    /// What goes into the output layer.
    mixed: Array2<f32>,
}

impl Attention {
    /// A layer of these parts, without norms of queries and keys, turned by the first of the positions' rotary tables where there are some. One of no
    /// heads adds its output's bias alone.
    ///
    /// # Errors
    /// [`Error::Shape`] if the layers do not have the heads' widths.
    pub fn new(inputs: QkvProjection, output: Linear, heads: Heads, rule: AttentionRule) -> Result<Self> {
        let (q, kv) = (heads.queries * heads.dim, heads.keys * heads.dim);
        let check = |layer: &Linear, expected: usize, found: usize| {
            let misfit = || Error::shape(format!("width of {}", layer.name()), &[expected], &[found]);
            if expected == found { Ok(()) } else { Err(misfit()) }
        };
        match &inputs {
            QkvProjection::Fused(all) | QkvProjection::Grouped(all) => check(all, q + 2 * kv, all.shape().0)?,
            QkvProjection::Apart(apart) => {
                let [of_q, k, v] = &**apart;
                check(of_q, q, of_q.shape().0)?;
                check(k, kv, k.shape().0)?;
                check(v, kv, v.shape().0)?;
            }
        }
        check(&output, q, output.shape().1)?;
        if !heads.fit() {
            let reason = format!("{} heads of queries do not share {} heads of keys evenly", heads.queries, heads.keys);
            return Err(Error::invalid_option(output.name(), reason));
        }
        Ok(Attention { inputs, output, heads, rule, norms: None, rotary: Some(0) })
    }

    /// With norms of queries and of keys, before they are turned: each over the features of a head, or over those of all heads together.
    ///
    /// # Errors
    /// [`Error::Shape`] if a norm is over neither.
    pub fn with_norms(mut self, queries: Norm, keys: Norm) -> Result<Self> {
        self.norms = Some(QueryKeyNorms::new(queries, keys, self.heads)?);
        Ok(self)
    }

    /// Turned by another of the positions' rotary tables, or by none.
    pub fn turned_by(mut self, rotary: Option<usize>) -> Self {
        self.rotary = rotary;
        self
    }

    /// The norms of queries and of keys, if there are some.
    pub fn norms(&self) -> Option<[&Norm; 2]> {
        self.norms.as_ref().map(QueryKeyNorms::both)
    }

    /// Heads and their width.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// Who sees whom.
    pub fn rule(&self) -> &AttentionRule {
        &self.rule
    }

    /// The linear layers, in the order in which they run.
    pub fn linears(&self) -> Vec<&Linear> {
        match &self.inputs {
            QkvProjection::Apart(apart) => apart.iter().chain([&self.output]).collect(),
            QkvProjection::Fused(all) | QkvProjection::Grouped(all) => vec![all, &self.output],
        }
    }

    /// As [`Attention::linears`], to be changed.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match &mut self.inputs {
            QkvProjection::Apart(apart) => apart.iter_mut().chain([&mut self.output]).collect(),
            QkvProjection::Fused(all) | QkvProjection::Grouped(all) => vec![all, &mut self.output],
        }
    }

    /// The output layer.
    pub(crate) fn output(&self) -> &Linear {
        &self.output
    }

    fn widths(&self) -> (usize, usize) {
        (self.heads.queries * self.heads.dim, self.heads.keys * self.heads.dim)
    }

    /// The layers that read the sequence, each with its columns in `own`; those that read a memory, with theirs there.
    fn places(&self, source: Source<'_>) -> [Vec<(&Linear, Range<usize>)>; 2] {
        let (q, kv) = self.widths();
        match (&self.inputs, source) {
            (QkvProjection::Fused(all) | QkvProjection::Grouped(all), _) => [vec![(all, 0..q + 2 * kv)], vec![]],
            (QkvProjection::Apart(apart), source) => {
                let [of_q, k, v] = &**apart;
                match source {
                    Source::Own => [vec![(of_q, 0..q), (k, q..q + kv), (v, q + kv..q + 2 * kv)], vec![]],
                    _ => [vec![(of_q, 0..q)], vec![(k, 0..kv), (v, kv..2 * kv)]],
                }
            }
        }
    }

    /// Keys and values of a memory, `(tokens, 2 · keys · dim)`.
    pub(crate) fn remember(&self, memory: &Array2<f32>, observer: &mut dyn Observer) -> Array2<f32> {
        project(&self.places(Source::States(memory))[1], memory, observer)
    }

    /// Where the layer's rows stand group by group.
    fn grouped(&self) -> Option<Grouped> {
        matches!(self.inputs, QkvProjection::Grouped(_)).then(|| Grouped::new(self.heads))
    }

    /// Everything up to the output layer, for `x (tokens, features)`.
    pub(crate) fn mix(
        &self,
        x: &Array2<f32>,
        at: &Positions,
        source: Source<'_>,
        caches: Option<&mut [LayerCache]>,
        observer: &mut dyn Observer,
    ) -> Mixing {
        let (q, kv) = self.widths();
        let mut own = project(&self.places(source)[0], x, observer);
        if let Some(grouped) = self.grouped() {
            own = grouped.apart(&own);
        }
        let before = self.norms.as_ref().map(|norms| norms.apply(&mut own, self.heads));
        let mut mixed = Array2::zeros((x.nrows(), q));
        let memory = match source {
            Source::States(states) => Some(self.remember(states, observer)),
            Source::Own | Source::Ready(_) => None,
        };
        if let (Some(turns), Source::Own) = (self.turns(at), source) {
            turns.turn(&mut own.slice_mut(s![.., ..q + kv]), self.heads.dim);
        }
        let ready = if let Source::Ready(ready) = source { Some(ready) } else { memory.as_ref() };
        let distances = if matches!(source, Source::Own) { at.distances.as_ref() } else { None };
        if let Some(caches) = caches {
            for (i, cache) in caches.iter_mut().enumerate() {
                cache.push(&part(&own, at, i, q..q + kv), &part(&own, at, i, q + kv..q + 2 * kv));
            }
            let mut seen = Vec::with_capacity(caches.len());
            for (i, cache) in caches.iter().enumerate() {
                let [k, v] = cache.views();
                seen.push(Seen { q: part(&own, at, i, 0..q), k, v, first: at.first });
            }
            attend(&seen, self.heads, &self.rule, distances, mixed.view_mut());
        } else {
            let seen: Vec<Seen<'_>> = (0..at.sequences).map(|i| self.seen(&own, ready, at, i)).collect();
            attend(&seen, self.heads, &self.rule, distances, mixed.view_mut());
        }
        Mixing { own, before, memory, mixed }
    }

    fn turns<'a>(&self, at: &'a Positions) -> Option<&'a RotaryTable> {
        self.rotary.and_then(|rotary| at.turns.get(rotary))
    }

    fn seen<'a>(&self, own: &'a Array2<f32>, memory: Option<&'a Array2<f32>>, at: &Positions, sequence: usize) -> Seen<'a> {
        let (q, kv) = self.widths();
        let (of, from) = memory.map_or((own, q), |memory| (memory, 0));
        Seen {
            q: part(own, at, sequence, 0..q),
            k: part(of, at, sequence, from..from + kv),
            v: part(of, at, sequence, from + kv..from + 2 * kv),
            first: 0,
        }
    }

    /// Adds the layer's output to `h`.
    pub(crate) fn finish(&self, mixing: &Mixing, h: &mut Array2<f32>, observer: &mut dyn Observer) {
        observer.see(&[self.output.name()], &mixing.mixed);
        self.output.add_to(&mixing.mixed, h);
    }

    /// The way back of [`Attention::mix`] and [`Attention::finish`], where `dy` is the gradient at the layer's output: adds to
    /// `dx`, and for a memory of `states` to `d_states`.
    pub(crate) fn back(
        &self,
        (x, mixing): (&Array2<f32>, &Mixing),
        dy: &Array2<f32>,
        at: &Positions,
        dx: &mut Array2<f32>,
        memory: Option<(&Array2<f32>, &mut Array2<f32>)>,
        carry: &mut Carry<'_, '_>,
    ) {
        let (q, kv) = self.widths();
        carry.weight_gradient(&self.output, dy, &mixing.mixed);
        let mut d_mixed = Array2::zeros(mixing.mixed.dim());
        self.output.input_gradient(dy, &mut d_mixed);
        let mut d_own = Array2::zeros(mixing.own.dim());
        let mut d_memory = mixing.memory.as_ref().map(|m| Array2::zeros(m.dim()));
        let distances = if memory.is_none() { at.distances.as_ref() } else { None };
        for i in 0..at.sequences {
            let seen = self.seen(&mixing.own, mixing.memory.as_ref(), at, i);
            let rows = i * at.length..(i + 1) * at.length;
            let d_bias = if distances.is_some() { carry.distances.as_mut() } else { None };
            let back = attend_back(&seen, self.heads, &self.rule, distances, d_mixed.slice(s![rows.clone(), ..]), d_bias);
            d_own.slice_mut(s![rows.clone(), ..q]).assign(&back.q);
            let (to, from, n) = match &mut d_memory {
                Some(d_memory) => (d_memory, 0, seen.k.nrows()),
                None => (&mut d_own, q, at.length),
            };
            to.slice_mut(s![i * n..(i + 1) * n, from..from + kv]).assign(&back.k);
            to.slice_mut(s![i * n..(i + 1) * n, from + kv..]).assign(&back.v);
        }
        drop(d_mixed);
        if let (Some(turns), None) = (self.turns(at), &memory) {
            turns.turn_back(&mut d_own.slice_mut(s![.., ..q + kv]), self.heads.dim);
        }
        if let (Some(norms), Some(before)) = (&self.norms, &mixing.before) {
            norms.back(before, &mut d_own, self.heads, carry.sink);
        }
        if let Some(grouped) = self.grouped() {
            d_own = grouped.together(&d_own);
        }
        let source = memory.as_ref().map_or(Source::Own, |(states, _)| Source::States(states));
        let [ours, theirs] = self.places(source);
        project_back(&ours, x, &d_own, dx, carry);
        if let (Some((states, d_states)), Some(d_memory)) = (memory, d_memory) {
            project_back(&theirs, states, &d_memory, d_states, carry);
        }
    }

    pub(crate) fn visit(&self, f: &mut See<'_>) {
        self.linears().into_iter().for_each(|l| l.visit(f));
        self.norms().into_iter().flatten().for_each(|n| n.visit(f));
    }

    pub(crate) fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.linears_mut().into_iter().try_for_each(|l| l.visit_mut(f))?;
        self.norms.iter_mut().for_each(|norms| norms.visit_mut(f));
        Ok(())
    }
}

impl Mixing {
    /// What goes into the output layer.
    pub(crate) fn mixed(&self) -> &Array2<f32> {
        &self.mixed
    }

    /// As [`Mixing::mixed`], alone.
    pub(crate) fn into_mixed(self) -> Array2<f32> {
        self.mixed
    }
}

/// What a pass back carries from layer to layer.
pub(crate) struct Carry<'a, 's> {
    /// Takes the parameters' gradients.
    pub(crate) sink: &'a mut Sink<'s>,
    /// Sums of the gradients of relative biases, where there are some.
    pub(crate) distances: Option<Array2<f32>>,
    /// Is shown the gradient at the output of the last layers of attention and of the feed-forward layers, by the names of these.
    pub(crate) outputs: Option<&'a mut Outputs<'s>>,
    /// Of which parameters gradients are wanted. Those of linear layers and embeddings are not made where nobody wants them: half of the products
    /// of a pass back.
    pub(crate) wanted: &'a Wanted<'s>,
}

/// Sees gradients at the outputs of layers, `(tokens, out)`.
pub(crate) type Outputs<'s> = dyn FnMut(&str, &Array2<f32>) + 's;

impl<'a, 's> Carry<'a, 's> {
    pub(crate) fn new(sink: &'a mut Sink<'s>) -> Self {
        Carry { sink, distances: None, outputs: None, wanted: &|_| true }
    }

    /// Shows the gradient at a layer's output to whom it may concern.
    pub(crate) fn show(&mut self, layer: &str, gradient: &Array2<f32>) {
        if let Some(outputs) = &mut self.outputs {
            outputs(layer, gradient);
        }
    }

    /// Gives the gradients of a layer's weight and bias to the sink, where they are wanted.
    pub(crate) fn weight_gradient(&mut self, layer: &Linear, dy: &ArrayRef2<f32>, x: &ArrayRef2<f32>) {
        layer.wanted_gradient(dy, x, self.wanted, self.sink);
    }

    /// Gives a gradient to the sink.
    pub(crate) fn give(&mut self, name: &str, gradient: ArrayD<f32>) {
        (self.sink)(name, gradient);
    }
}

/// The outputs of layers that share their input, side by side.
pub(crate) fn project(layers: &[(&Linear, Range<usize>)], x: &ArrayRef2<f32>, observer: &mut dyn Observer) -> Array2<f32> {
    let names: Vec<&str> = layers.iter().map(|(l, _)| l.name()).collect();
    observer.see(&names, x);
    let mut y = Array2::zeros((x.nrows(), layers.last().map_or(0, |(_, columns)| columns.end)));
    for (layer, columns) in layers {
        layer.apply_into(x, &mut y.slice_mut(s![.., columns.clone()]));
    }
    y
}

/// The way back of [`project`].
pub(crate) fn project_back(
    layers: &[(&Linear, Range<usize>)],
    x: &ArrayRef2<f32>,
    dy: &Array2<f32>,
    dx: &mut Array2<f32>,
    carry: &mut Carry<'_, '_>,
) {
    for (layer, columns) in layers {
        let dy = dy.slice(s![.., columns.clone()]);
        carry.weight_gradient(layer, &dy, x);
        layer.input_gradient(&dy, dx);
    }
}
