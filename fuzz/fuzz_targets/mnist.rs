#![no_main]
//! The four files of MNIST.

use lacuna::data::mnist;
use lacuna_fuzz::{begin, clean, frame, room};
use libfuzzer_sys::fuzz_target;

const FILES: [(u8, &str); 4] = [
    (b'a', "train-images-idx3-ubyte"),
    (b'b', "train-labels-idx1-ubyte"),
    (b'c', "t10k-images-idx3-ubyte"),
    (b'd', "t10k-labels-idx1-ubyte"),
];

fuzz_target!(init: { lacuna_fuzz::alone(); room::emptied("mnist"); }, |data: &[u8]| {
    begin(data);
    let mut parts = frame::parts(data);
    parts.reverse(); // of two parts of a letter the first
    for (letter, name) in FILES {
        let bytes = parts.iter().rfind(|(l, _)| *l == letter).map_or(&b""[..], |(_, bytes)| bytes);
        room::put(&format!("mnist/{name}"), bytes);
    }
    if let Some((train, test)) = clean(mnist(room::room().join("mnist"))) {
        assert_eq!(train.shape(), test.shape());
        for set in [train, test] {
            let (c, h, w) = set.shape();
            assert_eq!((c * h * w, set.len(), set.classes()), (set.features(), set.labels().len(), 10));
            assert!(set.x().iter().all(|v| (0.0..=1.0).contains(v)));
        }
    }
});
