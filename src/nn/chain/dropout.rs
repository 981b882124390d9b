//! Dropout: units left out at random while training.

use super::{Layer, Network, Tape};
use crate::nn::Mode;
use crate::rng::Stream;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// Shares of units that are left out of each training step (Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014,
/// *Dropout: a simple way to prevent neural networks from overfitting*).
///
/// What stays is divided by the share that stays, so that a trained network is used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Dropout {
    /// Of the inputs.
    pub inputs: f32,
    /// Of the outputs of every activation.
    pub hidden: f32,
}

impl Network {
    /// As [`Network::run`] in [`Mode::Train`], with units left out of each sample. The passes back over the tape leave them out
    /// too.
    ///
    /// # Panics
    /// If `x` has not [`Network::inputs`] features, or a share is not in [0, 1).
    pub fn run_dropped(&self, x: Array2<f32>, dropout: Dropout, random: &mut Stream) -> Tape {
        let shares = [dropout.inputs, dropout.hidden];
        assert!(shares.iter().all(|s| (0.0..1.0).contains(s)), "shares of units left out: {shares:?}");
        assert_eq!(x.ncols(), self.inputs, "the network has another number of inputs");
        let mut tape = Tape { values: vec![x.as_standard_layout().into_owned()], saved: Vec::new(), drops: Vec::new() };
        tape.drop_last(dropout.inputs, random);
        for (_, layer) in &self.layers {
            let (y, saved) = layer.forward(tape.output(), Mode::Train);
            tape.values.push(y);
            tape.saved.push(saved);
            tape.drop_last(if matches!(layer, Layer::Activation(_) | Layer::Pact(_)) { dropout.hidden } else { 0.0 }, random);
        }
        tape
    }
}

impl Tape {
    /// Leaves a fraction of the last values out, and remembers which.
    fn drop_last(&mut self, share: f32, random: &mut Stream) {
        let last = self.values.len() - 1;
        let factors = (share > 0.0).then(|| {
            let kept = (1.0 - share).recip();
            Array2::from_shape_simple_fn(self.values[last].dim(), || if random.uniform() < share { 0.0 } else { kept })
        });
        if let Some(factors) = &factors {
            self.values[last] *= factors;
        }
        self.drops.push(factors);
    }
}
