//! Times training epochs on MNIST: `cargo run --release --example mnist_epoch -- lenet_300_100|lenet_5 [EPOCHS]`.
//!
//! Batch 60, Adam at 1.2e-3, as `scripts/mnist_epoch.py` does with PyTorch. `RAYON_NUM_THREADS` sets the threads. One JSON
//! line an epoch.

use lacuna::data::{data_dir, mnist};
use lacuna::eval::score;
use lacuna::models::{lenet_5, lenet_300_100};
use lacuna::nn::{Loss, Method};
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig, fit_with};
use std::time::Instant;

fn main() -> lacuna::Result<()> {
    let mut args = std::env::args().skip(1);
    let model = args.next().unwrap_or_else(|| "lenet_300_100".into());
    let epochs = args.next().and_then(|e| e.parse().ok()).unwrap_or(2);
    let mut network = match model.as_str() {
        "lenet_300_100" => lenet_300_100(Seed(0))?,
        "lenet_5" => lenet_5(Seed(0))?,
        other => return Err(lacuna::Error::invalid_option("model", format!("'{other}' is neither lenet_300_100 nor lenet_5"))),
    };
    let (train, test) = mnist(data_dir().join("mnist"))?;
    let recipe = TrainConfig {
        loss: Loss::CrossEntropy,
        method: Method::Adam { weight_decay: 0.0 },
        learning_rate: 1.2e-3,
        decay: Decay::Constant,
        epochs,
        batch: 60,
        seed: Seed(0),
    };
    let mut start = Instant::now();
    fit_with(&mut network, train.x(), &train.one_hot(1.0, 0.0), &recipe, &mut |epoch, loss| {
        let (threads, seconds) = (rayon::current_num_threads(), start.elapsed().as_secs_f64());
        println!(r#"{{"model":"{model}","threads":{threads},"epoch":{epoch},"seconds":{seconds:.3},"loss":{loss:.5}}}"#);
        start = Instant::now();
    })?;
    let score = score(&network, test.x(), &test.one_hot(1.0, 0.0), Loss::CrossEntropy);
    println!(r#"{{"model":"{model}","test_accuracy":{:.4}}}"#, score.accuracy);
    Ok(())
}
