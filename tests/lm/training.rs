//! Steps of an optimiser along a model's gradients.

use crate::common::{ALL, Golden, Model};
use lacuna::io::{Checkpoint, Dtype, Weights};
use lacuna::mask::Mask;
use lacuna::nn::{Gradients, Method, Optimizer};

#[test]
fn a_few_steps_of_adamw_lower_the_loss_and_masks_are_held() {
    for golden in ALL.map(Golden::read) {
        let mut model = golden.model();
        let before = model.loss(&golden);
        let dropped = model.linears()[1].tensor();
        let (rows, cols) = model.linears()[1].shape();
        let mut mask = Mask::full(rows, cols);
        (0..cols).for_each(|c| mask.set(1, c, false));
        model.parameters().set_mask(&dropped, Some(mask)).unwrap();
        let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.01 });
        for _ in 0..12 {
            let (_, gradients) = model.gradients(&golden);
            optimizer.step(model.parameters(), &gradients, 0.01).unwrap();
        }
        let after = model.loss(&golden);
        assert!(after < before - 0.5, "{}: {before} to {after}", golden.name);
        let layer = model.linears()[1];
        assert!(layer.weight().unwrap().row(1).iter().all(|&w| w == 0.0), "{}: {dropped}", golden.name);
    }
}

/// The first step of AdamW is `w (1 - ηλ) - η g / (|g| + ε)`, whatever the size of the gradient.
#[test]
fn the_first_step_of_adamw_moves_every_weight_by_the_learning_rate() {
    let golden = Golden::read("gpt2");
    let (before, mut model) = (golden.model(), golden.model());
    let (_, gradients) = model.gradients(&golden);
    let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.1 });
    optimizer.step(model.parameters(), &gradients, 1e-3).unwrap();
    for (new, old) in model.linears().into_iter().zip(before.linears()) {
        let g = gradients.get(&new.tensor()).unwrap();
        for ((new, old), g) in new.weight().unwrap().iter().zip(old.weight().unwrap()).zip(g) {
            let right = old * (1.0 - 1e-4) - 1e-3 * g / (g.abs() + 1e-8);
            assert!((new - right).abs() < 1e-6, "{new} {right}");
        }
    }
}

#[test]
fn a_mask_of_another_shape_and_a_gradient_that_is_missing_are_refused() {
    let golden = Golden::read("llama");
    let mut model = golden.model();
    let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.0 });
    let tensor = model.linears()[0].tensor();
    let e = model.parameters().set_mask(&tensor, Some(Mask::full(2, 3))).unwrap_err().to_string();
    assert_eq!(e, "mask of model.layers.0.self_attn.q_proj.weight: expected shape [18, 18], found [2, 3]");
    let e = model.parameters().set_mask("model.norm.weight", Some(Mask::full(18, 1))).unwrap_err().to_string();
    assert_eq!(e, "mask: model.norm.weight is not the weight of a linear layer");
    let e = model.parameters().set_mask("model.norm.wieght", None).unwrap_err().to_string();
    assert!(e.ends_with("did you mean 'model.norm.weight'?"), "{e}");
    let e = optimizer.step(model.parameters(), &Gradients::default(), 0.1).unwrap_err().to_string();
    assert!(e.contains("model.embed_tokens.weight has no gradient"), "{e}");
}

/// Steps that are interrupted, with model and optimiser kept, give the bits of those that are not.
#[test]
fn an_optimiser_out_of_a_file_goes_on_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for (golden, method) in
        [("llama", Method::AdamW { weight_decay: 0.1 }), ("gpt2", Method::Sgd { momentum: 0.9, weight_decay: 0.1 })]
    {
        let golden = Golden::read(golden);
        let mut model = golden.model();
        let tensor = model.linears()[2].tensor();
        let (rows, cols) = model.linears()[2].shape();
        model.parameters().set_mask(&tensor, Some(Mask::from_fn(rows, cols, |r, c| (r + c) % 2 == 0))).unwrap();
        let mut optimizer = Optimizer::new(method);
        let mut bits = Vec::new();
        for step in 0..6 {
            if step == 3 {
                let path = folder.path().join("optimizer.safetensors");
                lacuna::train::save_optimizer(&optimizer, &path).unwrap();
                let read = lacuna::train::load_optimizer(&path).unwrap();
                assert_eq!(read, optimizer);
                optimizer = read;
            }
            let (_, gradients) = model.gradients(&golden);
            optimizer.step(model.parameters(), &gradients, 0.01).unwrap();
            let weight = model.linears()[2].weight().unwrap();
            bits.push(weight.iter().map(|w| w.to_bits()).collect::<Vec<_>>());
        }
        let (mut model, mut optimizer) = (golden.model(), Optimizer::new(method));
        model.parameters().set_mask(&tensor, Some(Mask::from_fn(rows, cols, |r, c| (r + c) % 2 == 0))).unwrap();
        for bits in bits {
            let (_, gradients) = model.gradients(&golden);
            optimizer.step(model.parameters(), &gradients, 0.01).unwrap();
            let weight = model.linears()[2].weight().unwrap();
            assert_eq!(weight.iter().map(|w| w.to_bits()).collect::<Vec<_>>(), bits, "{}", golden.name);
        }
    }
    let path = folder.path().join("weights.safetensors");
    lacuna::io::Checkpoint::new().write(&path).unwrap();
    let e = lacuna::train::load_optimizer(&path).unwrap_err().to_string();
    assert!(e.ends_with("has no optimizer.method: no optimiser"), "{e}");
}

#[test]
fn masks_are_written_with_the_weights_and_held_again_when_they_are_read() {
    for golden in ALL.map(Golden::read) {
        let mut model = golden.model();
        let layers: Vec<(String, (usize, usize))> = model.linears().iter().map(|l| (l.tensor(), l.shape())).collect();
        for (tensor, (rows, cols)) in layers.iter().step_by(2) {
            let mask = Mask::from_fn(*rows, *cols, |r, c| (r * 5 + c * 3) % 4 != 0);
            model.parameters().set_mask(tensor, Some(mask)).unwrap();
        }
        let mut file = Checkpoint::new();
        model.write(&mut file);
        let mut again = Model::load(&file, golden.config()).unwrap();
        for (i, (new, old)) in again.linears().into_iter().zip(model.linears()).enumerate() {
            assert_eq!((new.mask(), new.weight()), (old.mask(), old.weight()), "{}: {}", golden.name, old.name());
            assert_eq!(new.mask().is_some(), i % 2 == 0, "{}: {}", golden.name, old.name());
        }
        let (_, gradients) = again.gradients(&golden);
        Optimizer::new(Method::AdamW { weight_decay: 0.01 }).step(again.parameters(), &gradients, 0.01).unwrap();
        for layer in again.linears().into_iter().step_by(2) {
            let (mask, weight) = (layer.mask().unwrap(), layer.weight().unwrap());
            assert!(weight.indexed_iter().all(|((r, c), w)| mask.get(r, c) || *w == 0.0), "{}", golden.name);
        }
        // Masks of other weights are not laid over them in silence.
        let (tensor, shape) = (&layers[0].0, file.shape(&layers[0].0).unwrap());
        file.insert(tensor, ndarray::ArrayD::from_elem(shape, 0.5), Dtype::F32).unwrap();
        let line = Model::load(&file, golden.config()).err().unwrap().to_string();
        assert!(line.contains("weights that its mask drops are not 0"), "{line}");
    }
}

/// A model from scratch has the tensors of the reference's, in their shapes, and predicts next to nothing.
#[test]
fn a_model_from_scratch_is_one_of_its_family() {
    use lacuna::io::{Folder, Weights};
    use lacuna::lm::{LanguageModel, init};
    use lacuna::rng::Seed;
    let folder = tempfile::tempdir().unwrap();
    for golden in ALL.map(Golden::read) {
        let (out, config) = (folder.path().join(golden.name), golden.config());
        if config.is_encoder_decoder() {
            let e = init(&config, Seed(0), Dtype::F32, &out).unwrap_err().to_string();
            assert_eq!(e, "model_type: an encoder-decoder is not begun from scratch here");
            continue;
        }
        init(&config, Seed(0), Dtype::F32, &out).unwrap().finish().unwrap();
        let new = Folder::open(&out).unwrap();
        let listed = |w: &dyn Weights| -> std::collections::BTreeMap<String, Vec<usize>> {
            w.names().into_iter().map(|name| (name.clone(), w.shape(&name).unwrap())).collect()
        };
        let (found, right) = (listed(&new), listed(&golden.weights));
        // A file of the reference may hold a tied head over again.
        let extra: Vec<_> = right.keys().filter(|name| !found.contains_key(*name)).collect();
        assert!(extra.iter().all(|name| config.tied() && name.ends_with("lm_head.weight")), "{}: {extra:?}", golden.name);
        assert!(found.iter().all(|(name, shape)| right.get(name) == Some(shape)), "{}: {found:?}", golden.name);
        let vocab = config.vocab() as f64;
        let model = LanguageModel::load(&new, config).unwrap();
        let nll = model.nll(&golden.ids).unwrap();
        let mean = nll.iter().sum::<f64>() / nll.len() as f64;
        assert!((mean - vocab.ln()).abs() < 0.3, "{}: {mean} for {}", golden.name, vocab.ln());
    }
    let (config, out) = (Golden::read("llama").config(), |name: &str| folder.path().join(name));
    for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        init(&config, Seed(seed), Dtype::F32, out(name)).unwrap().finish().unwrap();
    }
    let [a, b, c] = ["a", "b", "c"].map(|name| std::fs::read(out(name).join("model.safetensors")).unwrap());
    assert!(a == b && a != c, "the seed decides");
}
