//! Gale, Elsen, Hooker 2019, *The state of sparsity in deep neural networks*: every method on one network, under one budget.
//!
//! `cargo run --release --example state_of_sparsity -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::allocate::{Erk, Global, Lamp};
use lacuna::criteria::{Saliency, Snip, SynFlow};
use lacuna::eval::Size;
use lacuna::nn::{Method, Network, Parameters};
use lacuna::paper::{DigitImages, Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::sparse_training::{
    Acdc, EdgePopup, FixedMask, GradualMagnitude, HardConcrete, MaskChoice, Movement, OwnTraining, Reparametrized, Rigl,
    SparseEvolution, SparseMethod, TopKast, prune_before_training, train_sparse,
};
use lacuna::train::{Decay, TrainConfig, side_by_side};
use std::collections::BTreeMap;

/// The best known first, so that others can take its mask.
const METHODS: [&str; 11] =
    [MAGNITUDE, "AC/DC", "RigL", "SET", "Top-KAST", "movement", "SNIP", "SynFlow", ITS_MASK, RANDOM, "supermask"];
const MAGNITUDE: &str = "gradual magnitude";
const ITS_MASK: &str = "its mask, from the beginning";
const RANDOM: &str = "random mask";

/// A method that trains at a sparsity; masks that are there already are held.
fn method(name: &str, sparsity: f64, every: usize) -> Box<dyn SparseMethod> {
    let (lamp, erk) = (MaskChoice::allocated(sparsity, Lamp), MaskChoice::allocated(sparsity, Erk));
    match name {
        MAGNITUDE => Box::new(GradualMagnitude::new(lamp).every(every)),
        "AC/DC" => Box::new(Acdc::new(lamp)),
        "RigL" => Box::new(Rigl::new(erk).every(every)),
        "SET" => Box::new(SparseEvolution::new(erk).every(every)),
        "Top-KAST" => {
            let mut kast = TopKast::new(erk);
            (kast.every, kast.decay) = (every, 1e-5);
            Box::new(Reparametrized::new(kast))
        }
        "movement" => {
            let mut movement = Movement::new(erk);
            movement.every = every / 5;
            Box::new(Reparametrized::trained(movement, OwnTraining { rate: 10.0, method: None }))
        }
        RANDOM => Box::new(FixedMask::random(erk)),
        "supermask" => Box::new(Reparametrized::trained(EdgePopup::new(erk), OwnTraining { rate: 10.0, method: None })),
        _ => Box::new(FixedMask::default()),
    }
}

/// Of one seed: density, accuracy in %, and FLOPs of training over dense, by method and setting: a sparsity in thousandths, or of hard concrete
/// gates (L0) the place in the list of penalties, beside gradual magnitude at the density that came of it.
type Found = BTreeMap<(&'static str, u64), (f64, f64, f64)>;

fn of_seed(options: &Options, (sparsities, penalties): (&[f64], &[f32]), seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, 4000, seed)?;
    let config = TrainConfig { decay: Decay::Cosine, ..DigitImages::config(options.pick(12, 6), seed) };
    let start = DigitImages::network(options, seed)?;
    let every = options.pick(10, 25);
    let train = |mut network: Network, method: &mut dyn SparseMethod| -> Result<(Network, (f64, f64, f64))> {
        let run = train_sparse(&mut network, &images.samples(), &config, method, &mut |_, _, _| Ok(()))?;
        let size = Size::of(&network)?;
        let of = (size.kept_weights as f64 / size.weights as f64, images.accuracy(&network), run.flops.fraction());
        Ok((network, of))
    };
    let mut found = BTreeMap::from([(("dense", 0), train(start.clone(), &mut FixedMask::default())?.1)]);
    for &sparsity in sparsities {
        let mut magnitude: Option<Network> = None;
        for name in METHODS {
            let samples = images.samples();
            let before = |by: &dyn Saliency, rounds| prune_before_training(&start, &samples, by, &Global, sparsity, rounds);
            let mut network = match name {
                "SNIP" => before(&Snip, 1)?.0,
                "SynFlow" => before(&SynFlow, 100)?.0,
                _ => start.clone(),
            };
            if let Some(pruned) = magnitude.as_ref().filter(|_| name == ITS_MASK) {
                for (layer, mask) in pruned.masks() {
                    network.set_mask(&format!("{layer}.weight"), Some(mask))?;
                }
            }
            let (network, of) = train(network, &mut *method(name, sparsity, every))?;
            found.insert((name, (1000.0 * sparsity).round() as u64), of);
            magnitude = magnitude.or(Some(network));
        }
    }
    for (k, &penalty) in penalties.iter().enumerate() {
        let own = OwnTraining { rate: 30.0, method: Some(Method::Adam { weight_decay: 0.0 }) };
        let of = train(start.clone(), &mut Reparametrized::trained(HardConcrete::new(penalty), own))?.1;
        found.insert(("L0", k as u64), of);
        let twin = train(start.clone(), &mut *method(MAGNITUDE, (1.0 - of.0).clamp(0.0, 0.999), every))?.1;
        found.insert(("gradual magnitude, as sparse as L0", k as u64), twin);
    }
    Ok(found)
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let sparsities: Vec<f64> = options.pick(vec![0.95], vec![0.95, 0.98]);
    let penalties: Vec<f32> = options.pick(vec![1.0], vec![0.3, 3.0]);
    let seeds = options.seeds();
    let all = side_by_side(seeds.len(), |k| of_seed(options, (&sparsities, &penalties), seeds[k]))?;
    let columns = "seed,method,setting,fraction kept,mean of seeds,test accuracy in %,FLOPs of training over dense";
    let mut rows = Table::new(columns.split(','));
    for (seed, found) in seeds.iter().zip(&all) {
        for ((method, setting), (density, accuracy, flops)) in found {
            let mean = all.iter().map(|f| f[&(*method, *setting)].0).sum::<f64>() / seeds.len() as f64;
            rows.row((seed.0, *method, *setting as usize, *density, mean, *accuracy, *flops));
        }
    }
    let each = |f: &dyn Fn(&Found) -> f64| -> Vec<(Seed, f64)> { seeds.iter().copied().zip(all.iter().map(f)).collect() };
    let ours = options.pick("64-60-30-10, digits 8×8, 12 epochs", "LeNet-300-100, 4000 of MNIST, 6 epochs");
    let c = study.claims.setting("ResNet-50, ImageNet; Transformer, WMT", ours);
    c.add("dense: test accuracy, %", "76.69", "mean > 85", 2)?.extend(each(&|f| f[&("dense", 0)].1));
    let mut gap = |what: &str, worse: (&'static str, u64), better: (&'static str, u64), paper: &str, rule: &str| -> Result<()> {
        c.add(format!("{what}: points of accuracy"), paper, rule, 2)?.extend(each(&|f| f[&better].1 - f[&worse].1));
        Ok(())
    };
    let magnitude = |setting| (MAGNITUDE, setting);
    let chance = (RANDOM, 950);
    gap("gradual magnitude less a random mask, 95 %", chance, magnitude(950), "far above 0", "mean > 0")?;
    if !options.quick {
        let scratch = |setting| (ITS_MASK, setting);
        gap(
            "gradual magnitude less its mask trained from the beginning, 95 %",
            scratch(950),
            magnitude(950),
            "above 0",
            "mean > 0",
        )?;
        gap("the same, 98 %", scratch(980), magnitude(980), "above 0", "mean > 0")?;
        for name in ["RigL", "AC/DC", "SNIP", "SynFlow"] {
            gap(&format!("{name} less a random mask, 98 %"), (RANDOM, 980), (name, 980), "–", "mean > 0")?;
        }
        gap("gradual magnitude less SNIP, 98 %", ("SNIP", 980), magnitude(980), "–", "mean > 0")?;
    }
    for k in 0..penalties.len() as u64 {
        let what = format!("gradual magnitude less L0 of penalty {} at the same density", penalties[k as usize]);
        let twin = ("gradual magnitude, as sparse as L0", k);
        gap(&what, ("L0", k), twin, "at least 0", options.pick("mean > -3", "mean >= 0"))?;
    }
    study.tables.push(("accuracy".into(), rows));
    Ok(study)
}

/// One figure over all: the accuracy against the fraction of weights that is kept.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, y, rows) = ("mean of seeds", "test accuracy in %", study.table("accuracy")?);
    let mut figure = Figure::new("Every method, the same network", x, y).log_x().error_bars();
    for name in METHODS.into_iter().chain(["L0"]) {
        figure = figure.line(name, &rows.only("method", name)?, x, y)?;
    }
    Ok(vec![("accuracy".into(), figure.level("dense", &rows.only("method", "dense")?, y)?.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("state_of_sparsity", run, draw)
}
