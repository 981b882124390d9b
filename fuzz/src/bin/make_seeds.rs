//! Writes the first inputs of every target, `corpus/TARGET/NAME`, from what the library itself writes: small files of every kind that it
//! reads. Each is read before it is written, so a seed that a target would refuse at its door ends the program.

#[path = "../../../tests/checkpoints/build.rs"]
#[allow(dead_code)]
mod build;

use build::Gguf;
use half::{bf16, f16};
use lacuna::io::folder::Packing;
use lacuna::io::gguf::{Gguf as File, Quant, import};
use lacuna::io::{Checkpoint, Dtype, Folder, FolderWriter, Layout, repack};
use lacuna::lm::Config;
use lacuna::mask::Mask;
use lacuna::models::{Builder, Init, mlp, to_checkpoint};
use lacuna::nn::{Activation, Pooling};
use lacuna::paper::Claims;
use lacuna::rng::Seed;
use lacuna::sparse::{Bitmask, Bsr, Compress, Csr, Expand, Format, Nm, Scaling, Sell, Slots, TileCsr, TilePairs};
use lacuna::text::Tokenizer;
use lacuna_fuzz::feed::{CsrParts, Part};
use lacuna_fuzz::frame::{joined, unframed};
use lacuna_fuzz::model::learned;
use lacuna_fuzz::room;
use lacuna_fuzz::run::{Run, llama};
use ndarray::{Array2, ArrayD, array};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The library is built for libFuzzer, which is not in this program: what it would be told of each edge and comparison goes nowhere.
mod unheard {
    macro_rules! unheard {
        ($($name:ident)*) => {
            $(#[unsafe(no_mangle)]
            extern "C" fn $name() {})*
        };
    }
    unheard! {
        __sanitizer_cov_8bit_counters_init __sanitizer_cov_pcs_init __sanitizer_cov_trace_pc_indir __sanitizer_cov_trace_switch
        __sanitizer_cov_trace_cmp1 __sanitizer_cov_trace_cmp2 __sanitizer_cov_trace_cmp4 __sanitizer_cov_trace_cmp8
        __sanitizer_cov_trace_const_cmp1 __sanitizer_cov_trace_const_cmp2 __sanitizer_cov_trace_const_cmp4
        __sanitizer_cov_trace_const_cmp8
    }
}

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where seeds go, and their bytes so far.
struct Seeds {
    root: PathBuf,
    bytes: usize,
}

impl Seeds {
    fn put(&mut self, target: &str, name: &str, bytes: &[u8]) -> Result {
        let folder = self.root.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
        self.bytes += bytes.len();
        Ok(())
    }
}

fn main() -> Result {
    let root = std::env::args().nth(1).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"), PathBuf::from);
    let mut seeds = Seeds { root, bytes: 0 };
    checkpoints(&mut seeds)?;
    storages(&mut seeds)?;
    folders(&mut seeds)?;
    gguf(&mut seeds)?;
    configs(&mut seeds)?;
    tokenizers(&mut seeds)?;
    tables(&mut seeds)?;
    networks(&mut seeds)?;
    runs(&mut seeds)?;
    room::remove(room::room());
    println!("{} bytes of seeds in {}", seeds.bytes, seeds.root.display());
    if seeds.bytes > 100_000 { Err("seeds are to be small".into()) } else { Ok(()) }
}

/// A weight of sixteenths, and the mask that keeps about half of it.
fn weight(rows: usize, cols: usize) -> (Array2<f32>, Mask) {
    let w = Array2::from_shape_fn((rows, cols), |(r, c)| ((r * 5 + c * 3) % 64) as f32 / 16.0 - 2.0);
    (w, Mask::from_fn(rows, cols, |r, c| (r * r + 3 * c) % 5 < 3))
}

fn checkpoints(seeds: &mut Seeds) -> Result {
    let mut model = Checkpoint::new();
    let (w, mask) = weight(3, 11);
    model.insert("fc.weight", w.clone(), Dtype::F32)?;
    model.insert_mask("fc.weight", &mask)?;
    model.insert("fc.bias", array![0.5, -1.0, f32::NAN], Dtype::BF16)?;
    model.insert("conv", ArrayD::zeros(vec![2, 1, 2, 2]), Dtype::F16)?;
    model.insert("empty", Array2::<f32>::zeros((2, 0)), Dtype::F32)?;
    model.insert_metadata("format", "pt");
    let masked = model.to_bytes()?;
    let mut ids = Checkpoint::new();
    ids.insert_sparse_bitmask("a.weight", &w, &mask, Dtype::F16)?;
    let two = Mask::from_fn(3, 8, |_, c| c % 4 < 2);
    let mut pairs = Checkpoint::new();
    pairs.insert_sparse_24_bitmask("b.weight", &w.slice(ndarray::s![.., ..8]), &two, Dtype::BF16)?;
    for (name, file) in [("masked", masked), ("bitmask", ids.to_bytes()?), ("pairs", pairs.to_bytes()?)] {
        let raw = [b"0", &file[..]].concat();
        for target in ["safetensors", "listing"] {
            seeds.put(target, &format!("{name}_framed"), &unframed(&file))?;
            seeds.put(target, &format!("{name}_raw"), &raw)?;
        }
        if name != "masked" {
            seeds.put("published", name, &unframed(&file))?;
        }
    }
    Ok(())
}

/// What a storage is made of, as bytes.
fn parts<P: Part>(format: u8, values: u8, parts: &P) -> Vec<u8> {
    let mut bytes = vec![format, values];
    parts.write(&mut bytes);
    bytes
}

/// A storage in a file.
fn stored(storage: &impl lacuna::sparse::Stored) -> Result<Vec<u8>> {
    let mut file = Checkpoint::new();
    file.insert_storage("w", storage)?;
    Ok(unframed(&file.to_bytes()?))
}

fn storages(seeds: &mut Seeds) -> Result {
    let (w, mask) = weight(5, 30);
    let csr = Csr::compress(&w, &mask)?;
    seeds.put("storages", "csr", &stored(&csr)?)?;
    let view = csr.view();
    let (offsets, indices, values) = (view.offsets().to_vec(), view.indices().to_vec(), view.values().to_vec());
    seeds.put("parts", "csr", &parts(0, 0, &CsrParts { rows: 5, cols: 30, offsets, indices, values }))?;
    let padded = Sell::<f32>::with_lanes(&w, &mask, 16, Slots::Padded)?;
    seeds.put("parts", "sell_padded", &parts(4, 0, &padded.into_parts()))?;
    of_values::<f32>(seeds, 0)?;
    of_values::<bf16>(seeds, 1)?;
    of_values::<f16>(seeds, 2)?;
    of_values::<i8>(seeds, 3)
}

/// The storages whose values are numbers of one kind.
fn of_values<T: Expand + Part>(seeds: &mut Seeds, values: u8) -> Result {
    macro_rules! both {
        ($number:literal, $name:literal, $op:expr, $parts:expr) => {{
            let (op, name) = ($op, format!("{}_{}", $name, T::NAME));
            seeds.put("storages", &name, &stored(&op)?)?;
            let mut made = $parts(op);
            // A number that a byte stands for.
            made.scales.iter_mut().for_each(|s| *s = 0.5);
            seeds.put("parts", &name, &parts($number, values, &made))?;
        }};
    }
    let (w, mask) = weight(5, 70);
    let groups = Mask::from_fn(5, 72, |r, c| (c + r) % 4 < 2);
    let blocks = Mask::from_fn(5, 70, |r, c| (r / 2 + c / 3) % 2 == 0);
    both!(1, "tile-csr", TileCsr::<T>::with_tile(&w, &mask, 32, Scaling::Row)?, |op: TileCsr<T>| op.parts().clone());
    both!(2, "tile-pairs", TilePairs::<T>::with_tile(&w, &mask, 64, Scaling::Row)?, |op: TilePairs<T>| op.parts().clone());
    both!(3, "bitmask", Bitmask::<T>::with_tile(&w, &mask, 1, Scaling::Row)?, |op: Bitmask<T>| op.into_parts());
    both!(4, "sell", Sell::<T>::with_lanes(&w, &mask, 8, Slots::Packed)?, |op: Sell<T>| op.into_parts());
    both!(5, "nm", Nm::<T>::with_pattern(&weight(5, 72).0, &groups, 2, 4)?, |op: Nm<T>| op.into_parts());
    both!(6, "bsr", Bsr::<T>::with_groups(&w, &blocks, (2, 3), 6)?, |op: Bsr<T>| op.parts().clone());
    Ok(())
}

/// The parts of an input for a folder that is there.
fn folder_parts(dir: &Path) -> Result<Vec<u8>> {
    let letters = [
        (b'c', "config.json"),
        (b'i', "model.safetensors.index.json"),
        (b'g', "generation_config.json"),
        (b'W', "model.safetensors"),
        (b'A', "model-00001-of-00002.safetensors"),
        (b'B', "model-00002-of-00002.safetensors"),
        (b'M', "masks.safetensors"),
    ];
    let mut parts = Vec::new();
    for (letter, name) in letters {
        if let Ok(bytes) = fs::read(dir.join(name)) {
            parts.push((letter, if letter.is_ascii_uppercase() { unframed(&bytes) } else { bytes }));
        }
    }
    Ok(joined(&parts.iter().map(|(letter, bytes)| (*letter, bytes.as_slice())).collect::<Vec<_>>()))
}

fn folders(seeds: &mut Seeds) -> Result {
    let (w, mask) = weight(3, 12);
    let two = Mask::from_fn(3, 12, |_, c| c % 4 < 2);
    for (name, most) in [("whole", 1 << 20), ("shards", 200)] {
        let tensors = [("a.weight", Dtype::F32, vec![3, 12]), ("p.weight", Dtype::F32, vec![3, 12]), ("b", Dtype::F16, vec![2])];
        let mut layout = Layout::new(tensors.map(|(name, dtype, shape)| (name.to_string(), dtype, shape)), most)?;
        layout.masks(["a.weight", "p.weight"])?;
        let dir = room::room().join(name);
        let mut writer = FolderWriter::create(&dir, layout)?;
        for (name, mask) in [("a.weight", &mask), ("p.weight", &two)] {
            writer.write(name, &mask.applied(&w))?;
            writer.write_mask(name, mask)?;
        }
        writer.write("b", &array![1.0, 2.0])?;
        writer.config(json!({"model_type": "llama", "hidden_size": 4}).as_object().ok_or("no object")?)?;
        writer.json("generation_config.json", &json!({"eos_token_id": [1, 2]}))?;
        writer.finish()?;
        seeds.put("folder", name, &folder_parts(&dir)?)?;
    }
    let whole = Folder::open(room::room().join("whole"))?;
    for (name, packing) in [("bitmask", Packing::SparseBitmask), ("csr", Packing::Storage(Format::Csr))] {
        let dir = room::room().join(name);
        repack(&whole, &dir, packing, |_, _| {})?.finish()?;
        seeds.put("folder", name, &folder_parts(&dir)?)?;
    }
    Ok(())
}

/// A GGUF file of a family with the tensors that it needs, of two blocks of four features.
fn tiny(arch: &str, inside: &[(&str, &[usize])], outside: &[(&str, &[usize])]) -> Gguf {
    let mut file = Gguf::new();
    file.text("general.architecture", arch);
    let keys = if arch == "gpt2" { 2 } else { 1 };
    let counts = [("block_count", 1), ("context_length", 8), ("embedding_length", 4), ("feed_forward_length", 6)];
    for (key, n) in
        counts.into_iter().chain([("attention.head_count", 2), ("attention.head_count_kv", keys), ("rope.dimension_count", 2)])
    {
        file.count(&format!("{arch}.{key}"), n);
    }
    file.float(&format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5)
        .float(&format!("{arch}.attention.layer_norm_epsilon"), 1e-5);
    let named = inside.iter().map(|(name, shape)| (format!("blk.0.{name}"), shape));
    for (i, (name, shape)) in outside.iter().map(|(name, shape)| (name.to_string(), shape)).chain(named).enumerate() {
        let n: usize = shape.iter().product();
        let values = (0..n).map(|k| ((k * 3 + i) % 16) as f32 / 16.0).collect();
        file.tensor(&name, &ArrayD::from_shape_vec(shape.to_vec(), values).expect("as many numbers as the shape has"));
    }
    file
}

/// The tokenizer of SentencePiece's kind.
fn pieces(file: &mut Gguf) {
    file.text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab"]);
    file.floats("tokenizer.ggml.scores", &[0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0])
        .ints("tokenizer.ggml.token_type", &[2, 3, 3, 1, 1, 1, 1, 1]);
    file.count("tokenizer.ggml.bos_token_id", 1)
        .count("tokenizer.ggml.eos_token_id", 2)
        .count("tokenizer.ggml.unknown_token_id", 0);
}

/// The tokenizer of GPT-2's kind.
fn bytes_of_text(file: &mut Gguf, pre: &str) {
    file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
    file.texts("tokenizer.ggml.tokens", ["<e>", "a", "b", "c", "ab", "abc", "Ġ", "Ġa"])
        .texts("tokenizer.ggml.merges", ["a b", "ab c", "Ġ a"]);
    file.ints("tokenizer.ggml.token_type", &[3, 1, 1, 1, 1, 1, 1, 1])
        .count("tokenizer.ggml.eos_token_id", 0)
        .flag("tokenizer.ggml.add_bos_token", false);
    file.text("tokenizer.chat_template", "{{ messages }}");
}

fn gguf(seeds: &mut Seeds) -> Result {
    let llama_inside: [(&str, &[usize]); 9] = [
        ("attn_norm.weight", &[4]),
        ("attn_q.weight", &[4, 4]),
        ("attn_k.weight", &[2, 4]),
        ("attn_v.weight", &[2, 4]),
        ("attn_output.weight", &[4, 4]),
        ("ffn_norm.weight", &[4]),
        ("ffn_gate.weight", &[6, 4]),
        ("ffn_up.weight", &[6, 4]),
        ("ffn_down.weight", &[4, 6]),
    ];
    let gpt2_inside: [(&str, &[usize]); 12] = [
        ("attn_norm.weight", &[4]),
        ("attn_norm.bias", &[4]),
        ("attn_qkv.weight", &[12, 4]),
        ("attn_qkv.bias", &[12]),
        ("attn_output.weight", &[4, 4]),
        ("attn_output.bias", &[4]),
        ("ffn_norm.weight", &[4]),
        ("ffn_norm.bias", &[4]),
        ("ffn_up.weight", &[6, 4]),
        ("ffn_up.bias", &[6]),
        ("ffn_down.weight", &[4, 6]),
        ("ffn_down.bias", &[4]),
    ];
    let mut llama =
        tiny("llama", &llama_inside, &[("token_embd.weight", &[8, 4]), ("output_norm.weight", &[4]), ("output.weight", &[8, 4])]);
    pieces(&mut llama);
    llama.text("llama.rope.scaling.type", "yarn").float("llama.rope.scaling.factor", 2.0);
    let mut gpt2 = tiny(
        "gpt2",
        &gpt2_inside,
        &[
            ("token_embd.weight", &[8, 4]),
            ("position_embd.weight", &[8, 4]),
            ("output_norm.weight", &[4]),
            ("output_norm.bias", &[4]),
        ],
    );
    bytes_of_text(&mut gpt2, "gpt-2");
    let experts: [(&str, &[usize]); 4] = [
        ("ffn_gate_inp.weight", &[2, 4]),
        ("ffn_gate_exps.weight", &[2, 6, 4]),
        ("ffn_up_exps.weight", &[2, 6, 4]),
        ("ffn_down_exps.weight", &[2, 4, 6]),
    ];
    let inside = [&llama_inside[..6], &experts].concat();
    let mut mixture = tiny("llama", &inside, &[("token_embd.weight", &[8, 4]), ("output_norm.weight", &[4])]);
    pieces(&mut mixture);
    mixture.count("llama.expert_count", 2).count("llama.expert_used_count", 1);
    for (name, file) in [("llama", &llama), ("gpt2", &gpt2), ("mixture", &mixture)] {
        let path = room::put(&format!("{name}.gguf"), &file.bytes());
        let out = room::room().join(format!("{name}_imported"));
        import(&File::open(&path)?, &out, None)?;
        seeds.put("tokenizer", name, &fs::read(out.join("tokenizer.json"))?)?;
        seeds.put("gguf_import", name, &file.bytes())?;
        seeds.put("gguf", name, &file.bytes())?;
    }
    // A tensor of every type, of one block.
    let mut types = Gguf::new();
    for number in 0..32 {
        if let Some(quant) = Quant::of(number) {
            let (numbers, bytes) = quant.block();
            types.raw(&quant.to_string(), &[numbers], number, (0..bytes).map(|i| i as u8).collect());
        }
    }
    types.count("general.alignment", 32).key("wide", 10, &7u64.to_le_bytes()).key("signed", 1, &[255]);
    seeds.put("gguf", "types", &types.bytes())
}

fn configs(seeds: &mut Seeds) -> Result {
    let mut all = vec![("llama", llama())];
    let with = |model_type: &str, more: Value| {
        let mut config = llama();
        config["model_type"] = model_type.into();
        config["num_hidden_layers"] = 1.into();
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        config
    };
    all.push(("llama3", with("llama", json!({"rope_theta": 5e5, "head_dim": 4, "attention_bias": true, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}))));
    all.push(("yarn", with("llama", json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32, "mscale": 0.7, "mscale_all_dim": 0.7, "truncate": false}}))));
    all.push(("widths", with("llama", json!({"layer_widths": [{"heads": 1, "kv_heads": 1, "intermediate": 3}], "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": [2, 3]}))));
    all.push(("mistral", with("mistral", json!({"sliding_window": 2, "head_dim": 2}))));
    all.push(("gemma2", with("gemma2", json!({"head_dim": 2, "query_pre_attn_scalar": 2, "sliding_window": 2, "layer_types": ["sliding_attention"], "final_logit_softcapping": 30.0, "attn_logit_softcapping": null}))));
    all.push(("phi", with("phi", json!({"partial_rotary_factor": 1.0, "tie_word_embeddings": false, "layer_norm_eps": 1e-5}))));
    all.push(("phi3", with("phi3", json!({"max_position_embeddings": 64, "original_max_position_embeddings": 4, "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}}))));
    all.push((
        "nemotron",
        with("nemotron", json!({"partial_rotary_factor": 1.0, "norm_eps": 1e-5, "hidden_act": "relu2", "mlp_bias": true})),
    ));
    all.push(("gpt2", json!({"model_type": "gpt2", "vocab_size": 8, "n_embd": 4, "n_head": 2, "n_layer": 1, "n_positions": 4, "n_inner": 6, "scale_attn_by_inverse_layer_idx": true, "activation_function": "gelu_new"})));
    all.push(("t5", json!({"model_type": "t5", "vocab_size": 8, "d_model": 4, "num_heads": 2, "d_kv": 2, "d_ff": 6, "num_layers": 1, "num_decoder_layers": 1, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "decoder_start_token_id": 0})));
    for (name, json) in all {
        let config = Config::parse(&json)?;
        learned(&config).ok_or_else(|| format!("{name}: no model of this config can be made"))?;
        let bytes = serde_json::to_vec(&json)?;
        seeds.put("config", name, &bytes)?;
        seeds.put("model", name, &bytes)?;
    }
    Ok(())
}

fn tokenizers(seeds: &mut Seeds) -> Result {
    let words = json!({"[UNK]": 0, "the": 1, "weights": 2, "##s": 3, "12": 4, ".": 5, "<s>": 6, "na": 7});
    let around = |model: Value, normalizer: Value, cut: Value, post: Value, decoder: Value| {
        json!({"version": "1.0", "added_tokens": [{"id": 6, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": true,
            "normalized": false, "special": true}], "normalizer": normalizer, "pre_tokenizer": cut, "post_processor": post,
            "decoder": decoder, "model": model})
    };
    let template = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [6], "tokens": ["<s>"]}}});
    let all = [
        (
            "wordpiece",
            around(
                json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": words}),
                json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
                json!({"type": "BertPreTokenizer"}),
                template,
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            ),
        ),
        (
            "unigram",
            around(
                json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [["<unk>", 0.0], ["▁", -1.0], ["▁the", -2.0], ["w", -3.5], ["e", -4.0]]}),
                json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip", "strip_left": true, "strip_right": false}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}),
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
                json!({"type": "RobertaProcessing", "sep": ["<s>", 6], "cls": ["<s>", 6], "trim_offsets": true, "add_prefix_space": false}),
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
            ),
        ),
        (
            "wordlevel",
            around(
                json!({"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}),
                json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Prepend", "prepend": "_"}]}),
                json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": false}, {"type": "FixedLength", "length": 5}]}),
                json!({"type": "BertProcessing", "sep": ["<s>", 6], "cls": ["[UNK]", 0]}),
                json!({"type": "Sequence", "decoders": [{"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
            ),
        ),
    ];
    for (name, json) in all {
        let bytes = serde_json::to_vec(&json)?;
        Tokenizer::from_bytes(name, &bytes)?;
        seeds.put("tokenizer", name, &bytes)?;
    }
    Ok(())
}

fn tables(seeds: &mut Seeds) -> Result {
    let images = |n: u8| [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 2, 0, 0, 0, 3][..], &vec![7; usize::from(n) * 6]].concat();
    let labels = |n: u8| [&[0, 0, 8, 1, 0, 0, 0, n][..], &(0..n).collect::<Vec<_>>()].concat();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&images(3))?;
    for (name, bytes) in [("images", images(3)), ("labels", labels(4)), ("gzip", packed.finish()?)] {
        seeds.put("idx", name, &bytes)?;
    }
    seeds.put("mnist", "set", &joined(&[(b'a', &images(3)), (b'b', &labels(3)), (b'c', &images(2)), (b'd', &labels(2))]))?;
    seeds.put("table", "letter", b"x-box,y-box,class\n2,8,T\n5,12.5,I\n\n-4,1e3,D\n2,2,I\n")?;
    let monk = b" 1 1 1 1 1 3 1 data_5\n 0 1 2 1 1 1 2 data_6\n";
    seeds.put("monks", "one", &joined(&[(b'a', monk), (b'b', b"1 3 3 2 3 4 2 x\n")]))?;
    seeds.put("questions", "choices", b"{\"query\": \"A b\", \"choices\": [\"c\", \" d\", \"\xc3\xa9f\"], \"gold\": 1}\n\n{\"query\":\"x \",\"choices\":[\"y\"],\"gold\":0}\n")?;
    seeds.put(
        "questions",
        "words",
        b"{\"context\": \"The last\", \"continuation\": \"word\"}\n{\"context\":\"a\",\"continuation\":\" b\"}",
    )?;
    let mut claims = Claims::default();
    claims.setting("MONK 1", "MONK 1, drawn");
    claims.add("weights, left", "14", "every <= 14", 0)?.extend([(Seed(0), 12.), (Seed(1), 14.)]);
    claims.add("error \"x\"", "0.5", "mean in 0.1 .. 0.9", 3)?.push((Seed(0), 0.25));
    seeds.put("claims", "two", claims.to_csv()?.as_bytes())?;
    for text in [
        "2:4",
        "block16x1",
        "unstructured",
        "tile-csr:128",
        "sell:packed",
        "nm:2:4",
        "bsr:4x4",
        "sparse-24-bitmask",
        "bf16",
        "every in 0.5 .. 1.5",
        "mean < 1",
    ] {
        seeds.put("words", &text.replace([':', ' '], "_"), text.as_bytes())?;
    }
    Ok(())
}

fn networks(seeds: &mut Seeds) -> Result {
    let mut dense = mlp(&[3, 2, 2], Activation::Tanh, Init::Glorot, Seed(0))?;
    dense.param_mut("fc1.weight")?.set_mask(Mask::from_fn(2, 3, |r, c| r != c))?;
    let image = Builder::image((1, 5, 5), Init::Glorot, Seed(0));
    let conv = image.conv(2, 3, 1, 1).batch_norm().activation(Activation::Relu).pool(Pooling::Max, 2).linear(2).build()?;
    for (name, network) in [("mlp", dense), ("conv", conv)] {
        seeds.put("network", name, &unframed(&to_checkpoint(&network)?.to_bytes()?))?;
    }
    Ok(())
}

fn runs(seeds: &mut Seeds) -> Result {
    let run = Run::new();
    let file =
        |name: &str| run.done.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice()).ok_or("a run without its notes");
    let (settings, records, written) = (file(".settings.json")?, file(".records.json")?, file(".written.json")?);
    seeds.put("resume", "done", &joined(&[(b's', settings), (b'r', records), (b'w', written)]))?;
    seeds.put("resume", "begun", &joined(&[(b's', settings), (b'w', b"[]")]))?;
    let mut half: Vec<Value> = serde_json::from_slice(records)?;
    half.retain(|record| record["block"] == 0);
    seeds.put("resume", "half", &joined(&[(b's', settings), (b'r', &serde_json::to_vec(&half)?), (b'w', written)]))?;
    let weights = file("model.safetensors")?;
    seeds.put("resume", "header", &joined(&[(b's', settings), (b'd', &weights[..64])]))
}
