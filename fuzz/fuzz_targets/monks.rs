#![no_main]
//! The files of the MONK's problems.

use lacuna::data::Monk;
use lacuna::rng::Seed;
use lacuna_fuzz::{begin, clean, frame, room};
use libfuzzer_sys::fuzz_target;

fn settle() {
    lacuna_fuzz::alone();
    room::emptied("data");
    room::emptied("data/monks");
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var("LACUNA_DATA", room::room().join("data")) };
}

fuzz_target!(init: settle(), |data: &[u8]| {
    begin(data);
    let parts = frame::parts(data);
    for (letter, name) in [(b'a', "train"), (b'b', "test")] {
        let bytes = parts.iter().find(|(l, _)| *l == letter).map_or(&b""[..], |(_, bytes)| bytes);
        room::put(&format!("data/monks/monks-1.{name}"), bytes);
    }
    if let Some(found) = clean(Monk::One.load(Seed(0))) {
        assert!(found.from_files);
        for set in [found.train, found.test] {
            assert!(set.len() > 0 && set.x().rows().into_iter().all(|row| row.sum() == 6.0), "six attributes");
        }
    }
});
