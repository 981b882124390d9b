//! A model of random weights in the shape of a real one, to see what something costs at its size.
//!
//! `cargo run --release --example random_model -- OUT [llama-3.1-8b | llama-3.2-1b | smollm2-135m | tiny] [BLOCKS]`
//!
//! Weights are normal with the deviation 0.02 in bf16, in shards of 5 GB. There is no tokenizer: give token numbers.

use lacuna::Result;
use lacuna::io::{Dtype, FolderWriter, Layout};
use lacuna::rng::Seed;
use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;

#[allow(dead_code)] // others call `write`
fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let out = args.next().unwrap_or_else(|| panic!("a folder to write is needed"));
    let shape = args.next().unwrap_or_else(|| "llama-3.1-8b".into());
    let blocks = args.next().map(|n| n.parse().unwrap_or_else(|e| panic!("{n} blocks: {e}")));
    write(&out, &shape, blocks)
}

/// Writes the model, with as many blocks as the real one has or as are asked for.
pub fn write(out: &str, shape: &str, blocks: Option<usize>) -> Result<()> {
    let (hidden, wide, real, heads, kv, tied, vocab) = match shape {
        "llama-3.1-8b" => (4096, 14336, 32, 32, 8, false, 128_256),
        "llama-3.2-1b" => (2048, 8192, 16, 32, 8, true, 128_256),
        "smollm2-135m" => (576, 1536, 30, 9, 3, true, 49_152),
        // No real one: small enough to be pruned hundreds of times.
        "tiny" => (64, 176, 6, 4, 2, true, 512),
        other => panic!("'{other}' is none of llama-3.1-8b, llama-3.2-1b, smollm2-135m, tiny"),
    };
    let (blocks, dim) = (blocks.unwrap_or(real), hidden / heads);
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![vocab, hidden])];
    for i in 0..blocks {
        let mut add = |name: &str, shape: Vec<usize>| tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
        add("input_layernorm", vec![hidden]);
        add("self_attn.q_proj", vec![hidden, hidden]);
        add("self_attn.k_proj", vec![kv * dim, hidden]);
        add("self_attn.v_proj", vec![kv * dim, hidden]);
        add("self_attn.o_proj", vec![hidden, hidden]);
        add("post_attention_layernorm", vec![hidden]);
        add("mlp.gate_proj", vec![wide, hidden]);
        add("mlp.up_proj", vec![wide, hidden]);
        add("mlp.down_proj", vec![hidden, wide]);
    }
    tensors.push(("model.norm.weight".to_string(), vec![hidden]));
    if !tied {
        tensors.push(("lm_head.weight".to_string(), vec![vocab, hidden]));
    }
    let layout = Layout::new(tensors.iter().map(|(n, s)| (n.clone(), Dtype::BF16, s.clone())), 5_000_000_000)?;
    let mut writer = FolderWriter::create(out, layout)?;
    for (name, shape) in &tensors {
        match shape[..] {
            [rows, cols] => {
                let mut weight = Array2::<f32>::zeros((rows, cols));
                // Runs of rows have streams of their own, so that the numbers do not depend on the threads.
                weight.axis_chunks_iter_mut(Axis(0), 64).into_par_iter().enumerate().for_each(|(i, mut rows)| {
                    let mut stream = Seed(0).stream(&format!("{name}/{i}"));
                    let values = stream.normal_array(rows.nrows(), cols, 0.02);
                    rows.assign(&values);
                });
                writer.write(name, &weight)?;
            }
            _ => writer.write(name, &Array1::<f32>::ones(shape[0]))?,
        }
    }
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": wide,
        "num_hidden_layers": blocks, "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": dim, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 8192, "hidden_act": "silu", "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    });
    if let Some(config) = config.as_object() {
        writer.config(config)?;
    }
    writer.finish()
}
