use crate::close::assert_close;
use crate::common::*;
use lacuna::Error;
use lacuna::criteria::{Evidence, Magnitude, Need, Needs, Ria, Wanda};
use lacuna::io::Dtype;
use lacuna::mask::{Pattern, Scope};
use lacuna::prune::{
    ActivationMemory, CalibrationInputs, Correction, LanguagePruning, LevelSettings, Levels, SequenceGradients, Sequential,
    language_layers, outliers,
};
use lacuna::solve::{Alps, DsNoT, ExactObs, Pruner, Reconstruct, Reconstructed, Scored, SparseGpt};
use ndarray::Array2;

const NM: Pattern = Pattern::Nm { n: 2, m: 4 };

/// Every layer of `out` is what its pruner makes of the dense weight and of what the layer sees in the model that `inputs` names.
fn each_layer_was_pruned_on(
    inputs: &lacuna::lm::LanguageModel,
    dense: &std::path::Path,
    out: &std::path::Path,
    ids: &[u32],
    only: &str,
) {
    let (dense, pruned) = (model(dense), model(out));
    let seen = seen(inputs, ids);
    let mut checked = 0;
    for layer in dense.linears().into_iter().filter(|l| l.name().contains(only)) {
        let w = layer.dense_weight();
        let evidence = Evidence { measured: &seen[layer.name()], ..Evidence::weight_only(layer.name(), &w) };
        let budget = Pattern::Unstructured.budget(w.nrows(), w.ncols(), 0.5).unwrap();
        let expected = SparseGpt::default().prune(&evidence, Pattern::Unstructured, Scope::Layer, budget).unwrap();
        assert_close(&weight(&pruned, layer.name()), &expected.weight, 1e-4f32.next_down(), layer.name());
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn in_turn_every_layer_is_measured_on_what_it_sees_in_the_pruned_model() {
    let m = Model::new(Dtype::F32);
    let (out, ids, pruner) = (m.out("out"), tokens(10), SparseGpt::default());
    let records = prune(&m.dir, &out, &ids, &settings(&m.dir, &pruner, Pattern::Unstructured)).unwrap();
    each_layer_was_pruned_on(&model(&out), &m.dir, &out, &ids, "");
    assert_eq!(records.len(), 21);
    for r in &records {
        assert_eq!((r.kept * 2, r.tokens), (r.shape.0 * r.shape.1, 120), "{}", r.layer);
        assert!(r.error.unwrap() > 0.0 && r.error.unwrap() < 0.5, "{}: {:?}", r.layer, r.error);
    }
}

#[test]
fn with_dense_inputs_every_layer_is_measured_on_what_it_sees_in_the_dense_model() {
    let m = Model::new(Dtype::F32);
    let (out, ids, pruner) = (m.out("out"), tokens(10), SparseGpt::default());
    let mut settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    (settings.inputs, settings.sequential) = (CalibrationInputs::Dense, Sequential::Block);
    prune(&m.dir, &out, &ids, &settings).unwrap();
    each_layer_was_pruned_on(&model(&m.dir), &m.dir, &out, &ids, "");
}

#[test]
fn by_blocks_the_first_layers_see_pruned_blocks_and_the_last_ones_their_own_block_dense() {
    let m = Model::new(Dtype::F32);
    let (out, ids, pruner) = (m.out("out"), tokens(10), SparseGpt::default());
    let mut settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    settings.sequential = Sequential::Block;
    prune(&m.dir, &out, &ids, &settings).unwrap();
    let pruned = model(&out);
    each_layer_was_pruned_on(&pruned, &m.dir, &out, &ids, "q_proj");
    // Blocks 0 and 1 pruned, block 2 dense.
    let mut between = model(&m.dir);
    for layer in pruned.linears().into_iter().filter(|l| !l.name().contains("layers.2.")) {
        between.linear_mut(layer.name()).unwrap().set_weight(layer.dense_weight().into_owned()).unwrap();
    }
    each_layer_was_pruned_on(&between, &m.dir, &out, &ids, "layers.2.");
}

#[test]
fn every_method_meets_its_pattern_and_leaves_the_rest_as_it_was() {
    let m = Model::new(Dtype::BF16);
    let ids = tokens(10);
    let (magnitude, ria) = (Magnitude::default(), Ria::default());
    let (magnitude, wanda, ria) = (Scored(&magnitude), Scored(&Wanda), Scored(&ria));
    let (sparse, alps, obc, dsnot) = (SparseGpt::default(), Alps::default(), ExactObs::default(), DsNoT::new(&wanda));
    let solved = Reconstructed::new(&wanda, Reconstruct::default());
    let all: [&dyn Pruner; 8] = [&magnitude, &wanda, &ria, &sparse, &alps, &obc, &dsnot, &solved];
    for (i, pruner) in all.into_iter().enumerate() {
        for (j, pattern) in [Pattern::Unstructured, NM].into_iter().enumerate() {
            for turn in [Sequential::Block, Sequential::Layer] {
                let out = m.out(&format!("out{i}{j}{turn:?}"));
                let mut settings = settings(&m.dir, pruner, pattern);
                settings.sequential = turn;
                prune(&m.dir, &out, &ids, &settings).unwrap();
                let ((before, _), (after, _)) = (open(&m.dir), open(&out));
                let masks = after.masks().unwrap();
                for name in before.names() {
                    let Some(mask) = masks.read(name).unwrap() else {
                        assert_eq!(before.read(name).unwrap(), after.read(name).unwrap(), "{name}");
                        continue;
                    };
                    pattern.check(&mask).unwrap();
                    let w = after.matrix(name, mask.dim()).unwrap();
                    assert_eq!((mask.kept() * 2, mask.applied(&w) == w), (mask.len(), true), "{} {name}", pruner.name());
                }
                assert_eq!(masks.names().count(), 21);
            }
        }
    }
}

#[test]
fn corrected_layers_bring_the_stream_nearer_to_the_dense_models() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(60), SparseGpt::default());
    let stream = |dir: &std::path::Path| model(dir).hidden_states(&ids, LENGTH, &mut ()).unwrap();
    let dense = stream(&m.dir);
    let distance = |a: &Array2<f32>| (a - &dense).mapv(|d| d * d).sum();
    let run = |name: &str, correction| {
        let mut settings = settings(&m.dir, &pruner, Pattern::Unstructured);
        settings.correction = correction;
        prune(&m.dir, &m.out(name), &ids, &settings).unwrap();
        distance(&stream(&m.out(name)))
    };
    let plain = run("plain", None);
    let inputs = run("inputs", Some(Correction { inputs: 1.0, hidden_states: 0.0, damping: 0.01 }));
    let both = run("both", Some(Correction { inputs: 1.0, hidden_states: 1.0, damping: 0.01 }));
    assert!(inputs < plain && both < inputs, "plain {plain}, inputs {inputs}, both {both}");
}

#[test]
fn neither_the_disk_nor_the_number_of_threads_changes_a_bit() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(400), SparseGpt::default());
    let run = |name: &str, bytes: usize, threads: usize| {
        let mut settings = settings(&m.dir, &pruner, Pattern::Unstructured);
        settings.memory = memory(bytes);
        settings.correction = Some(Correction { inputs: 1.0, hidden_states: 0.5, damping: 0.01 });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| prune(&m.dir, &m.out(name), &ids, &settings)).unwrap();
        files(&m.out(name))
    };
    let first = run("a", 1 << 30, 2);
    assert!(first == run("b", 0, 2), "on the disk");
    assert!(first == run("c", 1 << 30, 1), "one thread");
}

#[test]
fn masks_of_an_earlier_run_are_kept() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(10), SparseGpt::default());
    prune(&m.dir, &m.out("half"), &ids, &settings(&m.dir, &pruner, Pattern::Unstructured)).unwrap();
    let mut settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    settings.budgets.values_mut().for_each(|b| *b = lacuna::mask::Budget::new(b.of() / 4, b.of()).unwrap());
    prune(&m.out("half"), &m.out("quarter"), &ids, &settings).unwrap();
    let ((half, _), (quarter, _)) = (open(&m.out("half")), open(&m.out("quarter")));
    for name in quarter.masks().unwrap().names() {
        let (old, new) =
            (half.masks().unwrap().read(name).unwrap().unwrap(), quarter.masks().unwrap().read(name).unwrap().unwrap());
        assert!(new.is_subset_of(&old) && new.kept() * 4 == new.len(), "{name}");
    }
}

#[test]
fn what_memory_does_not_take_goes_to_the_folder_that_was_said_and_no_other() {
    let m = Model::new(Dtype::F32);
    let ids = tokens(3);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let nowhere = m.out("nowhere");
    let there = ActivationMemory::new(0, &nowhere);
    let calibration = sequences(&ids);
    let names = |what: &str, error: Option<Error>| {
        let line = error.unwrap_or_else(|| panic!("{what} wrote elsewhere")).to_string();
        assert!(line.contains(nowhere.to_str().unwrap()), "{what}: {line}");
    };
    let pruner = SparseGpt::default();
    for turn in [Sequential::Layer, Sequential::Block] {
        let settings =
            LanguagePruning { sequential: turn, memory: there.clone(), ..settings(&m.dir, &pruner, Pattern::Unstructured) };
        names("a run", prune(&m.dir, &m.out("out"), &ids, &settings).err());
    }
    names("outliers", outliers(&folder, &config, &calibration, &layers, 5.0, &there, on).err());
    let plain = LevelSettings::new(&pruner, Pattern::Unstructured, Scope::Layer, None, there.clone());
    let levels = LevelSettings { sparsities: &[0.5], ..plain };
    names("levels", Levels::build(&folder, &config, &calibration, &layers, &levels, on).err());
    let needs = Needs::none().and(Need::Gradient);
    names("gradients", SequenceGradients::measure(&folder, &config, &calibration, &layers, needs, &there, on).err());
}
