#![no_main]
//! The idx format, plain, packed, and packed here: the shape is that of the data.

use flate2::{Compression, write::GzEncoder};
use lacuna::Error;
use lacuna::data::idx::Idx;
use lacuna_fuzz::{begin, clean};
use libfuzzer_sys::fuzz_target;
use std::io::Write;

fn held(file: &[u8]) {
    let read = Idx::from_bytes("damaged", file);
    assert!(!matches!(read, Err(Error::Io { .. })), "{read:?}");
    if let Some(idx) = clean(read) {
        // A dimension of 0 may stand among others whose product is beyond any number.
        let numbers = if idx.shape().contains(&0) { 0 } else { idx.shape().iter().product() };
        assert_eq!(numbers, idx.data().len());
        assert!(!idx.shape().is_empty() || idx.data().len() == 1);
    }
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    held(data);
    // As the input of a packer one in eight times: that takes long.
    if data.len() % 8 == 0 {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(data).expect("memory");
        held(&packed.finish().expect("memory"));
    }
});
