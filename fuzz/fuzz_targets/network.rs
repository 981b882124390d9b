#![no_main]
//! Networks in files: what is read runs, and is written and read as the same.

use lacuna::io::Checkpoint;
use lacuna::models::{from_checkpoint, to_checkpoint};
use lacuna::nn::{Layer, Network};
use lacuna_fuzz::{begin, clean, frame};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;

/// Whether one sample is soon run through.
fn is_small(network: &Network) -> bool {
    network.inputs() <= 1 << 10
        && network.layers().iter().all(|(_, layer)| match layer {
            Layer::Affine(a) => {
                let (rows, cols) = a.map.weight_dim();
                a.map.outputs() <= 1 << 10 && a.map.positions() * rows * cols <= 1 << 16
            }
            Layer::Pool(p) => p.size * p.size <= 1 << 10,
            _ => true,
        })
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let Some(file) = clean(Checkpoint::from_bytes("damaged", &frame::safetensors(data))) else { return };
    let Some(network) = clean(from_checkpoint(&file)) else { return };
    let written = to_checkpoint(&network).expect("what was read can be written");
    let again = from_checkpoint(&written).expect("what was written can be read");
    let bytes = |file: &Checkpoint| file.to_bytes().expect("a file in memory");
    assert_eq!(bytes(&to_checkpoint(&again).expect("written again")), bytes(&written));
    assert_eq!((network.parameters(), network.kept_parameters()), (again.parameters(), again.kept_parameters()));
    if is_small(&network) {
        network.groups();
        let x = Array2::from_shape_fn((2, network.inputs()), |(n, i)| (n + i) as f32 / 8.0);
        let (y, z) = (network.forward(&x), again.forward(&x));
        assert!(y.dim() == z.dim() && y.iter().zip(&z).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())));
    }
});
