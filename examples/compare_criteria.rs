//! A criterion of one's own beside every built-in method: small networks on the embedded digits, three seeds, pruned at once.
//!
//! `cargo run --example compare_criteria -- [FOLDER]` prints the tables and, if a folder is named, writes `compare_criteria.svg` and
//! `compare_criteria.csv` into it.

use lacuna::criteria::{Evidence, Need, Needs, Saliency};
use lacuna::data::digits;
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Loss, Method};
use lacuna::study::{Compare, Networks, Trained};
use lacuna::train::{Decay, TrainConfig, fit};
use lacuna::{Error, Result};
use ndarray::{Array2, s};
use std::path::PathBuf;

/// |w| times the root of the summed squares of the input, and times how much the weight's gradient varies: Wanda's score with Fisher's.
#[derive(Debug)]
struct WandaFisher;

impl Saliency for WandaFisher {
    fn name(&self) -> &str {
        "wanda-fisher"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::InputSquares).and(Need::SquaredGradients)
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        let norms = layer.input_squares(self.name())?.mapv(|s| s.sqrt() as f32);
        let fisher = layer.elementwise(self.name(), Need::SquaredGradients)?;
        Ok((&layer.weight.mapv(f32::abs) * &norms) * fisher.mapv(f32::sqrt))
    }
}

fn main() -> Result<()> {
    let (train, test) = digits().split(&(1347..1797).collect::<Vec<_>>());
    let (x, target) = (train.x().to_shared(), train.one_hot(1.0, 0.0).to_shared());
    let some = s![..300, ..];
    let loss = Loss::CrossEntropy;
    // The dense network of a seed, 300 samples to measure on, and the test samples.
    let networks = Networks::new(|seed| {
        let mut network = mlp(&[64, 32, 10], Activation::Relu, Init::He, seed)?;
        let (method, decay) = (Method::Adam { weight_decay: 0.0 }, Decay::Cosine);
        fit(&mut network, &x, &target, &TrainConfig { loss, method, learning_rate: 5e-3, decay, epochs: 15, batch: 32, seed })?;
        let calibration = (x.slice(some).to_owned(), target.slice(some).to_owned());
        Ok(Trained::new(network, calibration, (test.x().clone(), test.one_hot(1.0, 0.0)), loss))
    });

    let found = Compare::new().criterion(&WandaFisher).run(&networks)?;
    println!("{}", found.table().to_text());
    println!("{}", found.differences("wanda-fisher", "wanda")?.table().to_text());
    println!("{}", found.against("wanda-fisher")?.to_text());
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else { return Ok(()) };
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    for (name, text) in [("compare_criteria.svg", found.figure().to_svg()?), ("compare_criteria.csv", found.to_csv())] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io(&path, e))?;
        println!("Written: {}", path.display());
    }
    Ok(())
}
