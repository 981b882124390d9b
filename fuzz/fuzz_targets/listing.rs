#![no_main]
//! `io::read_header` and `io::read_ids`, which read a file at its place, against `io::Checkpoint`, which reads it whole.

use lacuna::io::{Checkpoint, read_header, read_ids};
use lacuna_fuzz::{begin, clean, frame, room};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let file = frame::safetensors(data);
    let path = room::put("listed.safetensors", &file);
    let header = clean(read_header(&path));
    let model = clean(Checkpoint::from_bytes(&path, &file));
    assert_eq!(header.is_some(), model.is_some());
    let (Some(header), Some(model)) = (header, model) else { return };
    assert_eq!(header.file_bytes, file.len() as u64);
    assert_eq!(header.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), model.names().collect::<Vec<_>>());
    assert_eq!(&header.metadata, model.metadata());
    for tensor in &header.tensors {
        assert_eq!(&model.info(&tensor.name).expect("a name that is listed"), tensor);
        if let Some(ids) = clean(read_ids(&path, &tensor.name)) {
            assert_eq!(ids.expect("a tensor that is there").len(), tensor.elements());
        }
    }
});
