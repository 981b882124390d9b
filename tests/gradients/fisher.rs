//! The empirical Fisher diagonal against gradients of single samples.

use crate::nets::{ACTIVATIONS, LOSSES, Net, assert_near, data, largest};
use lacuna::nn::Pooling::{Average, Max};
use lacuna::nn::{Activation, Loss, Mode, Network};
use ndarray::{Array2, s};

/// The mean over samples of the squares of the gradient of each.
fn one_by_one(net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss) -> Vec<Array2<f32>> {
    let mut sums: Vec<Array2<f64>> = net.params().iter().map(|(_, p)| Array2::zeros(p.value().dim())).collect();
    for n in 0..x.nrows() {
        let row = |a: &Array2<f32>| a.slice(s![n..n + 1, ..]).to_owned();
        let (_, gradient) = net.gradient(&row(x), &row(target), loss, Mode::Eval);
        sums.iter_mut().zip(&gradient).for_each(|(s, g)| *s += &g.mapv(|g| f64::from(g) * f64::from(g)));
    }
    sums.iter().map(|s| s.mapv(|s| (s / x.nrows() as f64) as f32)).collect()
}

fn check(what: &str, net: &Network, batch: usize, loss: Loss) {
    let (x, target) = data(net, 9, batch, loss);
    let expected = one_by_one(net, &x, &target, loss);
    // A rectifier may be dead for one sample or a few.
    let alive = expected.iter().filter(|f| largest(*f) > 1e-5).count();
    assert!(alive == expected.len() || batch < 33 && alive > 0, "{what}: a part vanishes");
    // The same products in f32, summed in another order.
    assert_near(what, net, &net.fisher(&x, &target, loss), &expected, 1e-8, 1e-5);
}

#[test]
fn fisher_is_the_mean_of_squared_single_sample_gradients() {
    for loss in LOSSES {
        for f in ACTIVATIONS {
            // 33 samples: more than one task, and a last group that is not full.
            for batch in [1, 7, 33] {
                let what = |name: &str| format!("{name}, {f:?}, {loss:?}, batch {batch}");
                let linear = Net::new(2, 5).linear(6).act(f).linear_without_bias(4).norm(4).act(f).linear(3).build();
                check(&what("linear"), &linear, batch, loss);
                let conv = Net::new(2, 32)
                    .conv((2, 4, 4), 3, (3, 2), 1, 1)
                    .norm(3)
                    .act(f)
                    .pool(Max, (3, 4, 5), 2, 1)
                    .conv((3, 3, 4), 2, (2, 2), 2, 1)
                    .act(f)
                    .pool(Average, (2, 2, 3), 2, 1)
                    .linear(3)
                    .build();
                check(&what("conv"), &conv, batch, loss);
                let clipped = Net::new(2, 5).linear(6).act(f).linear(8).pact(0.2).linear(3).build();
                check(&what("clipped"), &clipped, batch, loss);
            }
        }
    }
}

#[test]
fn fisher_is_not_the_square_of_the_mean_gradient() {
    let net = Net::new(2, 5).linear(6).act(Activation::Tanh).linear(3).build();
    let (x, target) = data(&net, 9, 16, Loss::SquaredError);
    let (_, mean) = net.gradient(&x, &target, Loss::SquaredError, Mode::Eval);
    let fisher = net.fisher(&x, &target, Loss::SquaredError);
    for (f, g) in fisher.iter().zip(&mean) {
        // By Jensen's inequality, up to rounding.
        assert!(f.iter().zip(g).all(|(&f, &g)| f >= g * g * (1.0 - 1e-5)));
        assert!(f.sum() > 1.5 * g.mapv(|g| g * g).sum());
    }
}
