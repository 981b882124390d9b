#![no_main]
//! GGUF files: what opens lies within the file and is read as many numbers as it states.

use lacuna::io::gguf::Gguf;
use lacuna_fuzz::{begin, clean, room};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let path = room::put("file.gguf", data);
    let Some(file) = clean(Gguf::open(&path)) else { return };
    assert!((2..=3).contains(&file.version()));
    let bytes: u64 = file.tensors().iter().map(|t| t.bytes).sum();
    assert!(bytes <= data.len() as u64, "{bytes} bytes of tensors in {}", data.len());
    for tensor in file.tensors() {
        let values = clean(file.read(&tensor.name)).expect("a tensor that lies in the file");
        assert_eq!(values.shape(), tensor.shape);
        let (numbers, size) = tensor.quant.block();
        assert_eq!(values.len() as u64 / numbers as u64 * size as u64, tensor.bytes);
    }
    for key in file.metadata().keys() {
        clean(file.text(key));
        clean(file.count(key));
    }
});
