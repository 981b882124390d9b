//! One seed, and from it independent streams that are known by name.
//!
//! A stream depends on the seed and on its name alone, not on how many other streams were drawn before it or on which
//! thread draws: the initial weights of `fc2` stay the same when a layer is added in front of it.
//!
//! ```
//! use lacuna::rng::Seed;
//! let seed = Seed(7);
//! let a = seed.stream("init/fc1").normal();
//! seed.stream("shuffle").normal();
//! assert_eq!(a, seed.stream("init/fc1").normal());
//! assert_ne!(a, seed.stream("init/fc2").normal());
//! ```

use ndarray::Array2;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The one number from which all randomness of a run follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Seed(pub u64);

impl From<u64> for Seed {
    fn from(number: u64) -> Self {
        Seed(number)
    }
}

impl Seed {
    /// The stream of this name: ChaCha8 keyed by the seed, its stream number the FNV-1a hash of the name.
    pub fn stream(self, name: &str) -> Stream {
        let mut rng = ChaCha8Rng::seed_from_u64(self.0);
        rng.set_stream(name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)));
        Stream(rng)
    }
}

/// Random numbers in a fixed order; see [`Seed::stream`].
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// A number from [0, 1).
    pub fn uniform(&mut self) -> f32 {
        self.0.random()
    }

    /// A number from the normal distribution of mean 0 and variance 1.
    pub fn normal(&mut self) -> f32 {
        self.0.sample(StandardNormal)
    }

    /// A whole number from 0 to `n - 1`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n as u64) as usize
    }

    /// Puts a slice in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }

    /// The numbers 0 to `n - 1` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// A `(rows, cols)` array of independent normal numbers of mean 0 and standard deviation `sd`.
    pub fn normal_array(&mut self, rows: usize, cols: usize, sd: f32) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, cols), || sd * self.normal())
    }

    /// A `(rows, cols)` array of independent numbers from [-bound, bound).
    pub fn uniform_array(&mut self, rows: usize, cols: usize, bound: f32) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, cols), || bound * (2.0 * self.uniform() - 1.0))
    }
}
