//! A block of a transformer: attention and feed-forward layers on a stream of features, each behind a normalisation.
//!
//! ```text
//! in turn       h += A(norm h)             [h += C(norm h, memory)]      h += F(norm h)
//! with norms    h += norm(A(norm h))                                     h += norm(F(norm h))         Gemma 2
//! behind        h += norm(A(h))                                          h += norm(F(h))              OLMo 2
//! behind sums   h = norm(h + A(h))                                       h = norm(h + F(h))           OPT 350M
//! in parallel   h += A(norm h) + F(norm h), with the same norm (Phi) or one for each (GPT-NeoX)
//! ```
//!
//! The way back makes what lies between again from the block's input, unless a pass has kept it: then a quarter of its products are spared, for some
//! fourteen arrays `(tokens, features)` a block.

use super::attention::{Carry, Mixing, Source};
use super::mixture::SeeExpert;
use super::{Attention, FeedForward, LayerCache, Linear, Mixture, Norm, Positions};
use crate::Result;
use crate::nn::observer::Observer;
use crate::nn::parameters::{Change, See};
use ndarray::Array2;

/// How the outputs of attention `A` and of the feed-forward layers `F` join the hidden states, with those norms `n` that a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `h += n(A(n h)); h += n(F(n h))`.
    InTurn,
    /// `h += A(n h) + F(n h)`: with one norm, or one for each.
    Parallel,
    /// `h = n(h + A(h)); h = n(h + F(h))`.
    NormAfterSum,
}

/// What stands between attentions.
#[allow(clippy::large_enum_variant)] // one in a block
#[derive(Debug, Clone)]
pub enum BlockFeed {
    /// Feed-forward layers for all tokens.
    Dense(FeedForward),
    /// Experts of which a token meets a few.
    Mixture(Mixture),
}

/// One block.
#[derive(Debug, Clone)]
pub struct Block {
    pub(crate) residual: Residual,
    /// Before attention, if there is one.
    pub(crate) norm: Option<Norm>,
    /// Attention of the sequence to itself.
    pub(crate) attention: Attention,
    /// Behind attention, before its output joins the hidden states.
    pub(crate) attention_after: Option<Norm>,
    /// Attention to a memory, with the norm before it.
    pub(crate) cross: Option<(Norm, Attention)>,
    /// Before the feed-forward layers. Of those that run beside attention without it: they read what attention reads.
    pub(crate) feed_norm: Option<Norm>,
    /// The feed-forward layers.
    pub(crate) feed: BlockFeed,
    /// Behind the feed-forward layers.
    pub(crate) feed_after: Option<Norm>,
}

impl BlockFeed {
    /// The linear layers, in the order in which they run.
    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            BlockFeed::Dense(feed) => feed.linears(),
            BlockFeed::Mixture(mixture) => mixture.linears(),
        }
    }

    /// As [`BlockFeed::linears`], to be changed.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            BlockFeed::Dense(feed) => feed.linears_mut(),
            BlockFeed::Mixture(mixture) => mixture.linears_mut(),
        }
    }

    /// Adds the output to `h`, given what the last layer reads, or what experts read.
    fn add_inner(&self, inner: &Array2<f32>, h: &mut Array2<f32>) {
        match self {
            BlockFeed::Dense(feed) => feed.down().add_to(inner, h),
            BlockFeed::Mixture(mixture) => mixture.add_to(inner, h, &mut ()),
        }
    }

    fn visit(&self, f: &mut See<'_>) {
        match self {
            BlockFeed::Dense(feed) => feed.visit(f),
            BlockFeed::Mixture(mixture) => mixture.visit(f),
        }
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        match self {
            BlockFeed::Dense(feed) => feed.visit_mut(f),
            BlockFeed::Mixture(mixture) => mixture.visit_mut(f),
        }
    }
}

/// What lies between the parts of a block.
#[derive(Debug, Clone)]
pub(crate) struct Between {
    x: Array2<f32>,
    mixing: Mixing,
    cross: Option<(Array2<f32>, Array2<f32>, Mixing)>,
    stream: Array2<f32>,
    feed_x: Option<Array2<f32>>,
    /// What the first feed-forward layers give, and what the last reads; experts make theirs again.
    feed: Option<(Array2<f32>, Array2<f32>)>,
}

impl Block {
    /// The attention of the sequence to itself.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The feed-forward layers; none where experts stand in their place.
    pub fn feed_forward(&self) -> Option<&FeedForward> {
        match &self.feed {
            BlockFeed::Dense(feed) => Some(feed),
            BlockFeed::Mixture(_) => None,
        }
    }

    /// The experts, if the block has some.
    pub fn mixture(&self) -> Option<&Mixture> {
        match &self.feed {
            BlockFeed::Dense(_) => None,
            BlockFeed::Mixture(mixture) => Some(mixture),
        }
    }

    /// As [`Block::mixture`], to be changed.
    pub fn mixture_mut(&mut self) -> Option<&mut Mixture> {
        match &mut self.feed {
            BlockFeed::Dense(_) => None,
            BlockFeed::Mixture(mixture) => Some(mixture),
        }
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
        let all = [self.norm.as_ref(), self.attention_after.as_ref(), self.cross.as_ref().map(|(n, _)| n)];
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
    /// If `at` is not a sequence for each cache that begins where that ends.
    pub fn step(&self, h: &mut Array2<f32>, at: &Positions, caches: &mut [LayerCache]) {
        let tokens = caches.first().map_or(0, LayerCache::len);
        assert!(at.sequences == caches.len(), "{} caches of {} sequences", caches.len(), at.sequences);
        assert!(caches.iter().all(|c| c.len() == at.first), "a cache of {tokens} tokens, then position {}", at.first);
        self.run(h, at, Source::Own, Some(caches), &mut ());
    }

    /// All ways to run.
    pub(crate) fn run(
        &self,
        h: &mut Array2<f32>,
        at: &Positions,
        memory: Source<'_>,
        caches: Option<&mut [LayerCache]>,
        observer: &mut dyn Observer,
    ) {
        assert_eq!(h.nrows(), at.tokens(), "{}: rows of h", self.attention.output().name());
        let x = self.attention_x(h);
        let mixing = self.attention.mix(&x, at, Source::Own, caches, observer);
        let x = match (self.is_parallel(), &self.feed_norm) {
            (true, None) => Some(x),
            (true, Some(norm)) => Some(norm.apply(h)),
            _ => None,
        };
        self.join(&self.attention_after, h, |h| self.attention.finish(&mixing, h, observer));
        drop(mixing);
        if let Some((norm, cross)) = &self.cross {
            let x = norm.apply(h);
            let mixing = cross.mix(&x, at, memory, None, observer);
            cross.finish(&mixing, h, observer);
        }
        let x = x.unwrap_or_else(|| self.feed_x(h));
        match &self.feed {
            BlockFeed::Mixture(mixture) => self.join(&self.feed_after, h, |h| mixture.add_to(&x, h, observer)),
            BlockFeed::Dense(feed) => {
                let open = feed.open(&x, observer);
                drop(x);
                let inner = feed.inner(&open);
                drop(open);
                self.join(&self.feed_after, h, |h| feed.finish(&inner, h, observer));
            }
        }
    }

    /// As [`Block::forward`]; `see` is shown what experts give.
    pub(crate) fn forward_seen(&self, h: &mut Array2<f32>, at: &Positions, see: &mut SeeExpert<'_>) {
        let BlockFeed::Mixture(mixture) = &self.feed else { return self.forward(h, at, &mut ()) };
        let mixed = self.mixed(&self.attention_x(h), at);
        let beside = self.is_parallel().then(|| self.feed_x(h));
        self.add_attention(h, &mixed);
        let x = beside.unwrap_or_else(|| self.feed_x(h));
        self.join(&self.feed_after, h, |h| mixture.add_seen(&x, h, &mut (), see));
    }

    /// Whether the feed-forward layers run beside attention.
    pub(crate) fn is_parallel(&self) -> bool {
        self.residual == Residual::Parallel
    }

    /// Whether the feed-forward layers read what attention reads.
    pub(crate) fn shares_input(&self) -> bool {
        self.is_parallel() && self.feed_norm.is_none()
    }

    /// What the first layers of attention read, `(tokens, features)`.
    pub(crate) fn attention_x(&self, h: &Array2<f32>) -> Array2<f32> {
        self.norm.as_ref().map_or_else(|| h.clone(), |norm| norm.apply(h))
    }

    /// What attention's output layer reads, of the `x` of [`Block::attention_x`].
    pub(crate) fn mixed(&self, x: &Array2<f32>, at: &Positions) -> Array2<f32> {
        self.attention.mix(x, at, Source::Own, None, &mut ()).into_mixed()
    }

    /// Lets attention's output join the hidden states.
    pub(crate) fn add_attention(&self, h: &mut Array2<f32>, mixed: &Array2<f32>) {
        self.join(&self.attention_after, h, |h| self.attention.output().add_to(mixed, h));
    }

    /// What the last feed-forward layer reads, of the `x` of [`Block::feed_x`]; where there are experts, that x itself.
    pub(crate) fn inner(&self, x: &Array2<f32>) -> Array2<f32> {
        match &self.feed {
            BlockFeed::Dense(feed) => feed.inner(&feed.open(x, &mut ())),
            BlockFeed::Mixture(_) => x.clone(),
        }
    }

    /// Lets the feed-forward layers' output join the hidden states, given what [`Block::inner`] gave.
    pub(crate) fn add_feed(&self, h: &mut Array2<f32>, inner: &Array2<f32>) {
        self.join(&self.feed_after, h, |h| self.feed.add_inner(inner, h));
    }

    /// What the first feed-forward layers read; of layers that run beside attention by the `h` before it.
    pub(crate) fn feed_x(&self, h: &Array2<f32>) -> Array2<f32> {
        match &self.feed_norm {
            Some(norm) => norm.apply(h),
            None if self.is_parallel() => self.attention_x(h),
            None => h.clone(),
        }
    }

    /// Lets `add` add to `h`, through a norm if there is one.
    fn join(&self, after: &Option<Norm>, h: &mut Array2<f32>, add: impl FnOnce(&mut Array2<f32>)) {
        match after {
            None => add(h),
            Some(norm) if self.residual == Residual::NormAfterSum => {
                add(h);
                *h = norm.apply(h);
            }
            Some(norm) => {
                let mut y = Array2::zeros(h.dim());
                add(&mut y);
                *h += &norm.apply(&y);
            }
        }
    }

    /// What lies between.
    fn between(&self, h: &Array2<f32>, at: &Positions, memory: Option<&Array2<f32>>, observer: &mut dyn Observer) -> Between {
        let x = self.attention_x(h);
        let mixing = self.attention.mix(&x, at, Source::Own, None, observer);
        let mut stream = h.clone();
        self.join(&self.attention_after, &mut stream, |h| self.attention.finish(&mixing, h, observer));
        let cross = self.cross.as_ref().zip(memory).map(|((norm, cross), memory)| {
            let (before, x) = (stream.clone(), norm.apply(&stream));
            let mixing = cross.mix(&x, at, Source::States(memory), None, observer);
            cross.finish(&mixing, &mut stream, observer);
            (before, x, mixing)
        });
        let feed_x = (!self.shares_input()).then(|| self.feed_x(if self.is_parallel() { h } else { &stream }));
        let feed = self.feed_forward().map(|feed| {
            let open = feed.open(feed_x.as_ref().unwrap_or(&x), observer);
            let inner = feed.inner(&open);
            (open, inner)
        });
        Between { x, mixing, cross, stream, feed_x, feed }
    }

    /// As [`Block::forward`]; gives what lies between for the way back.
    ///
    /// # Panics
    /// As [`Block::forward`].
    pub(crate) fn forward_keeping(&self, h: &mut Array2<f32>, at: &Positions, observer: &mut dyn Observer) -> Between {
        assert_eq!(h.nrows(), at.tokens(), "{}: rows of h", self.attention.output().name());
        let between = self.between(h, at, None, observer);
        let x = between.feed_x.as_ref().unwrap_or(&between.x);
        h.assign(&between.stream);
        self.join(&self.feed_after, h, |h| match (&self.feed, &between.feed) {
            (BlockFeed::Dense(feed), Some((_, inner))) => feed.finish(inner, h, observer),
            (BlockFeed::Dense(feed), None) => feed.finish(&feed.inner(&feed.open(x, observer)), h, observer),
            (BlockFeed::Mixture(mixture), _) => mixture.add_to(x, h, observer),
        });
        between
    }

    /// Bytes of what [`Block::forward_keeping`] keeps of so many tokens.
    pub(crate) fn between_bytes(&self, tokens: usize) -> usize {
        let (features, heads) = (self.attention.output().shape().0, self.attention.heads());
        let streams = if self.shares_input() { 2 } else { 3 };
        let attention = (2 * heads.queries + 2 * heads.keys) * heads.dim;
        let feed = self.feed_forward().map_or(0, |feed| feed.opened() + feed.width());
        size_of::<f32>() * tokens * (streams * features + attention + feed)
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
        let Between { x, mixing, cross: between_cross, stream, feed_x, feed: opened } = between;
        let read = feed_x.as_ref().unwrap_or(&x);
        let mut d_feed_x = Array2::zeros(read.dim());
        let add = |y: &mut Array2<f32>| self.feed.add_inner(opened.as_ref().map_or(read, |(_, inner)| inner), y);
        let through = self.before_join(&self.feed_after, d, &stream, add, carry);
        let dy = through.as_ref().unwrap_or(d);
        match (&self.feed, &opened) {
            (BlockFeed::Mixture(mixture), _) => mixture.back(read, dy, &mut d_feed_x, carry),
            (BlockFeed::Dense(feed), Some((open, inner))) => {
                carry.show(feed.down().name(), dy);
                feed.back(read, open, inner, dy, &mut d_feed_x, carry);
            }
            (BlockFeed::Dense(_), None) => unreachable!("dense layers are opened"),
        }
        drop((opened, through, feed_x));
        // Where the feed-forward layers run beside attention, their gradient joins when both are done.
        let mut dx = Array2::zeros(x.dim());
        let mut beside = None;
        match (&self.feed_norm, self.is_parallel()) {
            (None, true) => dx = d_feed_x,
            (Some(norm), true) => {
                let mut d_h = Array2::zeros(h.dim());
                norm.back(h, &d_feed_x, &mut d_h, carry.sink);
                beside = Some(d_h);
            }
            (Some(norm), false) => norm.back(&stream, &d_feed_x, d, carry.sink),
            (None, false) => *d += &d_feed_x,
        }
        if let (Some((norm, cross)), Some((before, x, mixing)), Some((states, d_states))) =
            (&self.cross, &between_cross, memory.as_mut())
        {
            let mut dx = Array2::zeros(x.dim());
            cross.back((x, mixing), d, at, &mut dx, Some((states, d_states)), carry);
            norm.back(before, &dx, d, carry.sink);
        }
        let mixed = mixing.mixed();
        let through = self.before_join(&self.attention_after, d, h, |y| self.attention.output().add_to(mixed, y), carry);
        let d_out = through.as_ref().unwrap_or(d);
        carry.show(self.attention.output().name(), d_out);
        self.attention.back((&x, &mixing), d_out, at, &mut dx, None, carry);
        match &self.norm {
            Some(norm) => norm.back(h, &dx, d, carry.sink),
            None => *d += &dx,
        }
        if let Some(beside) = beside {
            *d += &beside;
        }
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
        let x = self.attention_x(h);
        let mixing = self.attention.mix(&x, at, Source::Own, None, &mut ());
        let mut d = h.clone();
        self.join(&self.attention_after, &mut d, |h| self.attention.finish(&mixing, h, &mut ()));
        let loss = slope(&mut d);
        let mixed = mixing.mixed();
        let through = self.before_join(&self.attention_after, &mut d, h, |y| self.attention.output().add_to(mixed, y), carry);
        let mut dx = Array2::zeros(x.dim());
        self.attention.back((&x, &mixing), through.as_ref().unwrap_or(&d), at, &mut dx, None, carry);
        if let Some(norm) = &self.norm {
            norm.back(h, &dx, &mut d, carry.sink);
        }
        loss
    }

    /// As [`Block::learn_attention`], of the feed-forward layers.
    ///
    /// # Panics
    /// If experts stand in their place.
    pub(crate) fn learn_feed(
        &self,
        h: &Array2<f32>,
        slope: &mut dyn FnMut(&mut Array2<f32>) -> f64,
        carry: &mut Carry<'_, '_>,
    ) -> f64 {
        let BlockFeed::Dense(feed) = &self.feed else { panic!("{}: experts", self.attention.output().name()) };
        let x = self.feed_x(h);
        let open = feed.open(&x, &mut ());
        let inner = feed.inner(&open);
        let mut d = h.clone();
        self.join(&self.feed_after, &mut d, |h| feed.finish(&inner, h, &mut ()));
        let loss = slope(&mut d);
        let through = self.before_join(&self.feed_after, &mut d, h, |y| feed.down().add_to(&inner, y), carry);
        let mut dx = Array2::zeros(x.dim());
        feed.back(&x, &open, &inner, through.as_ref().unwrap_or(&d), &mut dx, carry);
        if let Some(norm) = &self.feed_norm {
            norm.back(h, &dx, &mut d, carry.sink);
        }
        loss
    }

    /// The gradient before a norm that an output passes on its way into the hidden states, if there is such a norm. Of one behind the sum with
    /// the hidden states `h` before it, `d` becomes the gradient before it as well.
    fn before_join(
        &self,
        after: &Option<Norm>,
        d: &mut Array2<f32>,
        h: &Array2<f32>,
        add: impl FnOnce(&mut Array2<f32>),
        carry: &mut Carry<'_, '_>,
    ) -> Option<Array2<f32>> {
        let norm = after.as_ref()?;
        let sums = self.residual == Residual::NormAfterSum;
        let (mut y, mut dy) = (if sums { h.clone() } else { Array2::zeros(d.dim()) }, Array2::zeros(d.dim()));
        add(&mut y);
        norm.back(&y, d, &mut dy, carry.sink);
        if sums {
            d.assign(&dy);
            return None;
        }
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
        let Block { residual: _, norm, attention, attention_after, cross, feed_norm, feed, feed_after } = self;
        [norm, attention_after, feed_norm, feed_after].into_iter().flatten().for_each(|n| n.visit_mut(f));
        attention.visit_mut(f)?;
        if let Some((norm, cross)) = cross {
            norm.visit_mut(f);
            cross.visit_mut(f)?;
        }
        feed.visit_mut(f)
    }
}
