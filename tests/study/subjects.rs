//! Subjects of one's own: networks with masks, models that are not of this library, language models.

use super::common::{LOSS, RowScaled, data, networks, trained};
use super::{language, own_model};
use lacuna::allocate::{Global, Target, Uniform};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Evidence, Fisher, Measured, Need, Needs, Saliency};
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::nn::{Layers, Mode, Model};
use lacuna::prune::{Pruning, one_shot};
use lacuna::rng::Seed;
use lacuna::solve::{Pruned, SparseGpt};
use lacuna::study::{Candidate, Compare, LayerLists, Metric, Networks, Subject, Trained};
use lacuna::{Error, Result};
use ndarray::Array2;
use std::borrow::Cow;

/// A subject of one's own: a network whose first half of fc1 is gone before.
struct HalfGone;

impl Subject for HalfGone {
    type Model = Trained;

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::larger("weights left in fc1"), Metric::larger("of them among those that were gone")]
    }

    fn model(&self, seed: Seed) -> Result<Trained> {
        let mut network = trained(seed)?;
        network.param_mut("fc1.weight")?.set_mask(Mask::from_fn(12, 64, |_, c| c >= 32))?;
        let (train, test) = data(seed);
        Ok(Trained::new(network, train, test, LOSS))
    }

    fn layers<'m>(&self, model: &'m Trained) -> &'m dyn Layers {
        &model.network
    }

    fn measure<'m>(&self, model: &'m Trained, needs: Needs) -> Result<Cow<'m, [Measured]>> {
        if needs.contains(Need::SynapticFlow) {
            return Err(Error::invalid_option("synaptic flow", "nobody knows how"));
        }
        networks().measure(model, needs)
    }

    fn judge(&self, _: &Trained, _: Seed, pruned: &[(String, Pruned)]) -> Result<Vec<f64>> {
        let held = Mask::from_fn(12, 64, |_, c| c >= 32);
        let mask = pruned.iter().find(|(layer, _)| layer == "fc1").map_or(&held, |(_, p)| &p.mask);
        Ok(vec![mask.kept() as f64, mask.minus(&held).kept() as f64])
    }
}

#[test]
fn what_a_mask_dropped_stays_dropped_and_skipped_layers_are_left_alone() -> Result<()> {
    let gpt = SparseGpt::default();
    let compare =
        Compare::new().criterion(&RowScaled).pruner(&gpt).built_in(["synflow", "obd"]).sparsities([0.25, 0.75]).seeds([0]);
    let found = compare.clone().skip(["fc2"]).run(&HalfGone)?;
    let gone = found.by("of them among those that were gone")?;
    for method in ["row-scaled", "sparsegpt", "obd"] {
        // Half is gone: room for three quarters leaves half, room for a quarter a quarter.
        let left = [0.25, 0.75].map(|s| found.values(method, s).unwrap()[0].1);
        assert_eq!(left, [384.0, 192.0], "{method}");
        assert_eq!(gone.values(method, 0.75)?[0].1, 0.0);
        assert_eq!(found.trial(method, 0.25, Seed(0))?.outcome.as_ref().unwrap().of, 768, "fc2 is not counted");
    }
    let reason = found.trial("synflow", 0.25, Seed(0))?.outcome.clone().unwrap_err();
    assert_eq!(reason, "needs the synaptic flow, which cannot be measured: synaptic flow: nobody knows how");
    let found = compare.clone().skip(["fc1.weight"]).run(&HalfGone)?;
    assert_eq!(found.values("obd", 0.75)?[0].1, 384.0);
    // Groups of an N:M pattern of which nothing was left keep nothing; the others two of four.
    let compare = compare.skip(["fc2"]).sparsities([0.5]).pattern(Pattern::Nm { n: 2, m: 4 });
    let found = compare.run(&HalfGone)?;
    for method in ["row-scaled", "sparsegpt", "obd"] {
        assert_eq!(found.trial(method, 0.5, Seed(0))?.outcome.as_ref().unwrap().values, [192.0, 0.0], "{method}");
    }
    Ok(())
}

/// Must not be asked.
#[derive(Debug)]
struct Never;

impl Saliency for Never {
    fn name(&self) -> &str {
        "never"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::SynapticFlow)
    }

    fn score(&self, _: &Evidence<'_>) -> Result<Array2<f32>> {
        panic!("was asked for scores")
    }
}

#[test]
fn by_what_a_pruner_is_ranked_is_measured_and_asked_only_where_an_allocation_ranks() -> Result<()> {
    let gpt = SparseGpt::default();
    let compare = Compare::new().only_own().with(Candidate::pruner(&gpt).ranked_by(&Never)).sparsities([0.5]).seeds([0]);
    let outcome = |compare: Compare<'_>| Ok(compare.run(&HalfGone)?.trials()[0].outcome.clone());
    assert!(outcome(compare.clone())?.is_ok());
    assert!(outcome(compare.clone().allocate(&Global).pattern(Pattern::Nm { n: 2, m: 4 }))?.is_ok());
    let ranked: std::result::Result<_, String> = outcome(compare.allocate(&Global))?;
    assert!(ranked.unwrap_err().starts_with("needs the synaptic flow"));
    Ok::<(), Error>(())
}

#[test]
fn a_model_that_is_not_of_this_library_is_compared_as_networks_are() -> Result<()> {
    use own_model::Residual;
    let model = |seed: Seed| {
        let mut stream = seed.stream("weights");
        let mut drawn = |rows, cols| stream.normal_array(rows, cols, 0.1);
        Residual::new(drawn(8, 64), drawn(64, 8), drawn(10, 64))
    };
    let loss = |model: &Residual, x: &Array2<f32>, target: &Array2<f32>| -> Result<f64> {
        let rows: Vec<usize> = (0..x.nrows()).collect();
        let tape = model.forward(x, Mode::Eval, &mut ())?;
        model.backward(tape, &Calibration::new(x, target, LOSS), &rows, &mut |_, _| ())
    };
    let judge = |model: &Residual, of: &Trained<Residual>| Ok(vec![loss(model, &of.test.0.to_owned(), &of.test.1.to_owned())?]);
    let train = |seed| {
        let (train, test) = data(seed);
        Ok(Trained::new(model(seed)?, train, test, LOSS))
    };
    let subject = Networks::judged_by(train, [Metric::smaller("loss")], judge);
    let found =
        Compare::new().criterion(&RowScaled).built_in(["fisher", "sparsegpt"]).sparsities([0.8]).seeds([1]).run(&subject)?;
    let (train, test) = data(Seed(1));
    for (name, saliency) in [("row-scaled", &RowScaled as &dyn Saliency), ("fisher", &Fisher)] {
        let (target, pattern, scope) = (Target::Sparsity(0.8), Pattern::Unstructured, Scope::Layer);
        let pruning = Pruning { saliency, allocate: &Uniform, target, pattern, scope, skip: &[] };
        let pruned = one_shot(&model(Seed(1))?, &Calibration::new(&train.0, &train.1, LOSS), &pruning)?.model;
        assert_eq!(found.values(name, 0.8)?, [(Seed(1), loss(&pruned, &test.0, &test.1)?)], "{name}");
    }
    found.complete().map(|_| ())
}

#[test]
fn a_language_model_is_compared_by_its_perplexity_through_its_lists_of_layers() -> Result<()> {
    let written = language::Model::new(lacuna::io::Dtype::F32);
    let model = language::model(&written.dir);
    let text = language::tokens(4);
    let perplexity = |model: &lacuna::lm::LanguageModel| -> Result<f64> {
        let losses = text.chunks(language::LENGTH).map(|ids| model.nll(ids)).collect::<Result<Vec<_>>>()?;
        let all: Vec<f64> = losses.into_iter().flatten().collect();
        Ok((all.iter().sum::<f64>() / all.len() as f64).exp())
    };
    let lists = LayerLists::new(|seed| {
        // Other calibration tokens for each seed.
        let mut stream = seed.stream("calibration");
        let ids: Vec<u32> = (0..5 * language::LENGTH).map(|_| stream.below(50) as u32).collect();
        let measured = language::seen(&model, &ids);
        let layer = |l: &lacuna::nn::Linear| (l.name().to_string(), l.dense_weight().into_owned(), measured[l.name()].clone());
        Ok(model.linears().into_iter().map(layer).collect())
    })
    .judge([Metric::smaller("perplexity")], |weights, _| {
        let mut pruned = language::model(&written.dir);
        for (name, weight) in weights {
            pruned.linear_mut(name)?.set_weight((*weight).clone())?;
        }
        Ok(vec![perplexity(&pruned)?])
    });
    let found =
        Compare::new().criterion(&RowScaled).built_in(["wanda", "sparsegpt"]).sparsities([0.5]).seeds([0, 1]).run(&lists)?;
    assert_eq!(found.values("dense", 0.5)?, [Seed(0), Seed(1)].map(|seed| (seed, perplexity(&model).unwrap())));
    // By hand: half of every layer by the criterion.
    let mut pruned = language::model(&written.dir);
    for linear in model.linears() {
        let weight = linear.dense_weight().into_owned();
        let scores = RowScaled.score(&Evidence::weight_only(linear.name(), &weight))?;
        let budget = Budget::from_sparsity(weight.len(), 0.5)?;
        let mask = lacuna::mask::select(&scores, Pattern::Unstructured, Scope::Layer, budget)?;
        pruned.linear_mut(linear.name())?.set_weight(mask.applied(&weight))?;
    }
    let by_hand = perplexity(&pruned)?;
    assert_eq!(found.values("row-scaled", 0.5)?, [(Seed(0), by_hand), (Seed(1), by_hand)]);
    let wanda = found.values("wanda", 0.5)?;
    assert!(wanda[0].1 != wanda[1].1, "the calibration is that of the seed: {wanda:?}");
    Ok(())
}
