//! A digest of everything that the library computes for a network and for products: a change that is to change no bit prints the same lines
//! before and after. `scripts/digests.py` runs it under every instruction set and number of threads, beside the command.
//!
//! `cargo run --release --example digests`

use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, Target, Uniform};
use lacuna::calibrate::{Calibration, LayerWeights, measure};
use lacuna::criteria::{Fisher, Grasp, Magnitude, MagnitudeNorm, Obd, Random, Ria, Saliency, Snip, SynFlow, Taylor, Wanda};
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::models::{Init, mlp, to_checkpoint};
use lacuna::nn::{Activation, Loss, Method, Network};
use lacuna::prune::{Pruning, Schedule, iterative, one_shot, prune_units, shrink};
use lacuna::rng::Seed;
use lacuna::solve::{Alps, D2Prune, DsNoT, ExactObs, Pruner, Reconstruct, Reconstructed, Scored, SparseGpt, WoodFisher};
use lacuna::sparse::{Format, Hint, LinearOp, Plan, Precision, apply, apply_transpose};
use lacuna::train::{Decay, TrainConfig, fit};
use lacuna::{Error, Result};
use ndarray::{Array2, s};
use std::hash::Hasher;

/// Numbers and bytes in one number of sixteen digits.
struct Digest(u64);

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    }
}

fn say(name: &str, bytes: impl IntoIterator<Item = u8>) {
    let mut digest = Digest(0xcbf2_9ce4_8422_2325);
    bytes.into_iter().for_each(|b| digest.write(&[b]));
    println!("{name} {:016x}", digest.finish());
}

fn numbers(values: &Array2<f32>) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect()
}

fn of_network(name: &str, network: &Network) -> Result<()> {
    say(name, to_checkpoint(network)?.to_bytes()?);
    Ok(())
}

/// What cannot be done is part of what the library does.
fn or_error(name: &str, done: Result<()>) {
    if let Err(e) = done {
        say(name, e.to_string().into_bytes());
    }
}

const PATTERNS: [Pattern; 5] =
    [Pattern::Unstructured, Pattern::Nm { n: 2, m: 4 }, Pattern::Block { rows: 4, cols: 2 }, Pattern::Rows, Pattern::Cols];

fn recipe(method: Method, epochs: usize) -> TrainConfig {
    TrainConfig { loss: Loss::SquaredError, method, learning_rate: 5e-3, decay: Decay::Cosine, epochs, batch: 32, seed: Seed(0) }
}

fn main() -> Result<()> {
    let digits = lacuna::data::digits();
    let x = digits.x().slice(s![..256, ..]).to_owned();
    let target = digits.one_hot(1.0, -1.0).slice(s![..256, ..]).to_owned();
    let adam = Method::Adam { weight_decay: 1e-4 };
    for (net, start) in [
        ("mlp", mlp(&[64, 48, 32, 10], Activation::Tanh, Init::LeCun, Seed(0))?),
        ("shared", lacuna::models::digits_shared(Seed(0))?),
        ("convnet", lacuna::models::digits_convnet([6, 8], 32, Seed(0))?),
    ] {
        for (name, method) in [("adam", adam), ("sgd", Method::Sgd { momentum: 0.9, weight_decay: 1e-4 })] {
            let mut trained = start.clone();
            fit(&mut trained, &x, &target, &recipe(method, 2))?;
            of_network(&format!("train/{net}/{name}"), &trained)?;
        }
        let mut network = start;
        fit(&mut network, &x, &target, &recipe(adam, 2))?;
        let data = Calibration::new(&x, &target, Loss::SquaredError);
        chain(net, &network, &data)?;
        of_network(&format!("units/{net}"), &prune_units(&network, &data, &Magnitude { norm: MagnitudeNorm::L2 }, 0.5)?)?;
        of_network(&format!("shrunk/{net}"), &shrink(&prune_units(&network, &data, &Taylor, 0.5)?)?)?;
    }
    products()
}

/// Every criterion with every pattern, and every pruner, allocation and schedule.
fn chain(net: &str, network: &Network, data: &Calibration<'_>) -> Result<()> {
    let (ria, random) = (Ria::default(), Random { seed: Seed(3) });
    let (l1, l2) = (Magnitude { norm: MagnitudeNorm::L1 }, Magnitude { norm: MagnitudeNorm::L2 });
    let woodfisher = WoodFisher { damping: 1e-5, block: 16 };
    let criteria: [&dyn Saliency; 13] =
        [&l1, &l2, &random, &Wanda, &ria, &Taylor, &Fisher, &Obd, &Snip, &Grasp, &SynFlow, &woodfisher, &Obd];
    let all = Pruning {
        saliency: &l1,
        allocate: &Uniform,
        target: Target::Sparsity(0.5),
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        skip: &[],
    };
    for saliency in &criteria[..12] {
        for pattern in PATTERNS {
            let name = format!("one-shot/{net}/{}/{pattern}", saliency.name());
            let pruned = one_shot(network, data, &Pruning { saliency: *saliency, pattern, ..all });
            or_error(&name, pruned.and_then(|outcome| of_network(&name, &outcome.model)));
        }
    }
    let allocations: [(&str, &dyn Allocate); 4] = [("global", &Global), ("er", &Er), ("erk", &Erk), ("lamp", &Lamp)];
    for (name, allocate) in allocations {
        let name = format!("allocate/{net}/{name}");
        or_error(&name, one_shot(network, data, &Pruning { allocate, ..all }).and_then(|o| of_network(&name, &o.model)));
    }
    for (name, schedule) in [
        ("cubic", Schedule::Cubic { steps: 3 }),
        ("linear", Schedule::Linear { steps: 2 }),
        ("exponential", Schedule::Exponential { steps: 3 }),
    ] {
        let again = recipe(Method::Adam { weight_decay: 0.0 }, 1);
        let between = |n: &mut Network, _: usize| fit(n, data.x, data.target, &again).map(|_| ());
        let outcome = iterative(network, data, &Pruning { saliency: &Obd, allocate: &Lamp, ..all }, schedule, 0.8, between)?;
        of_network(&format!("iterative/{net}/{name}"), &outcome.model)?;
    }
    let wanda = Scored(&Wanda);
    let gpt = SparseGpt::default();
    let (obs, alps, dsnot) = (ExactObs { damping: 0.01 }, Alps::default(), DsNoT::new(&wanda));
    let squares = Reconstructed::new(&wanda, Reconstruct::default());
    let dual = D2Prune::default();
    let pruners: [&dyn Pruner; 7] = [&gpt, &dual, &obs, &alps, &dsnot, &squares, &woodfisher];
    let needs = pruners.iter().fold(lacuna::criteria::Needs::none(), |all, p| all.union(p.needs()));
    let measured = measure(network, data, needs)?;
    let weights = LayerWeights::of(network)?;
    for layer in weights.evidence(&measured) {
        for pruner in pruners {
            for pattern in PATTERNS {
                let name = format!("solve/{net}/{}/{}/{pattern}", layer.layer, pruner.name());
                let (rows, cols) = layer.weight.dim();
                let pruned =
                    pattern.budget(rows, cols, 0.5).and_then(|budget| pruner.prune(&layer, pattern, Scope::Layer, budget));
                or_error(&name, pruned.map(|p| say(&name, [numbers(&p.weight), p.mask.to_bytes()].concat())));
            }
        }
    }
    Ok(())
}

/// Every storage with every number of tokens at which another kernel runs.
fn products() -> Result<()> {
    let mut stream = Seed(7).stream("products");
    let (rows, cols) = (100, 192);
    let w = stream.normal_array(rows, cols, 1.0);
    let formats =
        ["dense", "csr", "tile-csr:64", "tile-pairs:128", "bitmask:64", "sell:padded", "sell:packed", "nm:2:4", "bsr:4x2"];
    for name in formats {
        let format: Format = name.parse()?;
        let mask = match format {
            Format::Nm(n, m) => Mask::from_fn(rows, cols, |_, c| c % m < n),
            Format::Bsr(r, c) => Mask::from_fn(rows, cols, |row, col| (row / r + col / c) % 3 == 0),
            Format::Dense => Mask::full(rows, cols),
            _ => Mask::from_fn(rows, cols, |r, c| (r * 7 + c * 13) % 5 < 2),
        };
        for values in [Precision::F32, Precision::Bf16, Precision::F16, Precision::I8] {
            let op: Box<dyn LinearOp> = match format.build(&w, &mask, values) {
                Ok(op) => op,
                Err(Error::InvalidOption { .. }) => continue,
                Err(e) => return Err(e),
            };
            for tokens in [1, 2, 3, 4, 6, 7, 8, 12, 16, 17, 33, 64, 100, 130] {
                let x = stream.normal_array(tokens, cols, 1.0);
                say(&format!("product/{name}/{values}/{tokens}"), numbers(&apply(op.as_ref(), &x)));
            }
            let dy = stream.normal_array(9, rows, 1.0);
            say(&format!("back/{name}/{values}"), numbers(&apply_transpose(op.as_ref(), &dy)));
        }
        for tokens in [1, 4, 16, 128] {
            let plan = Plan::new(&w, &mask, Hint::tokens(tokens))?;
            println!("plan/{name}/{tokens} {}", plan.chosen(tokens));
        }
    }
    for (m, k, n) in [(1, 40, 30), (5, 600, 300), (64, 300, 700), (200, 100, 50)] {
        let (a, b) = (stream.normal_array(m, k, 1.0), stream.normal_array(k, n, 1.0));
        let turned = b.t().as_standard_layout().into_owned();
        say(&format!("matmul/{m}x{k}x{n}"), numbers(&lacuna::linalg::matmul(&a, &b)));
        say(&format!("matmul_nt/{m}x{k}x{n}"), numbers(&lacuna::linalg::matmul_nt(&a, &turned)));
        say(&format!("matmul_tn/{m}x{k}x{n}"), numbers(&lacuna::linalg::matmul_tn(&a.t().as_standard_layout().into_owned(), &b)));
    }
    Ok(())
}
