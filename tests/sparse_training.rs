//! Sparse training: each method against its formula, counted by hand, by differences, or by a naive loop; all of them on a chain and on a language model.

#[path = "sparse_training/maps.rs"]
mod maps;
#[path = "sparse_training/masks.rs"]
mod masks;
#[path = "sparse_training/runs.rs"]
mod runs;
#[path = "sparse_training/tickets.rs"]
mod tickets;

use lacuna::nn::{Gradients, Method, Optimizer};
use lacuna::train::TrainStep;
use ndarray::Array2;

/// Gradients of weights by their names.
fn gradients<'a>(all: impl IntoIterator<Item = (&'a str, Array2<f32>)>) -> Gradients {
    all.into_iter().map(|(name, g)| (name.to_string(), g.into_dyn())).collect()
}

/// Plain gradient descent.
fn descent() -> Optimizer {
    Optimizer::new(Method::Sgd { momentum: 0.0, weight_decay: 0.0 })
}

/// A step of a run of so many.
fn at(step: usize, steps: usize) -> TrainStep {
    TrainStep { step, steps, learning_rate: 0.1, rows: 1 }
}
