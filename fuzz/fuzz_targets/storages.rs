#![no_main]
//! Sparse storages in files: what passes the checks multiplies as its dense weight.

use lacuna::io::Checkpoint;
use lacuna_fuzz::{begin, check, clean, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let Some(model) = clean(Checkpoint::from_bytes("damaged", &frame::safetensors(data))) else { return };
    for name in model.storages().take(4) {
        if let Some(op) = clean(model.storage(name)) {
            check::products(op.as_ref());
        }
    }
});
