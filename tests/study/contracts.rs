//! Methods that break their contract: one line that names the layer, in tables and out of `prune_layers`.

use super::common::networks;
use lacuna::Result;
use lacuna::allocate::{Target, Uniform};
use lacuna::criteria::{Evidence, Magnitude, Measured, Needs, Saliency};
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::nn::{Layers, NamedLayers};
use lacuna::prune::{Pruning, prune_layers, prune_layers_by};
use lacuna::rng::Seed;
use lacuna::solve::{Pruned, Pruner};
use lacuna::study::Compare;
use ndarray::{Array2, array};

/// Keeps everything, whatever the budget.
#[derive(Debug)]
struct Cheats;

impl Pruner for Cheats {
    fn name(&self) -> &str {
        "cheats"
    }

    fn needs(&self) -> Needs {
        Needs::none()
    }

    fn prune(&self, layer: &Evidence<'_>, _: Pattern, _: Scope, _: Budget) -> Result<Pruned> {
        let (rows, cols) = layer.weight.dim();
        Ok(Pruned { mask: Mask::full(rows, cols), weight: layer.weight.to_owned(), loss: None })
    }
}

/// Scores of a shape that is not the weight's.
#[derive(Debug)]
struct Misshapen;

impl Saliency for Misshapen {
    fn name(&self) -> &str {
        "misshapen"
    }

    fn score(&self, _: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(Array2::zeros((1, 1)))
    }
}

#[test]
fn methods_that_break_their_contract_are_told_so_in_the_table() -> Result<()> {
    let found = Compare::new().pruner(&Cheats).criterion(&Misshapen).only_own().seeds([0]).sparsities([0.5]).run(&networks())?;
    let reason = |name: &str| found.trial(name, 0.5, Seed(0)).unwrap().outcome.clone().unwrap_err();
    assert!(reason("cheats").contains("layer fc1: budget: cannot keep 384 of 768: the pruner kept 768"), "{}", reason("cheats"));
    assert!(reason("misshapen").contains("scores: expected shape [12, 64], found [1, 1]"), "{}", reason("misshapen"));
    assert!(found.figure().to_svg()?.contains("dense"), "the dense model is still drawn");
    Ok(())
}

/// What a pruner gives that does as it is told here.
#[derive(Debug)]
struct Gives(Mask, Array2<f32>);

impl Pruner for Gives {
    fn name(&self) -> &str {
        "gives"
    }

    fn needs(&self) -> Needs {
        Needs::none()
    }

    fn prune(&self, _: &Evidence<'_>, _: Pattern, _: Scope, _: Budget) -> Result<Pruned> {
        Ok(Pruned { mask: self.0.clone(), weight: self.1.clone(), loss: None })
    }
}

/// Scores that are one number everywhere.
#[derive(Debug)]
struct Everywhere(f32);

impl Saliency for Everywhere {
    fn name(&self) -> &str {
        "everywhere"
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(Array2::from_elem(layer.weight.dim(), self.0))
    }
}

/// One layer of four weights, of which half is to go.
fn four() -> NamedLayers {
    NamedLayers::new([("own", array![[1.0, 2.0, 3.0, 4.0]])]).unwrap()
}

fn pruning(saliency: &dyn Saliency, pattern: Pattern) -> Pruning<'_> {
    Pruning { saliency, allocate: &Uniform, target: Target::Sparsity(0.5), pattern, scope: Scope::Layer, skip: &[] }
}

#[test]
fn a_pruner_that_gives_a_wrong_thing_is_told_so_in_one_line_and_the_model_stays_as_it_was() {
    let (free, pair) = (Pattern::Unstructured, Pattern::Block { rows: 1, cols: 2 });
    let two_of_four = Pattern::Nm { n: 2, m: 4 };
    let bits = |bits: [u8; 4]| Mask::from_fn(1, 4, |_, c| bits[c] == 1);
    let weight = |mask: &Mask| mask.applied(&array![[1.0, 2.0, 3.0, 4.0]]);
    let by = |old: Option<Mask>, pattern: Pattern, gives: &Gives| {
        let mut own = four();
        if let Some(mask) = old {
            let weight = weight(&mask);
            own.write("own", Pruned { mask, weight, loss: None }).unwrap();
        }
        let (before, magnitude) = (own.clone(), Magnitude::default());
        let found = prune_layers_by(&mut own, &[Measured::default()], gives, &pruning(&magnitude, pattern));
        assert!(found.is_ok() || own == before);
        found.map(|_| ()).map_err(|e| e.to_string())
    };
    let plain = |mask: Mask| {
        let weight = weight(&mask);
        Gives(mask, weight)
    };
    assert_eq!(by(None, free, &plain(bits([0, 1, 0, 1]))), Ok(()));
    assert_eq!(by(None, pair, &plain(bits([0, 0, 1, 1]))), Ok(()));
    assert_eq!(by(None, two_of_four, &plain(bits([0, 1, 1, 0]))), Ok(()));
    for (pattern, gives, says) in [
        (free, plain(bits([1, 1, 1, 0])), "layer own: budget: cannot keep 2 of 4: the pruner kept 3"),
        (free, plain(bits([1, 0, 0, 0])), "layer own: budget: cannot keep 2 of 4: the pruner kept 1"),
        (two_of_four, plain(bits([1, 1, 1, 0])), "layer own: mask is not 2:4: row 0, columns 0..4 keep 3, not 2"),
        (pair, plain(bits([0, 1, 1, 0])), "layer own: mask is not block1x2: rows 0..1, columns 0..2 keep 1 of 2"),
        (free, Gives(Mask::full(2, 2), array![[1.0; 4]]), "layer own: mask: expected shape [1, 4], found [2, 2]"),
        (free, Gives(bits([1, 1, 0, 0]), array![[1.0], [2.0]]), "layer own: pruned weight: expected shape [1, 4], found [2, 1]"),
        (
            free,
            Gives(bits([1, 1, 0, 0]), array![[1.0, 2.0, 0.0, 0.5]]),
            "layer own: pruner: row 0, column 3 holds 0.5, and the mask drops it",
        ),
        (
            free,
            Gives(bits([1, 1, 0, 0]), array![[1.0, f32::NAN, 0.0, 0.0]]),
            "layer own: weights after pruning: NaN at row 0, column 1",
        ),
    ] {
        let error = by(None, pattern, &gives).unwrap_err();
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
    }
    // Over an older mask fewer may stay, and nothing comes back.
    let old = || Some(bits([1, 0, 0, 0]));
    for pattern in [free, two_of_four, pair] {
        assert_eq!(by(old(), pattern, &plain(bits([1, 0, 0, 0]))), Ok(()), "{pattern}");
        let error = by(old(), pattern, &plain(bits([1, 1, 0, 0]))).unwrap_err();
        assert_eq!(error, "layer own: pruner: row 0, column 1 was dropped before, and is kept again", "{pattern}");
    }
    let three = || Some(bits([1, 1, 1, 0]));
    assert_eq!(by(three(), pair, &plain(bits([0, 0, 1, 0]))), Ok(()));
    let error = by(three(), pair, &plain(bits([1, 0, 0, 0]))).unwrap_err();
    assert_eq!(error, "layer own: mask is not block1x2: rows 0..1, columns 0..2 keep 1 of 2");
    let error = by(three(), two_of_four, &plain(bits([1, 1, 1, 0]))).unwrap_err();
    assert_eq!(error, "layer own: mask is not 2:4: row 0, columns 0..4 keep 3, not 2");
    let error = by(three(), pair, &plain(bits([1, 1, 1, 0]))).unwrap_err();
    assert_eq!(error, "layer own: budget: cannot keep 1 of 2: the pruner kept 2");
}

#[test]
fn scores_of_another_shape_or_that_are_no_numbers_are_refused_in_one_line_wherever_they_come_from() {
    let half: &dyn Pruner = &Gives(Mask::from_fn(1, 4, |_, c| c < 2), array![[1.0, 2.0, 0.0, 0.0]]);
    for (saliency, says) in [
        (&Misshapen as &dyn Saliency, "layer own: scores: expected shape [1, 4], found [1, 1]"),
        (&Everywhere(f32::NAN), "layer own: scores: NaN at row 0, column 0"),
        (&Everywhere(f32::INFINITY), "layer own: scores: inf at row 0, column 0"),
    ] {
        let pruning = pruning(saliency, Pattern::Unstructured);
        let error = prune_layers(&mut four(), &[Measured::default()], &pruning).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
        // An allocation that ranks is given them too.
        let ranked = Pruning { allocate: &lacuna::allocate::Global, ..pruning };
        let error = prune_layers_by(&mut four(), &[Measured::default()], half, &ranked).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
        let found = Compare::new().criterion(&saliency).only_own().seeds([0]).sparsities([0.5]).run(&networks()).unwrap();
        let reason = found.trials()[0].outcome.clone().unwrap_err();
        assert!(reason.starts_with("layer fc1: scores: "), "{reason}");
    }
}
