//! The architectures that are known, by their names in a file. Of a name with and without experts there are two.

use super::arch::Bias::{May, Must, No};
use super::arch::{Arch, Bias, Joint, Part};
use crate::{Error, Result};

const LLAMA_ENDS: &[Part] =
    &[("token_embd", "model.embed_tokens", No), ("output_norm", "model.norm", No), ("output", "lm_head", No)];

const ATTENTION: Bias = May(Joint::Attention);
const FEED: Bias = May(Joint::Feed);

const LLAMA_BLOCK: &[Part] = &[
    ("attn_norm", "input_layernorm", No),
    ("attn_q", "self_attn.q_proj", ATTENTION),
    ("attn_k", "self_attn.k_proj", ATTENTION),
    ("attn_v", "self_attn.v_proj", ATTENTION),
    ("attn_output", "self_attn.o_proj", ATTENTION),
    ("ffn_norm", "post_attention_layernorm", No),
    ("ffn_gate", "mlp.gate_proj", FEED),
    ("ffn_up", "mlp.up_proj", FEED),
    ("ffn_down", "mlp.down_proj", FEED),
];

const PLAIN: Arch = Arch {
    name: "llama",
    blocks: "model.layers.",
    outside: LLAMA_ENDS,
    inside: LLAMA_BLOCK,
    experts: false,
    less_one: false,
    turned: false,
    paired: false,
    grouped: false,
};

const ARCHES: [Arch; 19] = [
    Arch { name: "llama", paired: true, ..PLAIN },
    Arch {
        name: "gemma2",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", No),
            ("attn_k", "self_attn.k_proj", No),
            ("attn_v", "self_attn.v_proj", No),
            ("attn_output", "self_attn.o_proj", No),
            ("post_attention_norm", "post_attention_layernorm", No),
            ("ffn_norm", "pre_feedforward_layernorm", No),
            ("ffn_gate", "mlp.gate_proj", No),
            ("ffn_up", "mlp.up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
            ("post_ffw_norm", "post_feedforward_layernorm", No),
        ],
        less_one: true,
        ..PLAIN
    },
    Arch {
        name: "phi2",
        outside: &[
            ("token_embd", "model.embed_tokens", No),
            ("output_norm", "model.final_layernorm", Must),
            ("output", "lm_head", Must),
        ],
        inside: &[
            ("attn_norm", "input_layernorm", Must),
            ("attn_q", "self_attn.q_proj", Must),
            ("attn_k", "self_attn.k_proj", Must),
            ("attn_v", "self_attn.v_proj", Must),
            ("attn_output", "self_attn.dense", Must),
            ("ffn_up", "mlp.fc1", Must),
            ("ffn_down", "mlp.fc2", Must),
        ],
        ..PLAIN
    },
    Arch {
        name: "phi3",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_qkv", "self_attn.qkv_proj", No),
            ("attn_output", "self_attn.o_proj", No),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_up", "mlp.gate_up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
        ],
        ..PLAIN
    },
    Arch {
        name: "nemotron",
        outside: &[("token_embd", "model.embed_tokens", No), ("output_norm", "model.norm", Must), ("output", "lm_head", No)],
        inside: &[
            ("attn_norm", "input_layernorm", Must),
            ("attn_q", "self_attn.q_proj", ATTENTION),
            ("attn_k", "self_attn.k_proj", ATTENTION),
            ("attn_v", "self_attn.v_proj", ATTENTION),
            ("attn_output", "self_attn.o_proj", ATTENTION),
            ("ffn_norm", "post_attention_layernorm", Must),
            ("ffn_up", "mlp.up_proj", FEED),
            ("ffn_down", "mlp.down_proj", FEED),
        ],
        less_one: true,
        ..PLAIN
    },
    Arch {
        name: "qwen2",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", Must),
            ("attn_k", "self_attn.k_proj", Must),
            ("attn_v", "self_attn.v_proj", Must),
            ("attn_output", "self_attn.o_proj", No),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_gate", "mlp.gate_proj", No),
            ("ffn_up", "mlp.up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
        ],
        ..PLAIN
    },
    Arch {
        name: "qwen3",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", ATTENTION),
            ("attn_k", "self_attn.k_proj", ATTENTION),
            ("attn_v", "self_attn.v_proj", ATTENTION),
            ("attn_q_norm", "self_attn.q_norm", No),
            ("attn_k_norm", "self_attn.k_norm", No),
            ("attn_output", "self_attn.o_proj", ATTENTION),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_gate", "mlp.gate_proj", No),
            ("ffn_up", "mlp.up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
        ],
        ..PLAIN
    },
    Arch {
        name: "gemma",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", No),
            ("attn_k", "self_attn.k_proj", No),
            ("attn_v", "self_attn.v_proj", No),
            ("attn_output", "self_attn.o_proj", No),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_gate", "mlp.gate_proj", No),
            ("ffn_up", "mlp.up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
        ],
        less_one: true,
        ..PLAIN
    },
    Arch {
        name: "gemma3",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", No),
            ("attn_k", "self_attn.k_proj", No),
            ("attn_v", "self_attn.v_proj", No),
            ("attn_q_norm", "self_attn.q_norm", No),
            ("attn_k_norm", "self_attn.k_norm", No),
            ("attn_output", "self_attn.o_proj", No),
            ("post_attention_norm", "post_attention_layernorm", No),
            ("ffn_norm", "pre_feedforward_layernorm", No),
            ("ffn_gate", "mlp.gate_proj", No),
            ("ffn_up", "mlp.up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
            ("post_ffw_norm", "post_feedforward_layernorm", No),
        ],
        less_one: true,
        ..PLAIN
    },
    Arch { name: "smollm3", paired: true, ..PLAIN },
    Arch {
        name: "olmo2",
        inside: &[
            ("attn_q", "self_attn.q_proj", ATTENTION),
            ("attn_k", "self_attn.k_proj", ATTENTION),
            ("attn_v", "self_attn.v_proj", ATTENTION),
            ("attn_q_norm", "self_attn.q_norm", No),
            ("attn_k_norm", "self_attn.k_norm", No),
            ("attn_output", "self_attn.o_proj", ATTENTION),
            ("post_attention_norm", "post_attention_layernorm", No),
            ("ffn_gate", "mlp.gate_proj", No),
            ("ffn_up", "mlp.up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
            ("post_ffw_norm", "post_feedforward_layernorm", No),
        ],
        ..PLAIN
    },
    Arch {
        name: "gpt2",
        blocks: "transformer.h.",
        outside: &[
            ("token_embd", "transformer.wte", No),
            ("position_embd", "transformer.wpe", No),
            ("output_norm", "transformer.ln_f", Must),
            ("output", "lm_head", No),
        ],
        inside: &[
            ("attn_norm", "ln_1", Must),
            ("attn_qkv", "attn.c_attn", Must),
            ("attn_output", "attn.c_proj", Must),
            ("ffn_norm", "ln_2", Must),
            ("ffn_up", "mlp.c_fc", Must),
            ("ffn_down", "mlp.c_proj", Must),
        ],
        turned: true,
        ..PLAIN
    },
    Arch {
        name: "llama",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", No),
            ("attn_k", "self_attn.k_proj", No),
            ("attn_v", "self_attn.v_proj", No),
            ("attn_output", "self_attn.o_proj", No),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_gate_inp", "block_sparse_moe.gate", No),
            ("ffn_gate_exps", "block_sparse_moe.experts.*.w1", No),
            ("ffn_up_exps", "block_sparse_moe.experts.*.w3", No),
            ("ffn_down_exps", "block_sparse_moe.experts.*.w2", No),
        ],
        experts: true,
        paired: true,
        ..PLAIN
    },
    Arch {
        name: "qwen2moe",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", Must),
            ("attn_k", "self_attn.k_proj", Must),
            ("attn_v", "self_attn.v_proj", Must),
            ("attn_output", "self_attn.o_proj", No),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_gate_inp", "mlp.gate", No),
            ("ffn_gate_exps", "mlp.experts.*.gate_proj", No),
            ("ffn_up_exps", "mlp.experts.*.up_proj", No),
            ("ffn_down_exps", "mlp.experts.*.down_proj", No),
            ("ffn_gate_inp_shexp", "mlp.shared_expert_gate", No),
            ("ffn_gate_shexp", "mlp.shared_expert.gate_proj", No),
            ("ffn_up_shexp", "mlp.shared_expert.up_proj", No),
            ("ffn_down_shexp", "mlp.shared_expert.down_proj", No),
        ],
        experts: true,
        ..PLAIN
    },
    Arch {
        name: "qwen3moe",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", ATTENTION),
            ("attn_k", "self_attn.k_proj", ATTENTION),
            ("attn_v", "self_attn.v_proj", ATTENTION),
            ("attn_q_norm", "self_attn.q_norm", No),
            ("attn_k_norm", "self_attn.k_norm", No),
            ("attn_output", "self_attn.o_proj", ATTENTION),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_gate_inp", "mlp.gate", No),
            ("ffn_gate_exps", "mlp.experts.*.gate_proj", No),
            ("ffn_up_exps", "mlp.experts.*.up_proj", No),
            ("ffn_down_exps", "mlp.experts.*.down_proj", No),
        ],
        experts: true,
        ..PLAIN
    },
    Arch {
        name: "olmoe",
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_q", "self_attn.q_proj", ATTENTION),
            ("attn_k", "self_attn.k_proj", ATTENTION),
            ("attn_v", "self_attn.v_proj", ATTENTION),
            ("attn_q_norm", "self_attn.q_norm", No),
            ("attn_k_norm", "self_attn.k_norm", No),
            ("attn_output", "self_attn.o_proj", ATTENTION),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_gate_inp", "mlp.gate", No),
            ("ffn_gate_exps", "mlp.experts.*.gate_proj", No),
            ("ffn_up_exps", "mlp.experts.*.up_proj", No),
            ("ffn_down_exps", "mlp.experts.*.down_proj", No),
        ],
        experts: true,
        ..PLAIN
    },
    Arch {
        name: "gptneox",
        blocks: "gpt_neox.layers.",
        outside: &[
            ("token_embd", "gpt_neox.embed_in", No),
            ("output_norm", "gpt_neox.final_layer_norm", Must),
            ("output", "embed_out", No),
        ],
        inside: &[
            ("attn_norm", "input_layernorm", Must),
            ("attn_qkv", "attention.query_key_value", Must),
            ("attn_output", "attention.dense", Must),
            ("ffn_norm", "post_attention_layernorm", Must),
            ("ffn_up", "mlp.dense_h_to_4h", Must),
            ("ffn_down", "mlp.dense_4h_to_h", Must),
        ],
        grouped: true,
        ..PLAIN
    },
    Arch {
        name: "bloom",
        blocks: "transformer.h.",
        outside: &[
            ("token_embd", "transformer.word_embeddings", No),
            ("token_embd_norm", "transformer.word_embeddings_layernorm", Must),
            ("output_norm", "transformer.ln_f", Must),
            ("output", "lm_head", No),
        ],
        inside: &[
            ("attn_norm", "input_layernorm", Must),
            ("attn_qkv", "self_attention.query_key_value", Must),
            ("attn_output", "self_attention.dense", Must),
            ("ffn_norm", "post_attention_layernorm", Must),
            ("ffn_up", "mlp.dense_h_to_4h", Must),
            ("ffn_down", "mlp.dense_4h_to_h", Must),
        ],
        grouped: true,
        ..PLAIN
    },
    Arch {
        name: "stablelm",
        outside: &[("token_embd", "model.embed_tokens", No), ("output_norm", "model.norm", Must), ("output", "lm_head", No)],
        inside: &[
            ("attn_norm", "input_layernorm", Must),
            ("attn_q", "self_attn.q_proj", ATTENTION),
            ("attn_k", "self_attn.k_proj", ATTENTION),
            ("attn_v", "self_attn.v_proj", ATTENTION),
            ("attn_output", "self_attn.o_proj", No),
            ("ffn_norm", "post_attention_layernorm", Must),
            ("ffn_gate", "mlp.gate_proj", No),
            ("ffn_up", "mlp.up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
        ],
        ..PLAIN
    },
];

impl Arch {
    /// The architecture of this name, with experts or without.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] listing those that are known.
    pub fn of(name: &str, experts: bool) -> Result<&'static Arch> {
        let mut named = ARCHES.iter().filter(|a| a.name == name).peekable();
        if named.peek().is_none() {
            let first = |i: &usize| ARCHES[..*i].iter().all(|a| a.name != ARCHES[*i].name);
            let known = (0..ARCHES.len()).filter(first).map(|i| ARCHES[i].name).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid_option("general.architecture", format!("{} is none of {known}", crate::io::quoted(name))));
        }
        named.find(|a| a.experts == experts).ok_or_else(|| {
            let what = if experts { "has no experts" } else { "is a mixture of experts; expert_count says none" };
            Error::invalid_option("general.architecture", format!("a {name} {what}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::arch::Change;
    use super::*;

    #[test]
    fn names_are_translated_within_the_blocks_that_are_there() {
        let llama = Arch::of("llama", false).unwrap();
        let translated = |name| llama.translate(name, 3, (9, 3));
        assert_eq!(
            translated("blk.2.attn_k.weight"),
            Some(("model.layers.2.self_attn.k_proj.weight".to_string(), Change::Unpair { heads: 3 }))
        );
        assert_eq!(translated("output_norm.weight"), Some(("model.norm.weight".to_string(), Change::Same)));
        for unknown in ["blk.3.attn_k.weight", "blk.02.attn_k.weight", "blk.0.attn_q_norm.weight", "token_embd", "blk.1.weight"] {
            assert_eq!(translated(unknown), None, "{unknown}");
        }
        let norm = Arch::of("gemma2", false).unwrap().translate("blk.0.post_ffw_norm.weight", 1, (1, 1));
        assert_eq!(norm, Some(("model.layers.0.post_feedforward_layernorm.weight".to_string(), Change::LessOne)));
        let e = Arch::of("mamba", false).err().unwrap().to_string();
        assert!(e.contains("'mamba' is none of llama, gemma2, phi2"), "{e}");
    }
}
