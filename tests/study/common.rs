//! Small networks on the embedded digits, a criterion of no paper, and a layer whose numbers are told.

use lacuna::Result;
use lacuna::criteria::{Evidence, Measured, Saliency};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Loss, Method, Network};
use lacuna::rng::Seed;
use lacuna::study::{LayerLists, Metric, Networks, Trained};
use lacuna::train::{Decay, TrainConfig, fit};
use ndarray::{Array2, array};

pub const LOSS: Loss = Loss::CrossEntropy;

/// |w| times the root mean square of the weights of its row: of no paper.
#[derive(Debug)]
pub struct RowScaled;

impl Saliency for RowScaled {
    fn name(&self) -> &str {
        "row-scaled"
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        let norms = layer.weight.map_axis(ndarray::Axis(1), |row| row.dot(&row).sqrt());
        Ok(Array2::from_shape_fn(layer.weight.dim(), |(r, c)| layer.weight[[r, c]].abs() * norms[r]))
    }
}

/// Samples and one-hot targets.
pub type Data = (Array2<f32>, Array2<f32>);

pub fn data(seed: Seed) -> (Data, Data) {
    let all = lacuna::data::digits();
    let order = seed.stream("split").permutation(all.len());
    let part = |rows: &[usize]| (all.select(rows).x().clone(), all.select(rows).one_hot(1.0, 0.0));
    (part(&order[..300]), part(&order[300..600]))
}

pub fn trained(seed: Seed) -> Result<Network> {
    let (train, _) = data(seed);
    let mut network = mlp(&[64, 12, 10], Activation::Relu, Init::He, seed)?;
    let method = Method::Adam { weight_decay: 0.0 };
    let recipe = TrainConfig { loss: LOSS, method, learning_rate: 1e-2, decay: Decay::Cosine, epochs: 4, batch: 32, seed };
    fit(&mut network, &train.0, &train.1, &recipe)?;
    Ok(network)
}

pub fn networks<'a>() -> Networks<'a> {
    Networks::new(|seed| {
        let (train, test) = data(seed);
        Ok(Trained::new(trained(seed)?, train, test, LOSS))
    })
}

pub fn recovered(network: &mut Network, seed: Seed) -> Result<()> {
    let (train, _) = data(seed);
    let method = Method::Sgd { momentum: 0.9, weight_decay: 0.0 };
    let recipe = TrainConfig { loss: LOSS, method, learning_rate: 1e-2, decay: Decay::Linear, epochs: 1, batch: 32, seed };
    fit(network, &train.0, &train.1, &recipe).map(|_| ())
}

/// Keeps the weight of one input.
#[derive(Debug)]
pub struct Keeps(pub usize, pub &'static str);

impl Saliency for Keeps {
    fn name(&self) -> &str {
        self.1
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(Array2::from_shape_fn(layer.weight.dim(), |(_, c)| f32::from(u8::from(c == self.0))))
    }
}

/// A layer of two weights 1 and 2, of which a method keeps one; which of the numbers of a seed it gets hangs on that alone.
pub fn told<'a>(numbers: &'a [[f64; 2]], metric: Metric) -> LayerLists<'a> {
    LayerLists::new(|_| Ok(vec![("only".into(), array![[1., 2.]], Measured::default())])).judge([metric], |weights, seed| {
        let kept = weights[0].1;
        Ok(vec![if kept[[0, 0]] == 0.0 { numbers[seed.0 as usize][1] } else { numbers[seed.0 as usize][0] }])
    })
}
