//! What cannot be pruned or measured is said in one line, and before anything runs.

use crate::common::{pruning, small_mlp, split_digits};
use lacuna::Result;
use lacuna::allocate::Uniform;
use lacuna::calibrate::{Calibration, measure};
use lacuna::criteria::{Need, Needs, Taylor};
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::nn::{
    Change, LayerInfo, Layers, Loss, Mode, Model, NamedLayers, Network, Objective, Observer, Parameters, Samples, See, Sink,
};
use lacuna::prune::{Pruning, Schedule, compensated, iterative, one_shot};
use lacuna::solve::{Pruned, WoodFisher};
use ndarray::{Array2, CowArray, Ix2, array};
use std::borrow::Cow;

/// Samples that nothing may look at.
struct Untouched;

impl Samples for Untouched {
    type Batch = Array2<f32>;

    fn len(&self) -> usize {
        9
    }

    fn batch(&self, _: &[usize]) -> Array2<f32> {
        panic!("the model was run")
    }

    fn objective(&self) -> &dyn Objective {
        panic!("the objective was asked for")
    }
}

#[test]
fn what_cannot_be_pruned_so_is_refused_before_the_model_is_run() {
    let network = small_mlp(1);
    let by = pruning(&Taylor, &Uniform, 0.5);
    let unknown = ["fc9".to_string()];
    let cases = [
        (Pruning { skip: &unknown, ..by }, "no layer is named 'fc9'"),
        (Pruning { pattern: Pattern::Nm { n: 2, m: 7 }, ..by }, "layer fc"),
        (Pruning { pattern: Pattern::Block { rows: 0, cols: 7 }, ..by }, "layer fc"),
        (Pruning { pattern: Pattern::Rows, scope: Scope::Row, ..by }, "scope"),
    ];
    for (case, says) in cases {
        let woodfisher = WoodFisher::default();
        let lines = [
            one_shot(&network, &Untouched, &case).unwrap_err(),
            compensated(&network, &Untouched, &case, &woodfisher).unwrap_err(),
            iterative(&network, &Untouched, &case, Schedule::OneShot, 0.5, |_, _| Ok(())).unwrap_err(),
        ];
        for line in lines {
            assert!(line.to_string().contains(says), "{line}");
        }
    }
    let line = compensated(&network, &Untouched, &by, &WoodFisher { damping: 0.0, ..WoodFisher::default() }).unwrap_err();
    assert!(line.to_string().contains("damping"), "{line}");
}

#[test]
fn layers_of_one_name_are_refused() {
    for names in [["a", "a"], ["a", "a.weight"], ["a.weight", "a"]] {
        let line = NamedLayers::new(names.map(|name| (name, array![[1.0]]))).unwrap_err().to_string();
        assert_eq!(line, format!("layers: '{}' is given twice", names[1]));
    }
}

/// A network whose gradients are columns.
struct Flat(Network);

impl Parameters for Flat {
    fn visit(&self, f: &mut See<'_>) {
        self.0.visit(f);
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.0.visit_mut(f)
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        Parameters::set_mask(&mut self.0, name, mask)
    }
}

impl Layers for Flat {
    fn layers(&self) -> Vec<LayerInfo> {
        Layers::layers(&self.0)
    }

    fn read(&self, name: &str) -> Result<CowArray<'_, f32, Ix2>> {
        Layers::read(&self.0, name)
    }

    fn mask(&self, name: &str) -> Result<Option<Cow<'_, Mask>>> {
        Layers::mask(&self.0, name)
    }

    fn write(&mut self, name: &str, pruned: Pruned) -> Result<()> {
        Layers::write(&mut self.0, name, pruned)
    }
}

impl Model for Flat {
    type Batch = Array2<f32>;
    type Tape = lacuna::nn::Tape;

    fn forward(&self, batch: &Array2<f32>, mode: Mode, observer: &mut dyn Observer) -> Result<Self::Tape> {
        Model::forward(&self.0, batch, mode, observer)
    }

    fn backward(&self, tape: Self::Tape, objective: &dyn Objective, rows: &[usize], sink: &mut Sink<'_>) -> Result<f64> {
        Model::backward(&self.0, tape, objective, rows, &mut |name, gradient| {
            let len = gradient.len();
            sink(name, gradient.into_shape_with_order(vec![len, 1]).unwrap());
        })
    }
}

#[test]
fn gradients_of_another_shape_than_the_weight_are_refused() {
    let (x, target) = split_digits(3, 12, 1).0;
    let data = Calibration::new(&x, &target, Loss::CrossEntropy);
    let flat = Flat(small_mlp(1));
    let (rows, cols) = flat.layers()[0].shape;
    for need in [Need::Gradient, Need::SquaredGradients, Need::SampleGradients] {
        let line = measure(&flat, &data, Needs::none().and(need)).unwrap_err().to_string();
        assert!(line.contains(&format!("expected shape [{rows}, {cols}], found [{}, 1]", rows * cols)), "{need:?}: {line}");
    }
    for need in [Need::SecondDerivatives, Need::HessianGradient, Need::SynapticFlow] {
        let line = measure(&flat, &data, Needs::none().and(need)).unwrap_err().to_string();
        assert!(line.contains("this model has no pass that measures it"), "{line}");
    }
}
