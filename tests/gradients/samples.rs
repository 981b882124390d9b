//! Gradients of every sample apart, against the gradients of batches of one sample.

use crate::close::assert_close;
use crate::nets::{LOSSES, Net, data, largest};
use lacuna::nn::Pooling::{Average, Max};
use lacuna::nn::{Activation, Loss, Mode, Network};
use ndarray::{Array2, aview1, s};

fn check(what: &str, net: &Network, batch: usize, loss: Loss) {
    let (x, target) = data(net, 9, batch, loss);
    let tape = net.run(x.clone(), Mode::Eval);
    let d = loss.gradient(tape.output(), &target);
    let rows = net.sample_gradients(&tape, d);
    assert_eq!(rows.dim(), (batch, net.parameters()), "{what}");
    assert!(largest(&rows) > 1e-3, "{what}: all gradients vanish");
    for n in 0..batch {
        let row = |a: &Array2<f32>| a.slice(s![n..n + 1, ..]).to_owned();
        let (_, gradient) = net.gradient(&row(&x), &row(&target), loss, Mode::Eval);
        let flat: Vec<f32> = gradient.iter().flat_map(|g| g.iter().copied()).collect();
        let scale = flat.iter().fold(1e-3f32, |m, g| m.max(g.abs()));
        assert_close(&rows.row(n), &aview1(&flat), 1e-5 * scale, format!("{what}: sample {n}"));
    }
}

#[test]
fn a_row_is_the_gradient_of_a_batch_of_one() {
    for loss in LOSSES {
        for batch in [1, 7, 33] {
            let f = Activation::Tanh;
            let what = |name: &str| format!("{name}, {loss:?}, batch {batch}");
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
        }
    }
}

#[test]
fn rows_with_one_output_apart_are_the_jacobian() {
    let net = Net::new(2, 5).linear(6).act(Activation::Tanh).linear(3).build();
    let (x, target) = data(&net, 9, 4, Loss::SquaredError);
    let tape = net.run(x.clone(), Mode::Eval);
    let d = Loss::SquaredError.gradient(tape.output(), &target);
    // The gradient is the Jacobian's rows weighted by the derivative in each output.
    let mut sum = Array2::<f32>::zeros((4, net.parameters()));
    for k in 0..3 {
        let one = Array2::from_shape_fn((4, 3), |(_, j)| f32::from(u8::from(j == k)));
        sum += &(net.sample_gradients(&tape, one) * d.slice(s![.., k..k + 1]));
    }
    let rows = net.sample_gradients(&tape, d);
    assert!(largest(&(sum - &rows)) < 1e-5 * largest(&rows).max(1.0));
}
