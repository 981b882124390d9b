//! Optimisers against PyTorch's formulas in f64, and masks that are held through them.

use crate::nets::{Net, data};
use lacuna::mask::Mask;
use lacuna::nn::{Affine, Change, Gradients, Layer, Loss, Map, Method, Mode, Network, Optimizer, Parameters, See};
use lacuna::rng::Seed;
use ndarray::{Array1, Array2, ArrayView1, array};

const METHODS: [Method; 7] = [
    Method::Sgd { momentum: 0.0, weight_decay: 0.0 },
    Method::Sgd { momentum: 0.9, weight_decay: 0.0 },
    Method::Sgd { momentum: 0.9, weight_decay: 0.1 },
    Method::Adam { weight_decay: 0.0 },
    Method::Adam { weight_decay: 0.1 },
    Method::AdamW { weight_decay: 0.0 },
    Method::AdamW { weight_decay: 0.1 },
];

/// `torch.optim.SGD`, `Adam` and `AdamW` on one weight, line by line, in f64.
struct Naive {
    method: Method,
    step: i32,
    first: f64,
    second: f64,
}

impl Naive {
    fn step(&mut self, w: f64, g: f64, lr: f64) -> f64 {
        self.step += 1;
        let (decay, decoupled) = match self.method {
            Method::Sgd { momentum, weight_decay } => {
                self.first = f64::from(momentum) * self.first + g + f64::from(weight_decay) * w;
                return w - lr * self.first;
            }
            Method::Adam { weight_decay } => (f64::from(weight_decay), false),
            Method::AdamW { weight_decay } => (f64::from(weight_decay), true),
        };
        let (w, g) = if decoupled { (w * (1.0 - lr * decay), g) } else { (w, g + decay * w) };
        self.first = 0.9 * self.first + 0.1 * g;
        self.second = 0.999 * self.second + 0.001 * g * g;
        let (mean, square) = (self.first / (1.0 - 0.9f64.powi(self.step)), self.second / (1.0 - 0.999f64.powi(self.step)));
        w - lr * mean / (square.sqrt() + 1e-8)
    }
}

fn one_weight(w: f32) -> Network {
    let layer = Affine::new(Map::Linear { inputs: 1, outputs: 1 }, array![[w]], None);
    Network::new(1, vec![("fc".into(), Layer::Affine(layer))]).unwrap()
}

/// The gradient of the only weight.
fn of_weight(gradient: Array2<f32>) -> Gradients {
    Gradients::from_iter([("fc.weight".to_string(), gradient.into_dyn())])
}

/// A model of somebody else: numbers, and a mask over them.
struct Numbers(Vec<f32>, Option<Mask>);

fn of_numbers(gradient: Vec<f32>) -> Gradients {
    Gradients::from_iter([("numbers".to_string(), Array1::from(gradient).into_dyn())])
}

impl Parameters for Numbers {
    fn visit(&self, f: &mut See<'_>) {
        f("numbers", ArrayView1::from(&self.0).into_dyn(), self.1.as_ref());
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> lacuna::Result<()> {
        f("numbers", &mut self.0, self.1.as_ref());
        Ok(())
    }

    fn set_mask(&mut self, _: &str, mask: Option<Mask>) -> lacuna::Result<()> {
        self.1 = mask;
        Ok(())
    }
}

#[test]
fn a_step_that_cannot_be_taken_changes_nothing_and_says_which_parameter() {
    let (mut net, mut optimizer) = (one_weight(1.5), Optimizer::new(METHODS[1]));
    let says = |optimizer: &mut Optimizer, net: &mut Network, gradients: &Gradients| {
        let before = (optimizer.clone(), net.clone());
        let line = optimizer.step(net, gradients, 0.1).unwrap_err().to_string();
        assert_eq!((optimizer.clone(), net.clone()), before);
        line
    };
    assert_eq!(says(&mut optimizer, &mut net, &Gradients::default()), "training: fc.weight has no gradient");
    let wide = of_weight(array![[1.0, 2.0]]);
    assert_eq!(says(&mut optimizer, &mut net, &wide), "training: fc.weight has 1 numbers, and a gradient of 2");
    let layer = Affine::new(Map::Linear { inputs: 2, outputs: 1 }, array![[1.0, 2.0]], None);
    let mut other = Network::new(2, vec![("fc".into(), Layer::Affine(layer))]).unwrap();
    optimizer.step(&mut net, &of_weight(array![[1.0]]), 0.1).unwrap();
    assert_eq!(says(&mut optimizer, &mut other, &wide), "training: fc.weight has 2 numbers; it had 1 in the steps before");
}

#[test]
fn ten_steps_on_one_weight_are_pytorchs() {
    for method in METHODS {
        let (mut net, mut optimizer) = (one_weight(1.5), Optimizer::new(method));
        let mut naive = Naive { method, step: 0, first: 0.0, second: 0.0 };
        let (x, target) = (array![[0.8], [-0.5]], array![[-1.0], [0.25]]);
        let mut w = 1.5f64;
        let mut travelled = 0.0;
        for (step, lr) in [0.1f32, 0.05, 0.2].into_iter().cycle().take(10).enumerate() {
            let (_, gradient) = net.gradient(&x, &target, Loss::SquaredError, Mode::Train);
            let gradient = net.named(gradient);
            optimizer.step(&mut net, &gradient, lr).unwrap();
            // The mean of (x w − t)² has the gradient mean of 2 x (x w − t).
            let g = 0.8 * (0.8 * w + 1.0) - 0.5 * (-0.5 * w - 0.25);
            let before = w;
            w = naive.step(w, g, f64::from(lr));
            travelled += (w - before).abs();
            let found = f64::from(net.param("fc.weight").unwrap().value()[[0, 0]]);
            // A few roundings of f32 a step, and 1 − 0.999ᵗ to 6e-8 of 1, whose root is 3e-5 of a step off at most.
            assert!((found - w).abs() <= 1e-6 + 3e-5 * travelled, "{method:?}, step {step}: {found}, not {w}");
        }
        assert!(travelled > 0.3, "{method:?} moved by {travelled} only");
    }
}

#[test]
fn decay_apart_from_the_gradient_is_not_decay_in_the_gradient() {
    let step = |method| {
        let (mut net, mut optimizer) = (one_weight(2.0), Optimizer::new(method));
        optimizer.step(&mut net, &of_weight(array![[1.0]]), 0.1).unwrap();
        net.param("fc.weight").unwrap().value()[[0, 0]]
    };
    // A first step of Adam is η sign(g): 2 − 0.1; decoupled decay first shrinks by 0.1 · 0.5 · 2 = 0.1. To a rounding.
    assert!((step(Method::Adam { weight_decay: 0.5 }) - 1.9).abs() < 1e-6);
    assert!((step(Method::AdamW { weight_decay: 0.5 }) - 1.8).abs() < 1e-6);
    // 2 − 0.1 (1 + 0.5 · 2)
    assert!((step(Method::Sgd { momentum: 0.9, weight_decay: 0.5 }) - 1.8).abs() < 1e-6);
}

#[test]
fn a_large_weight_moves_as_each_of_its_entries_would_alone() {
    // More numbers than a parallel task takes, and no multiple of it.
    let (rows, cols) = (7, 5003);
    for method in METHODS {
        let layer = Affine::new(Map::Linear { inputs: cols, outputs: rows }, Array2::from_elem((rows, cols), 1.5), None);
        let mut net = Network::new(cols, vec![("fc".into(), Layer::Affine(layer))]).unwrap();
        let mut optimizer = Optimizer::new(method);
        let gradient = |step: usize, index: usize| (index % 11) as f32 - 4.0 + step as f32;
        for step in 0..3 {
            let all = Array2::from_shape_fn((rows, cols), |(r, c)| gradient(step, r * cols + c));
            optimizer.step(&mut net, &of_weight(all), 0.1).unwrap();
        }
        for kind in 0..11 {
            let (mut one, mut optimizer) = (one_weight(1.5), Optimizer::new(method));
            (0..3).for_each(|step| optimizer.step(&mut one, &of_weight(array![[gradient(step, kind)]]), 0.1).unwrap());
            let expected = one.params()[0].1.value()[[0, 0]];
            let found = net.params()[0].1.as_slice().iter().skip(kind).step_by(11);
            // The same operations; vector code may fuse a multiplication and an addition.
            assert!(found.into_iter().all(|w| (w - expected).abs() <= 1e-6), "{method:?}, entries {kind} of 11");
        }
    }
}

#[test]
fn masked_weights_are_exactly_zero_after_every_step() {
    for method in METHODS {
        let mut net = Net::new(1, 18).conv((2, 3, 3), 3, (2, 2), 1, 0).linear(4).build();
        let (x, target) = data(&net, 1, 6, Loss::SquaredError);
        let mut optimizer = Optimizer::new(method);
        let mut step = |net: &mut Network| {
            let (_, gradient) = net.gradient(&x, &target, Loss::SquaredError, Mode::Train);
            let named = net.named(gradient.clone());
            optimizer.step(net, &named, 0.01).unwrap();
            gradient
        };
        // Momentum first, so that there is something to hold against.
        (0..2).for_each(|_| drop(step(&mut net)));
        let masks: Vec<Mask> = [(3, 8), (4, 12)].iter().map(|&(r, c)| Mask::from_fn(r, c, |i, j| (i + j) % 3 == 0)).collect();
        for (name, mask) in ["layer0.weight", "layer1.weight"].iter().zip(&masks) {
            net.param_mut(name).unwrap().set_mask(mask.clone()).unwrap();
        }
        for _ in 0..3 {
            let before = net.clone();
            let gradient = step(&mut net);
            for (i, (name, mask)) in
                [(0, "layer0.weight"), (2, "layer1.weight")].into_iter().zip(&masks).map(|((i, n), m)| (i, (n, m)))
            {
                let (value, old) = (net.param(name).unwrap().value(), before.param(name).unwrap().value());
                for ((r, c), &w) in value.indexed_iter() {
                    if mask.get(r, c) {
                        assert_ne!(w, old[[r, c]], "{method:?}, {name}[{r}, {c}] is kept and does not move");
                    } else {
                        assert_eq!(w.to_bits(), 0, "{method:?}, {name}[{r}, {c}]");
                        assert_ne!(gradient[i][[r, c]], 0.0, "nothing pulls at {name}[{r}, {c}]");
                    }
                }
            }
        }
    }
}

#[test]
fn a_weight_whose_mask_is_cleared_does_not_jump_from_stale_momentum() {
    for method in METHODS {
        let layer = Affine::new(Map::Linear { inputs: 2, outputs: 1 }, array![[1.0, 1.0]], None);
        let mut net = Network::new(2, vec![("fc".into(), Layer::Affine(layer))]).unwrap();
        let mut optimizer = Optimizer::new(method);
        (0..3).for_each(|_| optimizer.step(&mut net, &of_weight(array![[5.0, 5.0]]), 0.01).unwrap());
        net.param_mut("fc.weight").unwrap().set_mask(Mask::from_fn(1, 2, |_, c| c == 0)).unwrap();
        (0..2).for_each(|_| optimizer.step(&mut net, &of_weight(array![[5.0, 5.0]]), 0.01).unwrap());
        net.param_mut("fc.weight").unwrap().clear_mask();
        let before = net.param("fc.weight").unwrap().value()[[0, 0]];
        optimizer.step(&mut net, &of_weight(array![[0.0, 0.0]]), 0.01).unwrap();
        let value = net.param("fc.weight").unwrap().value();
        assert_eq!(value[[0, 1]], 0.0, "{method:?}: no gradient pulled at it since");
        // The weight beside it shows that there was momentum to forget, in every method that has any.
        let remembers = method != METHODS[0];
        assert_eq!(value[[0, 0]] != before, remembers, "{method:?}");
        optimizer.step(&mut net, &of_weight(array![[0.0, 1.0]]), 0.01).unwrap();
        assert!(net.param("fc.weight").unwrap().value()[[0, 1]] < 0.0, "{method:?}: it can move again");
    }
}

#[test]
fn a_weight_given_in_column_major_order_is_trained() {
    let weight = array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]].reversed_axes();
    let layer = Affine::new(Map::Linear { inputs: 3, outputs: 2 }, weight, None);
    let mut net = Network::new(3, vec![("fc".into(), Layer::Affine(layer))]).unwrap();
    let gradient = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    Optimizer::new(METHODS[0]).step(&mut net, &of_weight(gradient), 0.5).unwrap();
    assert_eq!(net.param("fc.weight").unwrap().value(), array![[0.5, 2.0, 3.5], [0.0, 1.5, 3.0]]);
}

/// What is kept moves as if it were alone, and what is dropped is a zero without a sign, whatever its gradient is: for rows of less, of as many
/// and of more numbers than a word of a mask has, and masks with full and empty words.
#[test]
fn a_mask_is_held_as_it_would_be_bit_by_bit() {
    for method in METHODS {
        for (rows, cols) in [(1, 1), (3, 5), (2, 64), (5, 65), (4, 200), (300, 130)] {
            let mut stream = Seed(6).stream(&format!("{rows} x {cols}"));
            let mask = Mask::from_fn(rows, cols, |r, c| match c / 64 {
                0 => stream.uniform() < 0.5,
                1 => r % 2 == 0,
                _ => (r + c) % 3 == 0,
            });
            let start = stream.normal_array(rows, cols, 1.0);
            let (mut held, mut alone) = (Optimizer::new(method), Optimizer::new(method));
            let mut weights = Numbers(start.as_slice().unwrap().to_vec(), Some(mask.clone()));
            let kept: Vec<usize> = mask.iter_kept().map(|(r, c)| r * cols + c).collect();
            let mut single = Numbers(kept.iter().map(|&i| weights.0[i]).collect(), None);
            for step in 0..4 {
                let mut gradient = stream.normal_array(rows, cols, 1.0).into_raw_vec_and_offset().0;
                let of_kept: Vec<f32> = kept.iter().map(|&i| gradient[i]).collect();
                for (i, g) in gradient.iter_mut().enumerate().filter(|(i, _)| !mask.get(i / cols, i % cols)) {
                    *g = [f32::NAN, f32::INFINITY, -1.0][i % 3];
                }
                held.step(&mut weights, &of_numbers(gradient), 0.1).unwrap();
                alone.step(&mut single, &of_numbers(of_kept), 0.1).unwrap();
                let mut expected = vec![0u32; rows * cols];
                kept.iter().zip(&single.0).for_each(|(&i, w)| expected[i] = w.to_bits());
                let found: Vec<u32> = weights.0.iter().map(|w| w.to_bits()).collect();
                assert_eq!(found, expected, "{method:?}, {rows} x {cols}, step {step}");
            }
        }
    }
}
