//! The linear layers of a model: their inputs, their storages, what they are coupled with.

use crate::common::{ALL, Golden, Model, worst};
use lacuna::io::Checkpoint;
use lacuna::mask::{Mask, Pattern, Scope, select};
use lacuna::nn::Observer;
use lacuna::sparse::{Bitmask, Compress, Csr, LinearOp, TileCsr};
use ndarray::{Array2, ArrayRef2};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Inputs(Vec<(Vec<String>, Array2<f32>)>);

impl Observer for Inputs {
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>) {
        self.0.push((layers.iter().map(|l| l.to_string()).collect(), input.to_owned()));
    }
}

#[test]
fn an_observer_sees_the_input_of_every_linear_layer_once_with_all_that_share_it() {
    for golden in ALL.map(Golden::read) {
        let model = golden.model();
        let mut seen = Inputs::default();
        model.observer(&golden, &mut seen);
        let linears: BTreeMap<&str, _> = model.linears().into_iter().map(|l| (l.name(), l)).collect();
        let names: Vec<&String> = seen.0.iter().flat_map(|(names, _)| names).collect();
        // An expert sees the tokens that meet it, and one that none meets sees nothing.
        let expert = |name: &str| name.contains(".experts.");
        let (experts, others): (Vec<&&str>, Vec<&&str>) = linears.keys().partition(|name| expert(name));
        let seen_experts = names.iter().filter(|name| expert(name)).count();
        assert_eq!(names.len() - seen_experts, others.len(), "{}: {names:?}", golden.name);
        assert!(seen_experts <= experts.len() && (seen_experts > 0) != experts.is_empty(), "{}: {names:?}", golden.name);
        let writes = !golden.labels.is_empty();
        let tokens = |name: &str| if writes && name.contains("decoder") { golden.labels.len() } else { golden.ids.len() };
        for (names, input) in &seen.0 {
            for name in names {
                let linear = linears[name.as_str()];
                assert_eq!(linear.group(), names[0], "{}: the group of {name}", golden.name);
                let memory = name.contains("EncDecAttention.k") || name.contains("EncDecAttention.v");
                let tokens = if memory { golden.ids.len() } else { tokens(name) };
                let tokens = if expert(name) { input.nrows().min(tokens) } else { tokens };
                assert_eq!(input.dim(), (tokens, linear.shape().1), "{}: the input of {name}", golden.name);
            }
        }
    }
}

#[test]
fn layers_are_named_as_their_tensors_and_fused_ones_name_their_parts() {
    for golden in ALL.map(Golden::read) {
        let model = golden.model();
        for linear in model.linears() {
            let shape = golden.weights.get(&linear.tensor()).unwrap().shape().to_vec();
            let (out, inputs) = linear.shape();
            let held = if linear.is_transposed() { vec![inputs, out] } else { vec![out, inputs] };
            assert_eq!(shape, held, "{}: {}", golden.name, linear.name());
            let rows: usize = linear.parts().iter().map(|(_, rows)| rows.len()).sum();
            assert!(rows == 0 || rows == out, "{}: {:?}", linear.name(), linear.parts());
        }
        let fused = model.linears().iter().filter(|l| !l.parts().is_empty()).count();
        assert_eq!(
            fused,
            match golden.name {
                "phi3" | "longrope" | "phi4mini" => 4,
                "gpt2" => 2,
                _ => 0,
            },
            "{}",
            golden.name
        );
    }
}

fn half(weight: &Array2<f32>) -> Mask {
    let pattern = Pattern::Unstructured;
    let budget = pattern.budget(weight.nrows(), weight.ncols(), 0.5).unwrap();
    select(&weight.mapv(f32::abs), pattern, Scope::Layer, budget).unwrap()
}

#[test]
fn pruned_layers_in_sparse_storages_compute_what_masked_dense_ones_do() {
    for golden in ALL.map(Golden::read) {
        let (mut dense, mut sparse) = (golden.model(), golden.model());
        let names: Vec<String> = dense.linears().into_iter().map(|l| l.name().to_string()).collect();
        for (i, name) in names.iter().enumerate() {
            let weight = dense.linear_mut(name).weight().unwrap().clone();
            let mask = half(&weight);
            let op: Box<dyn LinearOp> = match i % 3 {
                0 => Box::new(Csr::compress(&weight, &mask).unwrap()),
                1 => Box::new(Bitmask::<f32>::compress(&weight, &mask).unwrap()),
                _ => Box::new(TileCsr::<f32>::compress(&weight, &mask).unwrap()),
            };
            sparse.linear_mut(name).set_op(op).unwrap();
            dense.linear_mut(name).set_weight(mask.applied(&weight)).unwrap();
        }
        let right = dense.logits(&golden);
        let off = worst(&sparse.logits(&golden).into_dyn(), &right.into_dyn(), 1e-5);
        assert!(off < 2.0, "{}: {off} of the tolerance", golden.name);
        let off = worst(&sparse.stepped(&golden, 1).into_dyn(), &dense.stepped(&golden, 1).into_dyn(), 1e-5);
        assert!(off < 2.0, "{}, through the cache: {off} of the tolerance", golden.name);
        let ((loss, gradients), (right, right_gradients)) = (sparse.gradients(&golden), dense.gradients(&golden));
        assert!((loss - right).abs() < 1e-5, "{}: {loss} {right}", golden.name);
        for (tensor, gradient) in gradients.iter() {
            let right = right_gradients.get(tensor).unwrap();
            assert!(worst(gradient, right, 1e-4) < 1.0, "{}: gradient of {tensor}", golden.name);
        }
        let (mut a, mut b) = (Checkpoint::new(), Checkpoint::new());
        sparse.write(&mut a);
        dense.write(&mut b);
        assert!(a.weights().all(|(name, values)| b.get(name).unwrap() == values), "{}: as written", golden.name);
        let refused = sparse.parameters().visit_mut(&mut |_, _, _| {}).unwrap_err().to_string();
        assert!(refused.contains("is stored as csr; only dense weights train"), "{refused}");
    }
}

#[test]
fn a_weight_of_another_shape_or_an_unknown_layer_is_refused() {
    let Model::Decoder(mut model) = Golden::read("llama").model() else { panic!("llama is a decoder") };
    let name = "model.layers.1.mlp.down_proj";
    let e = model.linear_mut(name).unwrap().set_weight(Array2::zeros((20, 18))).unwrap_err().to_string();
    assert_eq!(e, "model.layers.1.mlp.down_proj.weight: expected shape [18, 20], found [20, 18]");
    let e = model.linear_mut("model.layers.1.mlp.dwon_proj").unwrap_err().to_string();
    assert!(e.ends_with("did you mean 'model.layers.1.mlp.down_proj'?"), "{e}");
    assert!(model.embedding_head_mut().head_mut().is_none(), "a tied head is the embedding");
}

#[test]
fn what_is_coupled_is_declared_by_groups() {
    let groups = |name| {
        let golden = Golden::read(name);
        let model = golden.model();
        let all = model.linears().into_iter().map(|l| l.group().to_string()).collect::<BTreeSet<_>>();
        (all.len(), model.linears().len())
    };
    assert_eq!(groups("llama"), (8, 14)); // q k v | o | gate up | down, twice
    assert_eq!(groups("phi3"), (8, 8));
    assert_eq!(groups("phi2"), (8, 12));
    assert_eq!(groups("t5"), (4 + 2 * 7, 6 + 2 * 10)); // the decoder reads the memory as a group of its own
}
