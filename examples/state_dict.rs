//! Masks for a PyTorch model: reads its state dict, and gives back one mask a weight.
//!
//! ```python
//! safetensors.torch.save_file(model.state_dict(), "model.safetensors")
//! # cargo run --release --example state_dict -- model.safetensors masks.safetensors 0.8
//! masks = safetensors.torch.load_file("masks.safetensors")
//! for name, module in model.named_modules():
//!     if f"{name}.weight_mask" in masks:
//!         torch.nn.utils.prune.custom_from_mask(module, "weight", masks[f"{name}.weight_mask"])
//! ```
//!
//! Without arguments it makes a small state dict for itself.

use lacuna::Result;
use lacuna::allocate::{Lamp, Target};
use lacuna::criteria::{Magnitude, Measured};
use lacuna::io::{Checkpoint, Dtype};
use lacuna::mask::{Pattern, Scope};
use lacuna::nn::Layers;
use lacuna::prune::{Pruning, prune_layers};
use lacuna::rng::Seed;
use ndarray::Array2;

/// The masks, `(out, in)` of 0 and 1 under `NAME.weight_mask`, that keep a part of the weights of a state dict, shared out over its layers
/// by LAMP.
pub fn masks(state: &mut Checkpoint, sparsity: f64, skip: &[String]) -> Result<Checkpoint> {
    let magnitude = Magnitude::default();
    let pruning = Pruning {
        saliency: &magnitude,
        allocate: &Lamp,
        target: Target::Sparsity(sparsity),
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        skip,
    };
    let nothing = vec![Measured::default(); state.layers().len()];
    let (masks, _) = prune_layers(state, &nothing, &pruning)?;
    let mut file = Checkpoint::new();
    for (name, mask) in masks {
        let shape = state.get(&name)?.shape().to_vec();
        let kept = mask.to_array().mapv(|keep| if keep { 1.0 } else { 0.0 });
        let kept = kept.into_shape_with_order(shape).unwrap_or_else(|e| panic!("a mask has as many entries as its weight: {e}"));
        file.insert(&format!("{name}_mask"), kept, Dtype::F32)?;
    }
    Ok(file)
}

#[allow(dead_code)] // a test calls `masks`
fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let sparsity = args.get(2).map_or(0.8, |s| s.parse().unwrap_or_else(|e| panic!("{s}: {e}")));
    let (mut state, out) = match &args[..] {
        [file, out, ..] => (Checkpoint::read(file)?, Some(out)),
        _ => {
            let (mut state, mut stream) = (Checkpoint::new(), Seed(0).stream("weights"));
            for (name, rows, cols) in [("fc1.weight", 30, 64), ("fc2.weight", 10, 30)] {
                state.insert(name, stream.normal_array(rows, cols, 0.1).into_dyn(), Dtype::F32)?;
            }
            state.insert("fc1.bias", Array2::<f32>::zeros((30, 1)).column(0).to_owned().into_dyn(), Dtype::F32)?;
            (state, None)
        }
    };
    let masks = masks(&mut state, sparsity, &[])?;
    for (name, mask) in masks.weights() {
        println!("{name}: {} of {} weights stay", mask.sum(), mask.len());
    }
    out.map_or(Ok(()), |out| masks.write(out))
}
