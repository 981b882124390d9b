#![no_main]
//! The layouts `sparse-bitmask` and `sparse-24-bitmask`: what is read is zero where its mask drops, and is written and read as the same.

use lacuna::io::{Checkpoint, Dtype};
use lacuna_fuzz::{begin, clean, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let Some(model) = clean(Checkpoint::from_bytes("damaged", &frame::safetensors(data))) else { return };
    for name in model.published_names() {
        let Some((weight, mask)) = clean(model.published(&name)) else { continue };
        assert_eq!(weight.dim(), mask.dim());
        let bits = |w: &ndarray::Array2<f32>| w.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&mask.applied(&weight)), bits(&weight), "a weight that its mask drops");
        let mut again = Checkpoint::new();
        again.insert_sparse_bitmask(&name, &weight, &mask, Dtype::F32).expect("what was read can be written");
        let (w, m) = again.published(&name).expect("what was written can be read");
        assert_eq!((bits(&w), m), (bits(&weight), mask));
    }
});
