//! A block of a transformer: attention and feed-forward layers on a stream of features, each behind a normalisation.
//!
//! ```text
//! in turn       h += A(norm h)             [h += C(norm h, memory)]      h += F(norm h)
//! with norms    h += norm(A(norm h))                                     h += norm(F(norm h))         Gemma 2
//! in parallel   h += A(norm h) + F(norm h), the same norm                                             Phi
//! ```
//!
//! The way back makes what lies between again from the block's input, unless a pass has kept it: then a quarter of its products are spared, for some
//! fourteen arrays `(tokens, features)` a block.

use super::attention::{Carry, Mixing, Source};
use super::{Attention, FeedForward, LayerCache, Linear, Norm, Positions};
use crate::Result;
use crate::nn::observer::Observer;
use crate::nn::parameters::{Change, See};
use ndarray::Array2;

/// One block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Before attention.
    pub(crate) norm: Norm,
    /// Attention of the sequence to itself.
    pub(crate) attention: Attention,
    /// Behind attention, before its output joins the hidden states.
    pub(crate) attention_after: Option<Norm>,
    /// Attention to a memory, with the norm before it.
    pub(crate) cross: Option<(Norm, Attention)>,
    /// Before the feed-forward layers; those of a block without it run beside attention, on what attention reads.
    pub(crate) feed_norm: Option<Norm>,
    /// The feed-forward layers.
    pub(crate) feed: FeedForward,
    /// Behind the feed-forward layers.
    pub(crate) feed_after: Option<Norm>,
}

/// What lies between the parts of a block.
#[derive(Debug, Clone)]
pub(crate) struct Between {
    x: Array2<f32>,
    mixing: Mixing,
    cross: Option<(Array2<f32>, Array2<f32>, Mixing)>,
    stream: Array2<f32>,
    feed_x: Option<Array2<f32>>,
    /// What the first feed-forward layers give, and what the last reads.
    open: Array2<f32>,
    inner: Array2<f32>,
}

impl Block {
    /// The attention of the sequence to itself.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The feed-forward layers.
    pub fn feed_forward(&self) -> &FeedForward {
        &self.feed
    }

    /// The linear layers, in the order in which they run.
    pub fn linears(&self) -> Vec<&Linear> {
        let cross = self.cross.iter().flat_map(|(_, c)| c.linears());
        self.attention.linears().into_iter().chain(cross).chain(self.feed.linears()).collect()
    }

    /// As [`Block::linears`], to be changed.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let cross = self.cross.iter_mut().flat_map(|(_, c)| c.linears_mut());
        self.attention.linears_mut().into_iter().chain(cross).chain(self.feed.linears_mut()).collect()
    }

    /// The norms, in the order in which they run.
    pub fn norms(&self) -> Vec<&Norm> {
        let all = [Some(&self.norm), self.attention_after.as_ref(), self.cross.as_ref().map(|(n, _)| n)];
        all.into_iter().chain([self.feed_norm.as_ref(), self.feed_after.as_ref()]).flatten().collect()
    }

    /// Runs the block on `h (tokens, features)`, in place. `observer` sees every linear layer's input; `&mut ()` sees nothing.
    ///
    /// # Panics
    /// If `h` has not the tokens of `at`, or this is a block that attends to a memory.
    pub fn forward(&self, h: &mut Array2<f32>, at: &Positions, observer: &mut dyn Observer) {
        self.run(h, at, Source::Own, None, observer);
    }

    /// As [`Block::forward`], with attention to a `memory (tokens, features)` of as many sequences.
    ///
    /// # Panics
    /// If `h` has not the tokens of `at`.
    pub fn forward_with_memory(&self, h: &mut Array2<f32>, memory: &Array2<f32>, at: &Positions, observer: &mut dyn Observer) {
        self.run(h, at, Source::States(memory), None, observer);
    }

    /// As [`Block::forward`] for the tokens of one sequence that follow those of the cache, which they join.
    ///
    /// # Panics
    /// If `at` is not one sequence that begins where the cache ends.
    pub fn step(&self, h: &mut Array2<f32>, at: &Positions, cache: &mut LayerCache) {
        assert!(at.sequences == 1 && at.first == cache.len(), "a cache of {} tokens, then position {}", cache.len(), at.first);
        self.run(h, at, Source::Own, Some(cache), &mut ());
    }

    /// All ways to run.
    pub(crate) fn run(
        &self,
        h: &mut Array2<f32>,
        at: &Positions,
        memory: Source<'_>,
        cache: Option<&mut LayerCache>,
        observer: &mut dyn Observer,
    ) {
        assert_eq!(h.nrows(), at.tokens(), "{}: rows of h", self.norm.name());
        let x = self.norm.apply(h);
        let mixing = self.attention.mix(&x, at, Source::Own, cache, observer);
        let x = self.feed_norm.is_none().then_some(x);
        self.join(&self.attention_after, h, |h| self.attention.finish(&mixing, h, observer));
        drop(mixing);
        if let Some((norm, cross)) = &self.cross {
            let x = norm.apply(h);
            let mixing = cross.mix(&x, at, memory, None, observer);
            cross.finish(&mixing, h, observer);
        }
        let x = x.unwrap_or_else(|| self.feed_x(h));
        let open = self.feed.open(&x, observer);
        drop(x);
        let inner = self.feed.inner(&open);
        drop(open);
        self.join(&self.feed_after, h, |h| self.feed.finish(&inner, h, observer));
    }

    /// Whether the feed-forward layers read what attention reads.
    pub(crate) fn is_parallel(&self) -> bool {
        self.feed_norm.is_none()
    }

    /// What the first layers of attention read, `(tokens, features)`.
    pub(crate) fn attention_x(&self, h: &Array2<f32>) -> Array2<f32> {
        self.norm.apply(h)
    }

    /// What attention's output layer reads, of the `x` of [`Block::attention_x`].
    pub(crate) fn mixed(&self, x: &Array2<f32>, at: &Positions) -> Array2<f32> {
        self.attention.mix(x, at, Source::Own, None, &mut ()).into_mixed()
    }

    /// Lets attention's output join the hidden states.
    pub(crate) fn add_attention(&self, h: &mut Array2<f32>, mixed: &Array2<f32>) {
        self.join(&self.attention_after, h, |h| self.attention.output().add_to(mixed, h));
    }

    /// What the last feed-forward layer reads, of the `x` of [`Block::feed_x`].
    pub(crate) fn inner(&self, x: &Array2<f32>) -> Array2<f32> {
        self.feed.inner(&self.feed.open(x, &mut ()))
    }

    /// Lets the feed-forward layers' output join the hidden states.
    pub(crate) fn add_feed(&self, h: &mut Array2<f32>, inner: &Array2<f32>) {
        self.join(&self.feed_after, h, |h| self.feed.down().add_to(inner, h));
    }

    /// What the first feed-forward layers read.
    pub(crate) fn feed_x(&self, h: &Array2<f32>) -> Array2<f32> {
        self.feed_norm.as_ref().map_or_else(|| self.norm.apply(h), |norm| norm.apply(h))
    }

    /// Lets `add` add to `h`, through a norm if there is one.
    fn join(&self, after: &Option<Norm>, h: &mut Array2<f32>, add: impl FnOnce(&mut Array2<f32>)) {
        match after {
            None => add(h),
            Some(norm) => {
                let mut y = Array2::zeros(h.dim());
                add(&mut y);
                *h += &norm.apply(&y);
            }
        }
    }

    /// What lies between.
    fn between(&self, h: &Array2<f32>, at: &Positions, memory: Option<&Array2<f32>>, observer: &mut dyn Observer) -> Between {
        let x = self.norm.apply(h);
        let mixing = self.attention.mix(&x, at, Source::Own, None, observer);
        let mut stream = h.clone();
        self.join(&self.attention_after, &mut stream, |h| self.attention.finish(&mixing, h, observer));
        let cross = self.cross.as_ref().zip(memory).map(|((norm, cross), memory)| {
            let (before, x) = (stream.clone(), norm.apply(&stream));
            let mixing = cross.mix(&x, at, Source::States(memory), None, observer);
            cross.finish(&mixing, &mut stream, observer);
            (before, x, mixing)
        });
        let feed_x = self.feed_norm.as_ref().map(|norm| norm.apply(&stream));
        let open = self.feed.open(feed_x.as_ref().unwrap_or(&x), observer);
        let inner = self.feed.inner(&open);
        Between { x, mixing, cross, stream, feed_x, open, inner }
    }

    /// As [`Block::forward`]; gives what lies between for the way back.
    ///
    /// # Panics
    /// As [`Block::forward`].
    pub(crate) fn forward_keeping(&self, h: &mut Array2<f32>, at: &Positions, observer: &mut dyn Observer) -> Between {
        assert_eq!(h.nrows(), at.tokens(), "{}: rows of h", self.norm.name());
        let between = self.between(h, at, None, observer);
        h.assign(&between.stream);
        self.join(&self.feed_after, h, |h| self.feed.finish(&between.inner, h, observer));
        between
    }

    /// Bytes of what [`Block::forward_keeping`] keeps of so many tokens.
    pub(crate) fn between_bytes(&self, tokens: usize) -> usize {
        let (features, heads) = (self.feed.down().shape().0, self.attention.heads());
        let streams = if self.is_parallel() { 2 } else { 3 };
        let attention = (2 * heads.queries + 2 * heads.keys) * heads.dim;
        size_of::<f32>() * tokens * (streams * features + attention + self.feed.opened() + self.feed.width())
    }

    /// The way back from the block's output to its input: turns `d`, the gradient at the output, into that at the input `h`,
    /// and adds to that of the memory. What lies between is made again if it was not kept.
    pub(crate) fn back(
        &self,
        (h, kept): (&Array2<f32>, Option<Between>),
        at: &Positions,
        d: &mut Array2<f32>,
        mut memory: Option<(&Array2<f32>, &mut Array2<f32>)>,
        carry: &mut Carry<'_, '_>,
    ) {
        let between = kept.unwrap_or_else(|| self.between(h, at, memory.as_ref().map(|(m, _)| *m), &mut ()));
        let Between { x, mixing, cross: between_cross, stream, feed_x, open, inner } = between;
        let read = feed_x.as_ref().unwrap_or(&x);
        let mut d_feed_x = Array2::zeros(read.dim());
        let through = self.before_join(&self.feed_after, d, |y| self.feed.down().add_to(&inner, y), carry);
        let d_out = through.as_ref().unwrap_or(d);
        carry.show(self.feed.down().name(), d_out);
        self.feed.back(read, &open, &inner, d_out, &mut d_feed_x, carry);
        drop((open, inner, through, feed_x));
        // Where the feed-forward layers run beside attention, both read x; else their norm leads to the hidden states.
        let mut dx = match &self.feed_norm {
            Some(norm) => {
                norm.back(&stream, &d_feed_x, d, carry.sink);
                Array2::zeros(x.dim())
            }
            None => d_feed_x,
        };
        if let (Some((norm, cross)), Some((before, x, mixing)), Some((states, d_states))) =
            (&self.cross, &between_cross, memory.as_mut())
        {
            let mut dx = Array2::zeros(x.dim());
            cross.back((x, mixing), d, at, &mut dx, Some((states, d_states)), carry);
            norm.back(before, &dx, d, carry.sink);
        }
        let mixed = mixing.mixed();
        let through = self.before_join(&self.attention_after, d, |y| self.attention.output().add_to(mixed, y), carry);
        let d_out = through.as_ref().unwrap_or(d);
        carry.show(self.attention.output().name(), d_out);
        self.attention.back((&x, &mixing), d_out, at, &mut dx, None, carry);
        self.norm.back(h, &dx, d, carry.sink);
    }

    /// Runs attention alone of a block whose parts follow one another, from `h (tokens, features)`. `slope` is given the hidden states behind it,
    /// which it turns into the slope of a loss; the loss is returned, and the gradients of the parameters go to `carry`.
    pub(crate) fn learn_attention(
        &self,
        h: &Array2<f32>,
        at: &Positions,
        slope: &mut dyn FnMut(&mut Array2<f32>) -> f64,
        carry: &mut Carry<'_, '_>,
    ) -> f64 {
        let x = self.norm.apply(h);
        let mixing = self.attention.mix(&x, at, Source::Own, None, &mut ());
        let mut d = h.clone();
        self.join(&self.attention_after, &mut d, |h| self.attention.finish(&mixing, h, &mut ()));
        let loss = slope(&mut d);
        let mixed = mixing.mixed();
        let through = self.before_join(&self.attention_after, &d, |y| self.attention.output().add_to(mixed, y), carry);
        let mut dx = Array2::zeros(x.dim());
        self.attention.back((&x, &mixing), through.as_ref().unwrap_or(&d), at, &mut dx, None, carry);
        self.norm.back(h, &dx, &mut d, carry.sink);
        loss
    }

    /// As [`Block::learn_attention`], of the feed-forward layers.
    pub(crate) fn learn_feed(
        &self,
        h: &Array2<f32>,
        slope: &mut dyn FnMut(&mut Array2<f32>) -> f64,
        carry: &mut Carry<'_, '_>,
    ) -> f64 {
        let norm = self.feed_norm.as_ref().unwrap_or(&self.norm);
        let x = norm.apply(h);
        let open = self.feed.open(&x, &mut ());
        let inner = self.feed.inner(&open);
        let mut d = h.clone();
        self.join(&self.feed_after, &mut d, |h| self.feed.finish(&inner, h, &mut ()));
        let loss = slope(&mut d);
        let through = self.before_join(&self.feed_after, &d, |y| self.feed.down().add_to(&inner, y), carry);
        let mut dx = Array2::zeros(x.dim());
        self.feed.back(&x, &open, &inner, through.as_ref().unwrap_or(&d), &mut dx, carry);
        norm.back(h, &dx, &mut d, carry.sink);
        loss
    }

    /// The gradient before a norm that an output passes on its way into the hidden states, if there is such a norm.
    fn before_join(
        &self,
        after: &Option<Norm>,
        d: &Array2<f32>,
        add: impl FnOnce(&mut Array2<f32>),
        carry: &mut Carry<'_, '_>,
    ) -> Option<Array2<f32>> {
        let norm = after.as_ref()?;
        let (mut y, mut dy) = (Array2::zeros(d.dim()), Array2::zeros(d.dim()));
        add(&mut y);
        norm.back(&y, d, &mut dy, carry.sink);
        Some(dy)
    }

    /// Calls `f` with each parameter's tensor name and numbers.
    pub(crate) fn visit(&self, f: &mut See<'_>) {
        self.norms().into_iter().for_each(|n| n.visit(f));
        self.attention.visit(f);
        self.cross.iter().for_each(|(_, c)| c.visit(f));
        self.feed.visit(f);
    }

    /// As `visit`, to be changed.
    pub(crate) fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        let Block { norm, attention, attention_after, cross, feed_norm, feed, feed_after } = self;
        norm.visit_mut(f);
        [attention_after, feed_norm, feed_after].into_iter().flatten().for_each(|n| n.visit_mut(f));
        attention.visit_mut(f)?;
        if let Some((norm, cross)) = cross {
            norm.visit_mut(f);
            cross.visit_mut(f)?;
        }
        feed.visit_mut(f)
    }
}
