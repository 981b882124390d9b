//! GGUF files made by hand.

use lacuna::rng::Seed;
use ndarray::{Array2, ArrayD};
use serde_json::Value as Json;
use std::path::Path;

/// A file in the making.
#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub keys: Vec<(String, Vec<u8>)>,
    /// Name, dimensions with the fastest first, type, bytes.
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn text(t: &str) -> Vec<u8> {
    [&(t.len() as u64).to_le_bytes()[..], t.as_bytes()].concat()
}

impl Gguf {
    pub fn new() -> Self {
        Gguf { version: 3, keys: Vec::new(), tensors: Vec::new() }
    }

    /// A key with its value, which begins with its type.
    pub fn key(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut Self {
        self.keys.retain(|(k, _)| k != key);
        self.keys.push((key.to_string(), [&kind.to_le_bytes()[..], value].concat()));
        self
    }

    pub fn count(&mut self, key: &str, value: u32) -> &mut Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    pub fn float(&mut self, key: &str, value: f32) -> &mut Self {
        self.key(key, 6, &value.to_le_bytes())
    }

    pub fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key, 7, &[value.into()])
    }

    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key, 8, &text(value))
    }

    fn list(&mut self, key: &str, kind: u32, parts: Vec<Vec<u8>>) -> &mut Self {
        let front = [&kind.to_le_bytes()[..], &(parts.len() as u64).to_le_bytes()].concat();
        self.key(key, 9, &[front, parts.concat()].concat())
    }

    pub fn texts<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.list(key, 8, values.into_iter().map(text).collect())
    }

    pub fn floats(&mut self, key: &str, values: &[f32]) -> &mut Self {
        self.list(key, 6, values.iter().map(|v| v.to_le_bytes().to_vec()).collect())
    }

    pub fn ints(&mut self, key: &str, values: &[i32]) -> &mut Self {
        self.list(key, 5, values.iter().map(|v| v.to_le_bytes().to_vec()).collect())
    }

    /// A tensor of this shape (slowest first), type and bytes.
    pub fn raw(&mut self, name: &str, shape: &[usize], kind: u32, bytes: Vec<u8>) -> &mut Self {
        let dims = shape.iter().rev().map(|d| *d as u64).collect();
        self.tensors.push((name.to_string(), dims, kind, bytes));
        self
    }

    /// A tensor of F32.
    pub fn tensor(&mut self, name: &str, values: &ArrayD<f32>) -> &mut Self {
        self.raw(name, values.shape(), 0, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(text(key));
            out.extend(value);
        }
        let mut data = Vec::new();
        for (name, dims, kind, bytes) in &self.tensors {
            out.extend(text(name));
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        [out, data].concat()
    }

    pub fn write(&self, path: impl AsRef<Path>) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

/// Sizes of [`llama`].
pub const VOCAB: usize = 400;
pub const HIDDEN: usize = 32;
pub const WIDTH: usize = 48;
pub const LAYERS: usize = 2;
pub const HEADS: usize = 4;
pub const KV_HEADS: usize = 2;

/// Random numbers that depend on the name alone.
pub fn numbers(name: &str, shape: &[usize], sd: f32) -> ArrayD<f32> {
    let n = shape.iter().product();
    let values = Seed(3).stream(name).normal_array(1, n, sd).into_raw_vec_and_offset().0;
    ArrayD::from_shape_vec(shape, values).unwrap()
}

/// Rows of each head, two halves, as GGUF keeps them: pairs side by side.
pub fn paired(weight: &Array2<f32>, heads: usize) -> Array2<f32> {
    let (rows, cols) = weight.dim();
    let head = rows / heads;
    Array2::from_shape_fn((rows, cols), |(r, c)| {
        let (h, inside) = (r / head, r % head);
        weight[[h * head + inside / 2 + (inside % 2) * head / 2, c]]
    })
}

/// The Hugging Face names and numbers of a tiny Llama.
pub fn llama_weights() -> Vec<(String, String, ArrayD<f32>)> {
    let mut all = Vec::new();
    let mut add = |there: String, here: String, shape: &[usize], sd: f32| {
        let mut values = numbers(&here, shape, sd);
        if shape.len() == 1 {
            values += 1.0;
        }
        all.push((there, here, values));
    };
    let head = HIDDEN / HEADS;
    add("token_embd".into(), "model.embed_tokens".into(), &[VOCAB, HIDDEN], 0.5);
    for l in 0..LAYERS {
        let name = |there: &str, here: &str| (format!("blk.{l}.{there}"), format!("model.layers.{l}.{here}"));
        let parts: [(&str, &str, Vec<usize>, f32); 9] = [
            ("attn_norm", "input_layernorm", vec![HIDDEN], 0.1),
            ("attn_q", "self_attn.q_proj", vec![HIDDEN, HIDDEN], 0.2),
            ("attn_k", "self_attn.k_proj", vec![KV_HEADS * head, HIDDEN], 0.2),
            ("attn_v", "self_attn.v_proj", vec![KV_HEADS * head, HIDDEN], 0.2),
            ("attn_output", "self_attn.o_proj", vec![HIDDEN, HIDDEN], 0.2),
            ("ffn_norm", "post_attention_layernorm", vec![HIDDEN], 0.1),
            ("ffn_gate", "mlp.gate_proj", vec![WIDTH, HIDDEN], 0.2),
            ("ffn_up", "mlp.up_proj", vec![WIDTH, HIDDEN], 0.2),
            ("ffn_down", "mlp.down_proj", vec![HIDDEN, WIDTH], 0.2),
        ];
        for (there, here, shape, sd) in parts {
            let (there, here) = name(there, here);
            add(there, here, &shape, sd);
        }
    }
    add("output_norm".into(), "model.norm".into(), &[HIDDEN], 0.1);
    let weight = |(there, here, values)| (format!("{there}.weight"), format!("{here}.weight"), values);
    all.into_iter().map(weight).collect()
}

/// The tokenizer of `bytelevel.json` as keys.
pub fn byte_level(file: &mut Gguf) -> Json {
    let golden: Json = serde_json::from_str(include_str!("bytelevel.json")).unwrap();
    let list = |key: &str| golden[key].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect::<Vec<_>>();
    let tokens = list("tokens");
    let kinds: Vec<i32> = (0..tokens.len()).map(|i| if i < 3 { 3 } else { 1 }).collect();
    file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm").flag("tokenizer.ggml.add_bos_token", false);
    // Some files have scores where nothing asks for them.
    file.floats("tokenizer.ggml.scores", &vec![0.0; tokens.len()]);
    file.texts("tokenizer.ggml.tokens", tokens).texts("tokenizer.ggml.merges", list("merges"));
    file.ints("tokenizer.ggml.token_type", &kinds)
        .count("tokenizer.ggml.bos_token_id", 1)
        .count("tokenizer.ggml.eos_token_id", 2);
    golden
}

/// A tiny Llama in F32 with the tokenizer of `bytelevel.json`.
pub fn llama() -> Gguf {
    let mut file = Gguf::new();
    file.text("general.architecture", "llama").text("general.name", "tiny");
    file.count("llama.block_count", LAYERS as u32).count("llama.context_length", 256);
    file.count("llama.embedding_length", HIDDEN as u32).count("llama.feed_forward_length", WIDTH as u32);
    file.count("llama.attention.head_count", HEADS as u32).count("llama.attention.head_count_kv", KV_HEADS as u32);
    file.float("llama.attention.layer_norm_rms_epsilon", 1e-5).float("llama.rope.freq_base", 10000.0);
    file.count("llama.rope.dimension_count", (HIDDEN / HEADS) as u32);
    byte_level(&mut file);
    for (there, _, values) in llama_weights() {
        let heads = if there.contains("attn_q") {
            HEADS
        } else if there.contains("attn_k") {
            KV_HEADS
        } else {
            0
        };
        if heads > 0 {
            let turned = paired(&values.into_dimensionality().unwrap(), heads);
            file.tensor(&there, &turned.into_dyn());
        } else {
            file.tensor(&there, &values);
        }
    }
    file
}
