//! Who may look at the inputs of layers, and who takes gradients.

use ndarray::{ArrayD, ArrayRef2};

/// Sees what goes into the layers of a model while it runs.
pub trait Observer {
    /// Called once for each input, with the names of all layers that read it (of attention's q, k and v, or of a gate and
    /// its partner); `input` is `(tokens, in)`: the samples, the tokens, or the positions of a convolution.
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>);

    /// Whether anything is looked at; if not, a model need not make inputs that it does not have anyway.
    fn is_watching(&self) -> bool {
        true
    }
}

/// Sees nothing.
impl Observer for () {
    fn see(&mut self, _: &[&str], _: &ArrayRef2<f32>) {}

    fn is_watching(&self) -> bool {
        false
    }
}

/// Takes the gradient of one parameter under its name: `(out, in)` for a weight, `(n)` or `(n, 1)` for a vector. Each parameter
/// comes once a pass.
pub type Sink<'a> = dyn FnMut(&str, ArrayD<f32>) + 'a;

/// Whether the gradient of the parameter of this name is wanted.
pub type Wanted<'a> = dyn Fn(&str) -> bool + 'a;
