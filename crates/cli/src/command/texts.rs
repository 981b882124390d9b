//! What the options on texts share.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lacuna::Result;
use lacuna::data::Bos;

/// Reads where the token that begins a text stands.
pub fn bos() -> impl TypedValueParser<Value = Bos> {
    let all = Bos::ALL.map(|bos| {
        PossibleValue::new(bos.name()).help(match bos {
            Bos::Tokenizer => "As tokenizer.json puts it: once before the text, or not at all",
            Bos::None => "Nowhere",
            Bos::Window => "At the start of every window, in the place of one token of text",
        })
    });
    PossibleValuesParser::new(all).try_map(|name| -> Result<Bos> { name.parse() })
}

/// Says on stderr where a perplexity is beyond all numbers; its logarithm beside it is not.
pub fn say_overflow(what: &str, perplexity: f64, nll: f64) {
    if perplexity.is_infinite() {
        eprintln!("note: {what} is beyond the largest number, e^{nll:.1}: the mean of -ln p is {nll:.4}");
    }
}
