use crate::close::assert_close;
use crate::common::*;
use lacuna::allocate::Evolution;
use lacuna::criteria::{Evidence, Need, Needs, Wanda};
use lacuna::io::Dtype;
use lacuna::lm::LanguageModel;
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::prune::{Cost, LevelSettings, Levels, language_layers};
use lacuna::rng::Seed;
use lacuna::solve::{DsNoT, Pruned, Pruner, Scored, SparseGpt, squared_error};
use lacuna::sparse::{Format, Precision};
use ndarray::{Array2, Axis};
use std::ops::ControlFlow;

const SPARSITIES: [f64; 3] = [0.25, 0.5, 0.75];

/// Calls `f` with a database of all layers.
fn with_levels(cost: Cost, f: impl FnOnce(&Model, &Levels<'_>, &[u32])) {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let (ids, pruner) = (tokens(20), SparseGpt::default());
    let plain = LevelSettings::new(&pruner, Pattern::Unstructured, Scope::Layer, None, memory(1 << 20));
    let settings = LevelSettings { sparsities: &SPARSITIES, cost, ..plain };
    let mut seen = Vec::new();
    let see = |done, of| {
        seen.push((done, of));
        ControlFlow::Continue(())
    };
    let levels = Levels::build(&folder, &config, &sequences(&ids), &layers, &settings, see).unwrap();
    assert_eq!(seen, [(1, 3), (2, 3), (3, 3)]);
    f(&m, &levels, &ids);
}

/// The mean divergence of the predictions of `b` from those of `a`, by the formula.
fn divergence(a: &LanguageModel, b: &LanguageModel, ids: &[u32]) -> f64 {
    let log_softmax = |logits: Array2<f32>| {
        let z = logits.mapv(f64::from);
        let sum = z.mapv(f64::exp).sum_axis(Axis(1)).mapv(f64::ln).insert_axis(Axis(1));
        z - sum
    };
    let of = |ids: &[u32]| {
        let (p, q) = (log_softmax(a.forward(ids).unwrap()), log_softmax(b.forward(ids).unwrap()));
        (p.mapv(f64::exp) * (&p - &q)).sum()
    };
    ids.chunks(LENGTH).map(of).sum::<f64>() / ids.len() as f64
}

/// The model with each layer at a level.
fn at(m: &Model, levels: &Levels<'_>, choice: &[usize]) -> LanguageModel {
    let mut model = model(&m.dir);
    for (l, &level) in choice.iter().enumerate() {
        model.linear_mut(&levels.layers()[l].name).unwrap().set_weight(levels.weight(l, level).unwrap()).unwrap();
    }
    model
}

#[test]
fn levels_are_what_the_pruner_gives_on_the_inputs_of_the_dense_model() {
    with_levels(Cost::Weights, |m, levels, ids| {
        let dense = model(&m.dir);
        let measured = seen(&dense, ids);
        for (l, layer) in levels.layers().iter().enumerate() {
            let (w, table) = (weight(&dense, &layer.name), &levels.table()[l]);
            assert_eq!((table.len(), table[0].error, table[0].cost as usize), (4, 0.0, w.len()));
            assert_eq!(levels.weight(l, 0).unwrap(), w);
            let gram = measured[&layer.name].gram.as_ref().unwrap();
            for (level, &sparsity) in SPARSITIES.iter().enumerate() {
                let row = &table[level + 1];
                let evidence = Evidence { measured: &measured[&layer.name], ..Evidence::weight_only(&layer.name, &w) };
                let pruned = SparseGpt::default().prune(&evidence, Pattern::Unstructured, Scope::Layer, row.budget).unwrap();
                assert_eq!((row.sparsity, row.cost as usize), (sparsity, pruned.mask.kept()));
                let found = levels.weight(l, level + 1).unwrap();
                assert_close(&found, &pruned.weight, 1e-4f32.next_down(), &layer.name);
                let error = squared_error(&w, &found, gram) / squared_error(&w, &Array2::zeros(w.dim()), gram);
                assert!((row.error - error).abs() < 1e-6 * error.max(1e-3), "{}: {} and {error}", layer.name, row.error);
            }
        }
    });
}

#[test]
fn a_scan_gives_the_divergence_of_the_model_with_one_layer_pruned() {
    with_levels(Cost::Weights, |m, levels, ids| {
        let (dense, judged) = (model(&m.dir), &ids[..3 * LENGTH]);
        let losses = levels.sensitivities(&sequences(judged), on).unwrap();
        for (l, losses) in losses.iter().enumerate() {
            assert_eq!(losses[0], 0.0);
            for (level, loss) in losses.iter().enumerate().skip(1) {
                let mut choice = vec![0; levels.layers().len()];
                choice[l] = level;
                let by_hand = divergence(&dense, &at(m, levels, &choice), judged);
                assert!((loss - by_hand).abs() < 1e-6 + 1e-4 * by_hand, "layer {l}, level {level}: {loss} and {by_hand}");
            }
        }
        let budget = levels.dense_cost() / 2;
        let choice = levels.by_losses(&losses, budget).unwrap();
        assert!(levels.cost(&choice) <= budget);
        let sum = |choice: &[usize]| choice.iter().zip(&losses).map(|(&i, v)| v[i]).sum::<f64>();
        assert!(sum(&choice) <= sum(&vec![2; choice.len()]), "no worse than the same level everywhere");
        let text = levels.by_losses(&losses[1..], budget).unwrap_err().to_string();
        assert!(text.contains("losses of levels"), "{text}");
    });
}

#[test]
fn evolution_never_loses_more_than_its_start_and_says_what_it_loses() {
    with_levels(Cost::Weights, |m, levels, ids| {
        let (judged, budget) = (&ids[..3 * LENGTH], levels.dense_cost() / 2);
        let search = Evolution { generations: 6, offspring: 8, seed: Seed(1) };
        let run = || levels.evolved(&sequences(judged), budget, search, on).unwrap();
        let (choice, loss, start) = run();
        assert!(loss < start && levels.cost(&choice) <= budget, "{loss} after {start}");
        let by_hand = divergence(&model(&m.dir), &at(m, levels, &choice), judged);
        assert!((loss - by_hand).abs() < 1e-5 + 1e-4 * by_hand, "{loss} and {by_hand}");
        let uniform = divergence(&model(&m.dir), &at(m, levels, &vec![2; choice.len()]), judged);
        assert!(start <= uniform + 1e-5, "the start is no worse than equal sparsities: {start} and {uniform}");
        let by_error = divergence(&model(&m.dir), &at(m, levels, &levels.by_error(budget).unwrap()), judged);
        assert!(start <= by_error + 1e-5, "nor than the least errors: {start} and {by_error}");
        assert_eq!(run(), (choice.clone(), loss, start), "the same seed, the same bits");
        let budgets = levels.budgets(&choice);
        assert_eq!(budgets.values().map(|b| b.keep() as u64).sum::<u64>(), levels.cost(&choice));
        assert_eq!(budgets.len(), 21);
    });
}

#[test]
fn bytes_are_those_of_a_bitmask_or_of_the_dense_weight() {
    with_levels(Cost::Bytes, |_, levels, _| {
        for (l, table) in levels.table().iter().enumerate() {
            for (level, row) in table.iter().enumerate() {
                let w = levels.weight(l, level).unwrap();
                let mask = Mask::from_fn(w.nrows(), w.ncols(), |r, c| w[[r, c]] != 0.0);
                let packed = Format::Bitmask(128).build(&w, &mask, Precision::F32).unwrap().bytes();
                assert_eq!(row.cost as usize, packed.min(4 * w.len()));
            }
            assert!(table[3].cost < table[0].cost, "{table:?}");
        }
        let choice = levels.by_error(levels.dense_cost() * 9 / 10).unwrap();
        assert!(levels.cost(&choice) <= levels.dense_cost() * 9 / 10);
        let text = levels.by_error(10).unwrap_err().to_string();
        assert!(text.contains("10 is less than the"), "{text}");
    });
}

#[test]
fn levels_that_cannot_be_are_refused() {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let (ids, pruner) = (tokens(20), SparseGpt::default());
    let run = |pattern: Pattern, sparsities: &[f64]| {
        let settings = LevelSettings { sparsities, ..LevelSettings::new(&pruner, pattern, Scope::Layer, None, memory(1 << 20)) };
        let built = Levels::build(&folder, &config, &sequences(&ids), &layers, &settings, on);
        built.map(|_| ()).unwrap_err().to_string()
    };
    for sparsities in [&[][..], &[0.0], &[0.5, 1.0], &[f64::NAN]] {
        let text = run(Pattern::Unstructured, sparsities);
        assert!(text.starts_with("levels") && text.contains("not sparsities between 0 and 1"), "{text}");
    }
    assert!(run(Pattern::Nm { n: 2, m: 4 }, &[0.5]).contains("2:4"));
}

/// A pruner that holds what it is given to the needs that its inputs were measured by.
#[derive(Debug)]
struct Seen<P>(P);

impl<P: Pruner> Pruner for Seen<P> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> lacuna::Result<Pruned> {
        assert!(self.0.needs().contains(Need::InputSquares) && layer.measured.gram.is_some(), "levels measure a Gram matrix");
        assert!(layer.measured.input_squares.is_none(), "{}: its diagonal serves for the squares", layer.layer);
        self.0.prune(layer, pattern, scope, budget)
    }
}

/// The diagonal of a Gram matrix is summed in another order than squares are: who reads the one or the other has other bits.
#[test]
fn squares_of_inputs_are_the_diagonal_wherever_a_gram_matrix_is_measured() {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let ids = tokens(20);
    for pruner in [&Seen(Scored(Wanda)) as &dyn Pruner, &Seen(DsNoT::new(Scored(Wanda)))] {
        let settings = LevelSettings::new(pruner, Pattern::Unstructured, Scope::Row, None, memory(1 << 20));
        let settings = LevelSettings { sparsities: &SPARSITIES, ..settings };
        Levels::build(&folder, &config, &sequences(&ids), &layers, &settings, on).unwrap();
        let corrected = lacuna::prune::LanguagePruning {
            correction: Some(lacuna::prune::Correction { inputs: 1.0, hidden_states: 0.0, damping: 0.01 }),
            ..crate::common::settings(&m.dir, pruner, Pattern::Unstructured)
        };
        prune(&m.dir, &m.out(pruner.name()), &ids, &corrected).unwrap();
    }
}
