#![no_main]
//! `io::Checkpoint`: what is read is written and read again as the same.

use lacuna::Error;
use lacuna::io::{Checkpoint, check_finite};
use lacuna_fuzz::{begin, clean, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let file = frame::safetensors(data);
    let read = Checkpoint::from_bytes("damaged", &file);
    assert!(!matches!(read, Err(Error::Io { .. })), "{read:?}");
    let Some(mut model) = clean(read) else { return };
    let names: Vec<String> = model.names().map(String::from).collect();
    let mut bytes = 0;
    for name in &names {
        let info = model.info(name).expect("a name that is listed");
        assert_eq!(&info.name, name);
        bytes += info.bytes;
        if let Some(values) = clean(model.get(name)) {
            assert_eq!((values.shape(), values.len()), (&info.shape[..], info.elements()));
            clean(check_finite(name, values));
        }
        if let Some(Some(mask)) = clean(model.mask(name)) {
            assert_eq!(mask.iter_kept().count(), mask.kept());
            model.insert_mask(name, &mask).expect("a mask that was there");
        }
        if let Some(matrix) = clean(model.matrix(name)) {
            model.set_matrix(name, matrix).expect("a matrix that was there");
        }
    }
    clean(model.masks());
    let length = u64::from_le_bytes(file[..8].try_into().expect("a file that was read"));
    assert_eq!(8 + length + bytes, file.len() as u64, "a header and all tensors are the file");

    let written = model.to_bytes().expect("what was read can be written");
    let again = Checkpoint::from_bytes("again", &written).expect("what was written can be read");
    assert_eq!(again.to_bytes().expect("written again"), written);
    assert_eq!(again.metadata(), model.metadata());
    for name in &names {
        assert_eq!(again.info(name).expect("a name that was written").shape, model.info(name).expect("a name").shape);
        if let (Ok(a), Ok(b)) = (again.get(name), model.get(name)) {
            assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())), "{name:?}");
        }
    }
    for name in &names {
        if model.contains(name) {
            model.remove(name).expect("a tensor that is there");
        }
    }
    assert_eq!(model.len(), 0);
});
