//! A model of one's own, in 80 lines: pruned, trained and measured by the calls that networks and language models have.
//!
//! `cargo run --release --example own_model`

use lacuna::mask::Mask;
use lacuna::nn::{Change, LayerInfo, Layers, Mode, Model, NamedLayers, Objective, Observer, Parameters, See, Sink};
use lacuna::{Result, solve::Pruned};
use ndarray::{Array2, CowArray, Ix2};
use std::borrow::Cow;

/// z = h Cᵀ, h = x + tanh(x Aᵀ) Bᵀ: a block with a way around it.
#[derive(Debug, Clone)]
pub struct Residual(NamedLayers);

impl Residual {
    /// Of the weights A `(hidden, in)`, B `(in, hidden)` and C `(out, in)`.
    pub fn new(a: Array2<f32>, b: Array2<f32>, c: Array2<f32>) -> Result<Self> {
        NamedLayers::new([("a", a), ("b", b), ("c", c)]).map(Residual)
    }
}

impl Parameters for Residual {
    fn visit(&self, f: &mut See<'_>) {
        self.0.visit(f);
    }
    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.0.visit_mut(f)
    }
    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        self.0.set_mask(name, mask)
    }
}

impl Layers for Residual {
    fn layers(&self) -> Vec<LayerInfo> {
        self.0.layers()
    }
    fn read(&self, name: &str) -> Result<CowArray<'_, f32, Ix2>> {
        self.0.read(name)
    }
    fn mask(&self, name: &str) -> Result<Option<Cow<'_, Mask>>> {
        self.0.mask(name)
    }
    fn write(&mut self, name: &str, pruned: Pruned) -> Result<()> {
        self.0.write(name, pruned)
    }
}

/// What the way back needs: x, tanh(x Aᵀ), h and z.
pub struct Values([Array2<f32>; 4]);

impl Model for Residual {
    type Batch = Array2<f32>;
    type Tape = Values;

    fn forward(&self, x: &Array2<f32>, _: Mode, observer: &mut dyn Observer) -> Result<Values> {
        observer.see(&["a"], x);
        let inner = x.dot(&self.read("a")?.t()).mapv(f32::tanh);
        observer.see(&["b"], &inner);
        let h = x + &inner.dot(&self.read("b")?.t());
        observer.see(&["c"], &h);
        let z = h.dot(&self.read("c")?.t());
        Ok(Values([x.clone(), inner, h, z]))
    }

    fn backward(&self, tape: Values, objective: &dyn Objective, rows: &[usize], sink: &mut Sink<'_>) -> Result<f64> {
        let Values([x, inner, h, mut d]) = tape;
        let loss = objective.loss(rows, &mut d, objective.count(rows)); // d was z and is ∂L/∂z now
        sink("c.weight", d.t().dot(&h).into_dyn());
        let dh = d.dot(&self.read("c")?);
        sink("b.weight", dh.t().dot(&inner).into_dyn());
        let da = dh.dot(&self.read("b")?) * inner.mapv(|t| 1.0 - t * t);
        sink("a.weight", da.t().dot(&x).into_dyn());
        Ok(loss)
    }
}

#[allow(dead_code)] // a test uses the model alone
fn main() -> Result<()> {
    use lacuna::allocate::{Global, Target};
    use lacuna::calibrate::Calibration;
    use lacuna::criteria::Fisher;
    use lacuna::data::digits;
    use lacuna::mask::{Pattern, Scope};
    use lacuna::nn::{Loss, Method};
    use lacuna::prune::{Pruning, Schedule, iterative};
    use lacuna::rng::Seed;
    use lacuna::train::{Decay, TrainConfig, train_model};

    let (x, target) = (digits().x().to_owned(), digits().one_hot(1.0, 0.0));
    let data = Calibration::new(&x, &target, Loss::CrossEntropy);
    let mut stream = Seed(0).stream("weights");
    let mut drawn = |rows, cols| stream.normal_array(rows, cols, 0.1);
    let mut model = Residual::new(drawn(32, 64), drawn(64, 32), drawn(10, 64))?;
    let method = Method::Adam { weight_decay: 0.0 };
    let (loss, decay, seed) = (Loss::CrossEntropy, Decay::Constant, Seed(0));
    let recipe = TrainConfig { loss, method, learning_rate: 3e-3, decay, epochs: 4, batch: 64, seed };
    let dense = train_model(&mut model, &data, &recipe, &mut |_, _, _| Ok(()))?;

    // Nine of ten weights go in four steps, by what each adds to the loss; what is left trains between them.
    let pruning = Pruning {
        saliency: &Fisher,
        allocate: &Global,
        target: Target::Sparsity(0.9),
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        skip: &[],
    };
    let mut last = f64::NAN;
    let pruned = iterative(&model, &data, &pruning, Schedule::Cubic { steps: 4 }, 0.9, |model, _| {
        last = train_model(model, &data, &recipe, &mut |_, _, _| Ok(()))?[recipe.epochs - 1];
        Ok(())
    })?;
    let (kept, all) = (pruned.model.kept_parameters(), pruned.model.parameter_count());
    println!("dense: loss {:.4}; {kept} of {all} weights: loss {last:.4}", dense[recipe.epochs - 1]);
    assert!(kept.abs_diff(all / 10) <= 1 && last < 0.5, "{kept} of {all} weights, loss {last}");
    Ok(())
}
