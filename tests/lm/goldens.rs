//! What the reference library computed for tiny models of every family.

use crate::common::{ALL, Golden, Model, worst};
use lacuna::data::Sequences;
use lacuna::io::Checkpoint;
use lacuna::lm::{EmbeddingHead, load_block, next_tokens};
use lacuna::nn::{Mode, Observer};
use ndarray::{Array2, ArrayRef2, Axis};

#[test]
fn logits_of_every_family_are_those_of_the_reference_library() {
    for golden in ALL.map(Golden::read) {
        let off = worst(&golden.model().logits(&golden).into_dyn(), &golden.matrix("logits").into_dyn(), 1e-4);
        assert!(off < 0.5, "{}: {off} of the tolerance", golden.name);
    }
}

#[test]
fn tokens_one_by_one_through_the_cache_give_the_same_logits() {
    for golden in ALL.map(Golden::read) {
        let (model, right) = (golden.model(), golden.stepwise());
        for whole in [1, 2, 7] {
            let rows: Vec<usize> = (whole - 1..right.nrows()).collect();
            let off = worst(&model.stepped(&golden, whole).into_dyn(), &right.select(Axis(0), &rows).into_dyn(), 1e-4);
            assert!(off < 0.5, "{} from {whole} tokens on: {off} of the tolerance", golden.name);
        }
    }
}

#[test]
fn a_cache_that_is_cut_across_a_change_of_frequencies_goes_on_as_a_new_one() {
    let golden = Golden::read("longrope");
    let Model::Decoder(model) = golden.model() else { panic!("a decoder") };
    let right = golden.stepwise();
    let mut cache = model.cache();
    for (kept, end) in [(0, 12), (8, 9), (5, 20), (19, 22), (2, 4)] {
        cache.truncate(kept);
        let found = model.step(&golden.ids[kept..end], &mut cache).unwrap();
        assert!(worst(&found.into_dyn(), &right.row(end - 1).to_owned().into_dyn(), 1e-4) < 0.5, "{kept} of {end}");
        assert_eq!(cache.len(), end);
    }
    cache.truncate(3);
    assert!(model.step(&[1, 2, 3, 4, 5, 6, 999], &mut cache).is_err());
    assert_eq!(cache.len(), 3, "a refused step changes nothing");
    let found = model.step(&golden.ids[3..4], &mut cache).unwrap();
    assert!(worst(&found.into_dyn(), &right.row(3).to_owned().into_dyn(), 1e-4) < 0.5);
}

#[test]
fn losses_and_the_gradients_of_all_parameters_are_those_of_the_reference_library() {
    for golden in ALL.map(Golden::read) {
        let model = golden.model();
        let right = f64::from(golden.expected.get("nll").unwrap().iter().copied().next().unwrap());
        let (loss, gradients) = model.gradients(&golden);
        assert!((loss - right).abs() < 2e-6 * right, "{}: {loss}, {right}", golden.name);
        assert!((model.loss(&golden) - loss).abs() < 1e-6, "{}: two ways to the loss", golden.name);
        let turned: Vec<String> = model.linears().into_iter().filter(|l| l.is_transposed()).map(|l| l.tensor()).collect();
        for tensor in golden.weights.names() {
            let right = golden.expected.get(&format!("grad.{tensor}")).unwrap();
            let found = gradients.get(tensor).unwrap_or_else(|| panic!("{}: no gradient of {tensor}", golden.name));
            let found = if turned.iter().any(|t| t == tensor) { found.t().to_owned() } else { found.clone() };
            // A bias of all keys moves no probability where positions turn nothing: what is found is rounding alone.
            if tensor.ends_with("k_proj.bias") && golden.name.starts_with("opt") {
                assert!(found.iter().chain(right).all(|g| g.abs() < 1e-6), "{}: gradient of {tensor}", golden.name);
                continue;
            }
            let largest = right.iter().fold(1e-7f32, |a, r| a.max(r.abs()));
            let off = worst(&(found / largest), &(right / largest), 1e-4);
            assert!(off < 1.0, "{}: gradient of {tensor}: {off} of the tolerance", golden.name);
        }
        assert_eq!(gradients.len(), golden.weights.len(), "{}", golden.name);
    }
}

/// All inputs of layers, in order.
#[derive(Default, PartialEq)]
struct Inputs(Vec<(String, Array2<f32>)>);

impl Observer for Inputs {
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>) {
        self.0.push((layers.join(" "), input.to_owned()));
    }
}

#[test]
fn gradients_have_the_same_bits_whether_activations_were_kept_or_made_again() {
    for golden in ALL.map(Golden::read) {
        let Model::Decoder(mut model) = golden.model() else { continue };
        let mut gradients = |bytes: usize| {
            model.set_activation_memory(bytes);
            let (mut all, mut inputs) = (Vec::new(), Inputs::default());
            let batch = Sequences::new(golden.ids.clone(), golden.ids.len()).unwrap();
            lacuna::nn::Model::forward(&model, &batch, Mode::Train, &mut inputs).unwrap();
            let loss = model.backward(&golden.ids, golden.ids.len(), &mut |name, g| all.push((name.to_string(), g))).unwrap();
            (loss, all, inputs.0)
        };
        let again = gradients(0);
        // Enough for one block of some, and for all.
        for bytes in [60_000, 1 << 30] {
            assert!(gradients(bytes) == again, "{}: {bytes} bytes", golden.name);
        }
    }
}

#[test]
fn gradients_that_are_wanted_have_the_bits_that_they_have_among_all() {
    use lacuna::lm::NextToken;
    use lacuna::nn::{Gradients, Model as _};
    for golden in ALL.map(Golden::read) {
        let Model::Decoder(model) = golden.model() else { continue };
        let batch = Sequences::new(golden.ids.clone(), golden.ids.len()).unwrap();
        let text = NextToken::of(next_tokens(&golden.ids, golden.ids.len()), golden.config().vocab()).unwrap();
        let rows: Vec<usize> = (0..golden.ids.len()).collect();
        let some = |wanted: &dyn Fn(&str) -> bool| {
            let tape = lacuna::nn::Model::forward(&model, &batch, Mode::Train, &mut ()).unwrap();
            Gradients::of(|sink| model.backward_wanted(tape, &text, &rows, wanted, sink)).unwrap()
        };
        let (loss, all) = some(&|_| true);
        // Weights of every other kind of layer; norms and biases; nothing.
        let odd = |name: &str| name.bytes().map(u32::from).sum::<u32>() % 2 == 1;
        let small = |name: &str| name.ends_with("bias") || name.contains("norm");
        for wanted in [&odd as &dyn Fn(&str) -> bool, &small, &|_| false] {
            let (same, found) = some(wanted);
            assert_eq!(same, loss, "{}", golden.name);
            let right: Vec<_> = all.iter().filter(|(name, _)| wanted(name)).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), right, "{}", golden.name);
        }
    }
}

#[test]
fn texts_that_are_written_side_by_side_are_those_that_are_written_apart() {
    use lacuna::lm::TextGeneration;
    use std::ops::ControlFlow::Continue;
    for golden in ALL.map(Golden::read) {
        let Model::Decoder(model) = golden.model() else { continue };
        if golden.config().is_encoder() || golden.config().experts().is_some() {
            continue;
        }
        // Past the length at which some have other rotary frequencies.
        let tokens = golden.ids.len().min(golden.config().max_positions().unwrap_or(usize::MAX) - 1);
        let how = TextGeneration::new(5, tokens).drop(0.0);
        let write = |how: TextGeneration| how.run(&model, (1, &[3]), &mut |_, _| Continue(())).unwrap();
        let all = write(how);
        for (i, text) in all.iter().enumerate() {
            let mut alone = how.seed(lacuna::rng::Seed(i as u64));
            alone.texts = 1;
            assert_eq!(write(alone), std::slice::from_ref(text), "{}: text {i}", golden.name);
            // Its perplexity is that of the whole text at once, unless the text grew into other frequencies on the way.
            if !text.ids.is_empty() && golden.name != "longrope" {
                let nll = model.nll(&[&[1], &text.ids[..]].concat()).unwrap();
                let mean = nll.iter().sum::<f64>() / nll.len() as f64;
                assert!((mean - text.nll).abs() < 1e-4, "{}: text {i}: {mean} {}", golden.name, text.nll);
            }
        }
        assert_eq!(write(how.batch(2)), all, "{}", golden.name);
    }
}

#[test]
fn a_model_read_block_by_block_gives_the_same_bits() {
    for golden in ALL.map(Golden::read) {
        let Model::Decoder(model) = golden.model() else { continue };
        let config = golden.config();
        let ends = EmbeddingHead::load(&golden.weights, &config).unwrap();
        let mut h = ends.embed(&golden.ids, golden.ids.len(), 0).unwrap();
        let at = model.positions(1, golden.ids.len());
        for i in 0..config.layers() {
            load_block(&golden.weights, &config, i).unwrap().forward(&mut h, &at, &mut ());
        }
        assert_eq!(ends.logits(&h), model.forward(&golden.ids).unwrap(), "{}", golden.name);
        let targets = next_tokens(&golden.ids, golden.ids.len());
        assert_eq!(ends.nll(&h, &targets).unwrap(), model.nll(&golden.ids).unwrap(), "{}", golden.name);
    }
}

#[test]
fn sequences_beside_one_another_are_as_each_alone() {
    for golden in ALL.map(Golden::read) {
        let Model::Decoder(model) = golden.model() else { continue };
        let (n, mut turned, mut moved) = (golden.ids.len(), golden.ids.clone(), golden.ids.clone());
        turned.reverse();
        moved.rotate_left(1);
        let both = [golden.ids.clone(), turned.clone()].concat();
        let stream = |ids: &[u32]| model.hidden_states(ids, n, &mut ()).unwrap();
        let together = stream(&both);
        let part = |all: &Array2<f32>, i: usize| all.slice(ndarray::s![i * n..(i + 1) * n, ..]).to_owned();
        // Whatever is beside a sequence, its bits are the same.
        let others = [stream(&[&golden.ids[..], &moved].concat()), stream(&[&moved[..], &turned].concat())];
        for (i, other) in others.iter().enumerate() {
            if golden.config().experts().is_some() {
                // What is beside a sequence decides how many tokens an expert multiplies at once, and with it the order of sums.
                let off = worst(&part(&together, i).into_dyn(), &part(other, i).into_dyn(), 1e-5);
                assert!(off < 1.0, "{}: sequence {i} beside another: {off} of the tolerance", golden.name);
                continue;
            }
            assert_eq!(part(&together, i), part(other, i), "{}: sequence {i} beside another", golden.name);
        }
        // And they are the reference's, which saw the sequence alone, first or second.
        let ends = EmbeddingHead::load(&golden.weights, &golden.config()).unwrap();
        for (i, both) in [&together, &stream(&[&turned[..], &golden.ids].concat())].into_iter().enumerate() {
            let off = worst(&ends.logits(&part(both, i)).into_dyn(), &golden.matrix("logits").into_dyn(), 1e-4);
            assert!(off < 0.5, "{}: {off} of the tolerance as sequence {i}", golden.name);
        }
        let mean = [&golden.ids, &turned].map(|ids| model.nll(ids).unwrap().iter().sum::<f64>()).iter().sum::<f64>();
        let loss = model.backward(&both, n, &mut |_, _| {}).unwrap();
        assert!((loss - mean / (2 * n - 2) as f64).abs() < 1e-6, "{}", golden.name);
    }
}

#[test]
fn a_model_that_is_written_has_every_tensor_as_it_was_read() {
    for golden in ALL.map(Golden::read) {
        let mut written = Checkpoint::new();
        golden.model().write(&mut written);
        assert_eq!(written.len(), golden.weights.len(), "{}", golden.name);
        for (tensor, values) in golden.weights.weights() {
            assert_eq!(written.get(tensor).unwrap(), values, "{}: {tensor}", golden.name);
        }
        assert_eq!(golden.config().to_json(), golden.json, "{}", golden.name);
    }
}

#[test]
fn files_of_the_bare_model_have_no_prefix_and_may_hold_tables_and_copies() {
    for (name, prefix) in [("gpt2", "transformer."), ("llama", "model.")] {
        let golden = Golden::read(name);
        let mut bare = Checkpoint::new();
        for (tensor, values) in golden.weights.weights() {
            bare.insert(tensor.strip_prefix(prefix).unwrap_or(tensor), values.clone(), lacuna::io::Dtype::F32).unwrap();
        }
        let table = ndarray::Array1::<f32>::zeros(3);
        bare.insert("h.0.attn.bias", table.clone(), lacuna::io::Dtype::F32).unwrap();
        bare.insert("layers.0.self_attn.rotary_emb.inv_freq", table.clone(), lacuna::io::Dtype::F32).unwrap();
        bare.insert("lm_head.weight", table, lacuna::io::Dtype::F32).unwrap();
        let model = Model::load(&bare, golden.config()).unwrap();
        assert_eq!(model.logits(&golden), golden.model().logits(&golden), "{name}");
    }
}
