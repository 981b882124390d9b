//! A pruner of one's own, used by jobs on a network and on a language model.
//!
//! `cargo run --example own_pruner`

use lacuna::calibrate::Calibration;
use lacuna::criteria::{Evidence, Need, Needs};
use lacuna::data::digits;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout};
use lacuna::job::{Methods, PruneJob, PruneMethod, PruneReport};
use lacuna::mask::{Budget, Pattern, Scope, select};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Loss};
use lacuna::rng::Seed;
use lacuna::solve::{Pruned, Pruner, squared_error};
use ndarray::{Array1, Axis};
use std::ops::ControlFlow;
use std::path::Path;

/// Wanda's scores |w| ‖x‖, and what stays of each row is scaled so that the row's error on the inputs is least: α = ŵ H wᵀ / ŵ H ŵᵀ.
#[derive(Debug)]
struct ScaledWanda;

impl Pruner for ScaledWanda {
    fn name(&self) -> &str {
        "scaled-wanda"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gram)
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> lacuna::Result<Pruned> {
        let gram = layer.gram(self.name())?;
        let norms = layer.input_squares(self.name())?.mapv(|s| s.sqrt() as f32);
        let mask = select(&(layer.weight.mapv(f32::abs) * &norms), pattern, scope, budget)?;
        let mask = layer.mask.map_or_else(|| mask.clone(), |old| mask.and(old));
        let mut weight = mask.applied(&layer.weight);
        for (mut kept, row) in weight.axis_iter_mut(Axis(0)).zip(layer.weight.rows()) {
            let (k, w): (Array1<f64>, Array1<f64>) = (kept.mapv(f64::from), row.mapv(f64::from));
            let whole = k.dot(gram).dot(&k);
            if whole > 0.0 {
                kept *= (k.dot(gram).dot(&w) / whole) as f32;
            }
        }
        let loss = Some(squared_error(&weight, &layer.weight, gram));
        Ok(Pruned { mask, weight, loss })
    }
}

fn main() -> lacuna::Result<()> {
    let mut methods = Methods::standard();
    methods.register(PruneMethod::pruner("scaled-wanda", "Wanda, rows scaled", |_| Ok(Box::new(ScaledWanda))).by_row());
    on_a_network(&methods)?;
    on_a_language_model(&methods)
}

/// The digits through a network: the outputs of its first layer are nearer to the dense ones than Wanda leaves them.
fn on_a_network(methods: &Methods) -> lacuna::Result<()> {
    let network = mlp(&[64, 32, 10], Activation::Relu, Init::He, Seed(0))?;
    let all = digits();
    let (x, target) = (all.x() / 16.0, all.one_hot(1.0, 0.0));
    let data = Calibration::new(&x, &target, Loss::CrossEntropy);
    let first = |network: &lacuna::nn::Network| network.params()[0].1.value().clone();
    let mut errors = Vec::new();
    for method in ["wanda", "scaled-wanda"] {
        let pruned = PruneJob::new(method).sparsity(0.6).prune_model(methods, &network, &data)?.model;
        let apart = x.dot(&(first(&pruned) - first(&network)).t());
        errors.push(apart.mapv(|d| f64::from(d) * f64::from(d)).sum());
    }
    println!("network: error of the first layer {:.1} by wanda, {:.1} by scaled-wanda", errors[0], errors[1]);
    assert!(errors[1] < errors[0], "a scale per row that is chosen by least squares cannot be worse than 1");
    Ok(())
}

/// A model of random weights: in every layer of its first block, whose inputs are those of the dense model, the error is less.
fn on_a_language_model(methods: &Methods) -> lacuna::Result<()> {
    let folder = tempfile::tempdir().map_err(|e| lacuna::Error::io("a folder for temporary files", e))?;
    let (model, ids) = (folder.path().join("model"), folder.path().join("ids.safetensors"));
    write_model(&model)?;
    write_ids(&ids)?;
    let mut errors = Vec::new();
    for method in ["wanda", "scaled-wanda"] {
        // Least squares of no step measure Wanda's error too.
        let job = PruneJob::new(method).sparsity(0.5).reconstruct(0).sequential(lacuna::prune::Sequential::Block);
        let job = job.calibration(&ids).samples(8).context(16).model(&model).out(folder.path().join(method));
        let PruneReport::Model(report) = job.run(methods, &mut |_| ControlFlow::Continue(()))? else {
            return Err(lacuna::Error::invalid_option("model", "is a folder"));
        };
        assert_eq!(2 * report.kept, report.weights);
        errors.push(report.layers.iter().filter(|l| l.block == 0).map(|l| (l.layer.clone(), l.error)).collect::<Vec<_>>());
        Folder::open(folder.path().join(method))?;
    }
    for ((layer, wanda), (_, scaled)) in errors[0].iter().zip(&errors[1]) {
        let (wanda, scaled) = (wanda.unwrap_or(f64::NAN), scaled.unwrap_or(f64::NAN));
        println!("{layer}: lost {wanda:.4} of the output by wanda, {scaled:.4} by scaled-wanda");
        assert!(scaled <= wanda, "{layer}");
    }
    Ok(())
}

/// A Llama of two blocks.
fn write_model(out: &Path) -> lacuna::Result<()> {
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![64, 32]), ("model.norm.weight".to_string(), vec![32])];
    for i in 0..2 {
        for (name, shape) in [
            ("input_layernorm", vec![32]),
            ("self_attn.q_proj", vec![32, 32]),
            ("self_attn.k_proj", vec![32, 32]),
            ("self_attn.v_proj", vec![32, 32]),
            ("self_attn.o_proj", vec![32, 32]),
            ("post_attention_layernorm", vec![32]),
            ("mlp.gate_proj", vec![48, 32]),
            ("mlp.up_proj", vec![48, 32]),
            ("mlp.down_proj", vec![32, 48]),
        ] {
            tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    let mut writer =
        FolderWriter::create(out, Layout::new(tensors.iter().map(|(n, s)| (n.clone(), Dtype::F32, s.clone())), 1 << 30)?)?;
    for (name, shape) in &tensors {
        match shape[..] {
            [rows, cols] => writer.write(name, &Seed(1).stream(name).normal_array(rows, cols, 0.3))?,
            _ => writer.write(name, &Array1::<f32>::ones(shape[0]))?,
        }
    }
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "max_position_embeddings": 64, "hidden_act": "silu",
    });
    if let Some(config) = config.as_object() {
        writer.config(config)?;
    }
    writer.finish()
}

/// Token numbers by chance, as the safetensors file that a job reads.
fn write_ids(path: &Path) -> lacuna::Result<()> {
    let mut stream = Seed(2).stream("ids");
    let bytes: Vec<u8> = (0..8 * 16).flat_map(|_| (stream.below(64) as u32).to_le_bytes()).collect();
    let header = format!(r#"{{"input_ids":{{"dtype":"U32","shape":[8,16],"data_offsets":[0,{}]}}}}"#, bytes.len());
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat();
    lacuna::io::atomic::write_bytes(path, &file)
}
