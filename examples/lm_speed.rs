//! What a language model in a folder of Hugging Face files costs here: prefill, decoding, a training step.
//!
//! `cargo run --release --example lm_speed -- FOLDER [TOKENS] [prefill,decode,train]`

use lacuna::io::Folder;
use lacuna::lm::{Config, Inference, LanguageModel};
use lacuna::nn::{Gradients, Method, Optimizer};
use std::time::Instant;

fn main() -> lacuna::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| panic!("a folder is needed"));
    let tokens: usize = args.next().and_then(|t| t.parse().ok()).unwrap_or(1024);
    let what = args.next().unwrap_or_else(|| "prefill,decode,train".into());
    let folder = Folder::open(&folder)?;
    let mut model = LanguageModel::load(&folder, Config::of(&folder)?)?;
    let vocab = model.config().vocab() as u32;
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 7919 % vocab).collect();
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let timed = |times: usize, f: &mut dyn FnMut() -> lacuna::Result<()>| {
        let one = |_| {
            let start = Instant::now();
            f().map(|()| start.elapsed().as_secs_f64())
        };
        (0..times).map(one).collect::<lacuna::Result<Vec<f64>>>()
    };
    if what.contains("prefill") {
        let seconds = median(timed(3, &mut || model.nll(&ids).map(|_| ()))?);
        println!("loss of {tokens} tokens: {:.1} tokens/s ({seconds:.3} s)", tokens as f64 / seconds);
    }
    if what.contains("decode") {
        // In f32, and as `generate` runs it: pruned layers in sparse storages, whole ones in fewer bits where these hold every number exactly.
        let (stored, _) = LanguageModel::load_stored(&folder, Config::of(&folder)?, Inference::tokens(1))?;
        for (how, model) in [("in f32", &model), ("as generate runs it", &stored)] {
            let mut cache = model.cache();
            model.step(&ids[..16.min(tokens)], &mut cache)?;
            let seconds = median(timed(64, &mut || model.step(&ids[..1], &mut cache).map(|_| ()))?);
            println!("one token, {how}: {:.1} tokens/s ({:.2} ms)", 1.0 / seconds, 1e3 * seconds);
        }
    }
    if what.contains("train") {
        let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.01 });
        let seconds = timed(3, &mut || {
            let (_, gradients) = Gradients::of(|sink| model.backward(&ids, tokens, sink))?;
            optimizer.step(&mut model, &gradients, 1e-5)
        })?;
        println!("a step of {tokens} tokens with AdamW: {:.3} s, the first {:.3} s", median(seconds[1..].to_vec()), seconds[0]);
    }
    Ok(())
}
