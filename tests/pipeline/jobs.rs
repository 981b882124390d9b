//! Jobs on a network in memory.

use crate::common::{small_convnet, small_mlp, split_digits};
use lacuna::allocate::{Erk, Global, Overrides, Target, Uniform};
use lacuna::calibrate::{Calibration, LayerWeights, measure};
use lacuna::criteria::{Fisher, Magnitude, Need, Needs, Random, Saliency, Wanda};
use lacuna::job::{Methods, PruneJob};
use lacuna::mask::{Pattern, Scope};
use lacuna::nn::Loss;
use lacuna::prune::{Pruning, one_shot};
use lacuna::rng::Seed;
use lacuna::solve::{Pruner, SparseGpt, squared_error};
use std::collections::BTreeMap;

#[test]
fn a_criterion_prunes_a_network_as_one_shot_does_to_the_bit() {
    let ((x, t), _) = split_digits(7, 150, 1);
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let methods = Methods::standard();
    let (magnitude, random) = (Magnitude::default(), Random { seed: Seed(5) });
    let criteria: [(&str, &dyn Saliency); 4] =
        [("magnitude", &magnitude), ("random", &random), ("fisher", &Fisher), ("wanda", &Wanda)];
    for network in [small_mlp(1), small_convnet(1)] {
        for (name, saliency) in criteria {
            for (pattern, sparsity) in [
                (Pattern::Unstructured, Some(0.37)),
                (Pattern::Rows, Some(0.25)),
                (Pattern::Block { rows: 4, cols: 2 }, Some(0.5)),
            ] {
                for (allocation, allocate) in
                    [("uniform", &Uniform as &dyn lacuna::allocate::Allocate), ("erk", &Erk), ("global", &Global)]
                {
                    let skip: Vec<String> = vec![network.affines().last().unwrap().1.to_string()];
                    let pruning = Pruning {
                        saliency,
                        allocate,
                        target: Target::Sparsity(sparsity.unwrap()),
                        pattern,
                        scope: Scope::Layer,
                        skip: &skip,
                    };
                    let expected = one_shot(&network, &data, &pruning).unwrap();
                    let job = PruneJob::new(name).pattern(pattern).sparsity(sparsity.unwrap()).allocate(allocation);
                    let job = job.scope(Scope::Layer).seed(5).skip(skip.clone());
                    let found = job.prune_model(&methods, &network, &data).unwrap();
                    assert_eq!(found.masks, expected.masks, "{name}, {pattern}, {allocation}");
                    let bits = |increase: Option<f64>| increase.map(f64::to_bits);
                    assert_eq!(bits(found.predicted_increase), bits(expected.predicted_increase), "{name}, {pattern}");
                    let weights =
                        |n: &lacuna::nn::Network| n.params().into_iter().map(|(_, p)| p.value().clone()).collect::<Vec<_>>();
                    assert_eq!(weights(&found.model), weights(&expected.model), "{name}, {pattern}, {allocation}");
                    // Twice: what was dropped stays dropped.
                    let again = job.sparsity(0.6).prune_model(&methods, &found.model, &data).unwrap();
                    let pruning = Pruning { target: Target::Sparsity(0.6), ..pruning };
                    assert_eq!(
                        again.masks,
                        one_shot(&expected.model, &data, &pruning).unwrap().masks,
                        "{name}, {pattern}, twice"
                    );
                }
            }
        }
    }
}

#[test]
fn a_layer_may_have_a_sparsity_of_its_own_in_a_network() {
    let ((x, t), _) = split_digits(7, 50, 1);
    let (network, data) = (small_mlp(3), Calibration::new(&x, &t, Loss::CrossEntropy));
    let name = network.affines().next().unwrap().1.to_string();
    let job = PruneJob::new("magnitude").sparsity(0.5).layer([(name.clone(), 0.6)]);
    let found = job.prune_model(&Methods::standard(), &network, &data).unwrap();
    let allocate = Overrides { sparsity: BTreeMap::from([(name, 0.6)]), rest: Uniform };
    let magnitude = Magnitude::default();
    let pruning = Pruning {
        saliency: &magnitude,
        allocate: &allocate,
        target: Target::Sparsity(0.5),
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        skip: &[],
    };
    assert_eq!(found.masks, one_shot(&network, &data, &pruning).unwrap().masks);
    // Of 1536 weights six tenths go; of all 1944 half.
    let kept: Vec<usize> = found.masks.iter().map(|(_, mask)| mask.kept()).collect();
    assert_eq!((kept[0], kept.iter().sum::<usize>()), (1536 - 922, 972));
}

#[test]
fn a_pruner_moves_the_weights_of_a_network_to_what_it_gives_for_each_layer() {
    let ((x, t), _) = split_digits(7, 150, 1);
    let (network, data) = (small_mlp(2), Calibration::new(&x, &t, Loss::CrossEntropy));
    let methods = Methods::standard();
    let job = PruneJob::new("sparsegpt").sparsity(0.5).block_size(16);
    let found = job.prune_model(&methods, &network, &data).unwrap();
    let simple = PruneJob::new("magnitude").sparsity(0.5).prune_model(&methods, &network, &data).unwrap();
    let measured = measure(&network, &data, Needs::none().and(Need::Gram)).unwrap();
    let weights_of = LayerWeights::of(&network).unwrap();
    for (i, layer) in weights_of.evidence(&measured).into_iter().enumerate() {
        let pruner = SparseGpt { block: 16, ..SparseGpt::default() };
        let budget = Pattern::Unstructured.budget(layer.weight.nrows(), layer.weight.ncols(), 0.5).unwrap();
        let expected = pruner.prune(&layer, Pattern::Unstructured, Scope::Layer, budget).unwrap();
        let param = |of: &lacuna::prune::Outcome| of.model.param(&format!("{}.weight", layer.layer)).unwrap().value().clone();
        assert_eq!((&found.masks[i].1, param(&found)), (&expected.mask, expected.weight), "{}", layer.layer);
        let lost = |weight: ndarray::Array2<f32>| squared_error(&weight, &layer.weight, layer.gram("test").unwrap());
        assert!(lost(param(&found)) < lost(param(&simple)), "{}", layer.layer);
    }
    // Least squares on the mask of a criterion keep the mask.
    let solved = PruneJob::new("magnitude").sparsity(0.5).reconstruct(30).prune_model(&methods, &network, &data).unwrap();
    assert_eq!(solved.masks, simple.masks);
    assert_ne!(solved.model.params()[0].1.value(), simple.model.params()[0].1.value());
}

#[test]
fn what_a_network_has_no_use_for_is_refused() {
    let ((x, t), _) = split_digits(7, 20, 1);
    let (network, data) = (small_mlp(2), Calibration::new(&x, &t, Loss::CrossEntropy));
    let half = PruneJob::new("magnitude").sparsity(0.5);
    for (job, line) in [
        (half.clone().text("a.txt"), "text: is for files: this job prunes a model in memory"),
        (half.clone().correct(1.0, 0.0), "correct: is for files: this job prunes a model in memory"),
        (half.clone().allocate("owl"), "allocate: owl needs a model's folder"),
        (half.clone().method("magnitde"), "no method is named 'magnitde' among 13; did you mean 'magnitude'?"),
        (half.clone().only(["conv"]), "no layer is named 'conv' among 3"),
        (half.clone().skip(["*"]), "skip: no layer is left to prune"),
        (half.clone().damping(f64::NAN), "damping: NaN is not a finite number of at least 0; 0.01 is usual"),
        (PruneJob::default(), "sparsity: pattern unstructured needs one: give --sparsity"),
    ] {
        let found = job.prune_model(&Methods::standard(), &network, &data).unwrap_err().to_string();
        assert!(found.starts_with(line), "{found}");
    }
}

#[test]
fn what_cannot_be_pruned_is_refused_before_anything_is_measured() {
    let network = small_mlp(2);
    // Data that no pass over this network can take.
    let (x, t) = (ndarray::Array2::zeros((4, 3)), ndarray::Array2::zeros((4, 2)));
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let names: Vec<String> = network.affines().map(|(_, name, _)| name.to_string()).collect();
    let (first, last) = (&*names[0], &*names[names.len() - 1]);
    let half = PruneJob::new("sparsegpt").sparsity(0.5);
    let nm = PruneJob::new("sparsegpt").pattern(Pattern::Nm { n: 2, m: 4 });
    let again = format!("{first}.weight");
    for (job, line) in [
        (half.clone().layer([("conv", 0.5)]), "no layer is named 'conv' among 3".to_string()),
        (half.clone().layer([(first, 1.0)]), format!("layer: '{first}': 1 is not in [0, 1)")),
        (
            half.clone().layer([(first, 0.5), (&*again, 0.6)]),
            format!("layer: '{first}' and '{again}' are one layer, which is given twice"),
        ),
        (half.clone().skip([first]).layer([(first, 0.6)]), format!("no layer is named '{first}' among 2")),
        (half.clone().sparsity(0.9).layer([(first, 0.0)]), "budget: cannot keep 194 of 1944: the given layers keep 1536".into()),
        (half.clone().sparsity(0.9).allocate("global").layer([(first, 0.0)]), "budget: cannot keep 194 of 1944".into()),
        (nm.clone().layer([(first, 0.5)]), "layer: pattern 2:4 fixes the sparsity of every layer".into()),
        (PruneJob::new("sparsegpt").pattern(Pattern::Nm { n: 1, m: 5 }), format!("layer {first}: pattern 1:5 does not fit a ")),
        (half.clone().pattern(Pattern::Rows).scope(Scope::Row), "scope: pattern rows cannot be chosen row by row".into()),
        (half.clone().allocate("evolve"), "allocate: evolve needs a model's folder".into()),
        (half.clone().only([last]).skip([last]), "skip: no layer is left to prune".into()),
        (half.clone().samples(0), "samples: 0 is not at least 1".into()),
    ] {
        let found = job.prune_model(&Methods::standard(), &network, &data).unwrap_err().to_string();
        assert!(found.starts_with(&line), "{found}, not {line}");
    }
    let measured = half.prune_model(&Methods::standard(), &network, &data).unwrap_err().to_string();
    assert!(
        !measured.contains("layer:") && !measured.contains("budget:"),
        "such data are refused where they are measured: {measured}"
    );
}
