#![no_main]
//! `tokenizer.json`: what opens cuts and puts together any text, or says why not; and the library behind it never ends the program.

use lacuna::text::Tokenizer;
use lacuna_fuzz::{begin, clean};
use libfuzzer_sys::fuzz_target;

const TEXTS: [&str; 4] = ["", "The 12 weights, naïve.", "  a\u{301}b\u{200d}<s>\n▁x  ", "日本語\u{0}\u{feff}é"];

// What the library catches does not end the program here either; what it does not catch does.
fuzz_target!(init: { lacuna_fuzz::alone(); std::panic::set_hook(Box::new(|_| {})) }, |data: &[u8]| {
    begin(data);
    let Some(tokenizer) = clean(Tokenizer::from_bytes("tokenizer.json", data)) else { return };
    let known = tokenizer.vocabulary();
    for text in TEXTS {
        for special in [false, true] {
            let Some(ids) = clean(tokenizer.encode(text, special)) else { continue };
            clean(tokenizer.decode(&ids));
            clean(tokenizer.fits(&ids, known));
            let mut typist = tokenizer.typist();
            for &id in ids.iter().take(20) {
                clean(typist.push(id));
            }
            clean(typist.finish());
        }
    }
    for id in [0, 1, known as u32, u32::MAX] {
        clean(tokenizer.decode(&[id]));
        if let Some(token) = tokenizer.token(id) {
            tokenizer.id(&token);
        }
    }
    tokenizer.first_special();
});
