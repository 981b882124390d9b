//! Who may look at the inputs of layers, and who takes gradients.

use ndarray::{ArrayD, ArrayRef2};

/// Sees what goes into the linear layers of a model while it runs.
pub trait Probe {
    /// Called once for each input, with the names of all layers that read it (of attention's q, k and v, or of a gate and
    /// its partner); `input` is `(tokens, in)`.
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>);
}

/// Sees nothing.
impl Probe for () {
    fn see(&mut self, _: &[&str], _: &ArrayRef2<f32>) {}
}

/// Takes the gradient of one parameter under its tensor's name: `(out, in)` for a linear layer, `(n)` for a vector. Each
/// parameter comes once a pass.
pub type Sink<'a> = dyn FnMut(&str, ArrayD<f32>) + 'a;
