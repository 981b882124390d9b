#![no_main]
//! Texts that stand for a setting: what is read is written, and read as the same.

use lacuna::io::Dtype;
use lacuna::io::folder::Packing;
use lacuna::lm::Running;
use lacuna::mask::Pattern;
use lacuna::paper::ClaimRule;
use lacuna::sparse::Format;
use lacuna_fuzz::begin;
use libfuzzer_sys::fuzz_target;
use std::fmt::{Debug, Display};
use std::str::FromStr;

fn held<T: FromStr<Err = lacuna::Error> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().expect("what was written"), value, "{text:?}");
    }
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    held::<Pattern>(text);
    held::<Format>(text);
    held::<Packing>(text);
    held::<Dtype>(text);
    held::<ClaimRule>(text);
    let _ = text.parse::<Running>();
});
