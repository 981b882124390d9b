//! The three products of a map against naive loops, exactly: on small whole numbers every order of summation agrees.

use crate::close::assert_close;
use crate::nets::{Net, indices4};
use lacuna::nn::{Activation, Conv2d, Map, Pooling};
use lacuna::rng::{Seed, Stream};
use ndarray::{Array2, s};

/// Whole numbers from −3 to 3.
fn whole(random: &mut Stream, rows: usize, cols: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, cols), || random.below(7) as f32 - 3.0)
}

/// Calls `meet(output, weight column, input)` for every product that one sample makes with one output channel's weights; the
/// output is within the sample.
fn products(conv: &Conv2d, out_channel: usize, mut meet: impl FnMut(usize, usize, usize)) {
    let ((channels, h, w), (kh, kw), (_, oh, ow)) = (conv.input, conv.kernel, conv.output());
    for (oi, oj, c, ki) in indices4(oh, ow, channels, kh) {
        for kj in 0..kw {
            let (i, j) = (oi * conv.stride + ki, oj * conv.stride + kj);
            let inside = |i: usize, size: usize| i >= conv.padding && i - conv.padding < size;
            if inside(i, h) && inside(j, w) {
                let input = (c * h + i - conv.padding) * w + j - conv.padding;
                meet((out_channel * oh + oi) * ow + oj, (c * kh + ki) * kw + kj, input);
            }
        }
    }
}

fn check(conv: Conv2d, batch: usize) {
    let map = Map::Conv2d(conv);
    let mut random = Seed(1).stream(&format!("{conv:?} {batch}"));
    let (rows, cols) = map.weight_dim();
    let weight = whole(&mut random, rows, cols);
    let (x, d) = (whole(&mut random, batch, map.inputs()), whole(&mut random, batch, map.outputs()));
    let (mut y, mut back) = (Array2::<f32>::zeros(d.dim()), Array2::<f32>::zeros(x.dim()));
    let (mut sum, mut squares) = (Array2::zeros((rows, cols)), Array2::zeros((rows, cols)));
    for n in 0..batch {
        let mut one = Array2::<f32>::zeros((rows, cols));
        for o in 0..rows {
            products(&conv, o, |at, k, i| {
                y[[n, at]] += weight[[o, k]] * x[[n, i]];
                back[[n, i]] += weight[[o, k]] * d[[n, at]];
                one[[o, k]] += x[[n, i]] * d[[n, at]];
            });
        }
        squares += &(&one * &one);
        sum += &one;
    }
    assert!(squares.iter().all(|s: &f32| *s < (1 << 24) as f32), "sums that f32 does not hold exactly");
    assert_eq!(map.apply(&weight, &x), y, "apply of {conv:?}, batch {batch}");
    assert_eq!(map.input_gradient(&weight, &d), back, "gradient of the input, {conv:?}, batch {batch}");
    assert_eq!(map.weight_gradient(&x, &d), sum, "weight_gradient of {conv:?}, batch {batch}");
    assert_eq!(map.squared_weight_gradient(&x, &d), squares, "squared_weight_gradient of {conv:?}, batch {batch}");
    // Whatever the layout.
    let [weight, x_down, d_down] = [&weight, &x, &d].map(|a| a.t().as_standard_layout().into_owned().reversed_axes());
    assert_eq!(map.apply(&weight, &x_down), y, "apply of {conv:?}, batch {batch}, column-major");
    assert_eq!(map.input_gradient(&weight, &d_down), back, "gradient of the input, {conv:?}, batch {batch}, column-major");
    assert_eq!(map.weight_gradient(&x_down, &d_down), sum, "weight_gradient of {conv:?}, batch {batch}, column-major");
    assert_eq!(
        map.squared_weight_gradient(&x_down, &d_down),
        squares,
        "squared_weight_gradient of {conv:?}, batch {batch}, column-major"
    );
    assert_eq!(map.patches(&x_down), map.patches(&x), "patches of {conv:?}, batch {batch}, column-major");
}

#[test]
fn a_convolution_is_six_loops() {
    let mut checked = 0;
    for input in [(1, 1, 1), (2, 5, 4), (1, 7, 7), (3, 4, 6)] {
        for kernel in [(1, 1), (3, 3), (3, 2), (1, 4), (5, 5)] {
            for (stride, padding) in indices4(1, 1, 3, 3).map(|(_, _, s, p)| (s + 1, p)) {
                let fits = input.1 + 2 * padding >= kernel.0 && input.2 + 2 * padding >= kernel.1;
                for (out_channels, batch) in [(1, 1), (2, 7), (3, 33)] {
                    if fits {
                        check(Conv2d { input, out_channels, kernel, stride, padding }, batch);
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 350, "only {checked} of 540 combinations fit");
}

#[test]
fn large_images_are_laid_out_one_sample_or_a_few_at_a_time_to_the_same_end() {
    for (height, width) in [(18, 19), (11, 11), (9, 8)] {
        for padding in [0, 1] {
            for batch in [1, 7, 33] {
                check(Conv2d { input: (2, height, width), out_channels: 3, kernel: (3, 3), stride: 1, padding }, batch);
            }
        }
    }
}

#[test]
fn a_linear_map_is_three_loops() {
    let map = Map::Linear { inputs: 5, outputs: 3 };
    for batch in [1, 7, 33] {
        let mut random = Seed(2).stream("linear");
        let (weight, x, d) = (whole(&mut random, 3, 5), whole(&mut random, batch, 5), whole(&mut random, batch, 3));
        let entry = |f: &dyn Fn(usize) -> f32, n: usize| (0..n).map(f).sum::<f32>();
        let y = Array2::from_shape_fn((batch, 3), |(n, o)| entry(&|i| weight[[o, i]] * x[[n, i]], 5));
        let back = Array2::from_shape_fn((batch, 5), |(n, i)| entry(&|o| weight[[o, i]] * d[[n, o]], 3));
        let sum = Array2::from_shape_fn((3, 5), |(o, i)| entry(&|n| d[[n, o]] * x[[n, i]], batch));
        let squares = Array2::from_shape_fn((3, 5), |(o, i)| entry(&|n| (d[[n, o]] * x[[n, i]]).powi(2), batch));
        assert_eq!(map.apply(&weight, &x), y);
        assert_eq!(map.input_gradient(&weight, &d), back);
        assert_eq!(map.weight_gradient(&x, &d), sum);
        assert_eq!(map.squared_weight_gradient(&x, &d), squares);
    }
}

#[test]
fn a_window_with_a_nan_has_no_largest() {
    for at in 0..4 {
        let mut x = ndarray::array![[1.0f32, 2.0, 3.0, 4.0]];
        x[[0, at]] = f32::NAN;
        let net = Net::new(1, 4).pool(Pooling::Max, (1, 2, 2), 2, 2).build();
        assert!(net.forward(&x)[[0, 0]].is_nan(), "NaN at {at} of the window");
    }
}

#[test]
fn no_samples_go_through_every_layer_as_none() {
    let net = Net::new(1, 32).conv((2, 4, 4), 3, (3, 3), 1, 1).norm(3).act(Activation::Relu).pool(Pooling::Max, (3, 4, 4), 2, 2);
    let net = net.conv((3, 2, 2), 2, (2, 2), 1, 0).pool(Pooling::Average, (2, 1, 1), 1, 1).linear(3).build();
    let (x, t) = (Array2::zeros((0, 32)), Array2::zeros((0, 3)));
    assert_eq!(net.forward(&x).dim(), (0, 3));
    let tape = net.run(x, lacuna::nn::Mode::Eval);
    let gradients = net.backward(&tape, t);
    assert!(gradients.iter().flatten().all(|g| *g == 0.0) && gradients.len() == net.params().len());
    assert_eq!(net.sample_gradients(&tape, Array2::zeros((0, 3))).dim(), (0, net.parameters()));
}

#[test]
fn samples_of_a_batch_do_not_touch_each_other() {
    let conv = Conv2d { input: (2, 5, 4), out_channels: 3, kernel: (3, 3), stride: 1, padding: 1 };
    let map = Map::Conv2d(conv);
    let mut random = Seed(3).stream("samples");
    let weight = random.normal_array(3, conv.patch(), 1.0);
    let x = random.normal_array(13, map.inputs(), 1.0);
    let together = map.apply(&weight, &x);
    for n in 0..13 {
        let alone = map.apply(&weight, &x.slice(s![n..n + 1, ..]).to_owned());
        // Sums of 18 products of order one, perhaps in another order.
        assert_close(&alone, &together.slice(s![n..n + 1, ..]), 1e-5, format!("sample {n}"));
    }
}
