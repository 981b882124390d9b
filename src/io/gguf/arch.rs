//! What the tensors of each architecture are called here and there, and what was done to their numbers on the way.

use crate::{Error, Result};
use ndarray::ArrayD;

/// What turns the numbers of a tensor into those of the Hugging Face checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Same,
    /// The rows of each of `heads` heads stand as pairs (i, i + half) side by side; they go back to two halves.
    Unpair { heads: usize },
    /// Rows and columns change places.
    Turn,
    /// 1 was added and is taken off.
    LessOne,
}

impl Change {
    /// The shape that a tensor has afterwards.
    pub fn shape(self, shape: &[usize]) -> Vec<usize> {
        match self {
            Change::Turn => shape.iter().rev().copied().collect(),
            _ => shape.to_vec(),
        }
    }

    /// Whether this can be done to a tensor of this shape.
    pub fn fits(self, shape: &[usize]) -> bool {
        match self {
            Change::Same | Change::LessOne => true,
            Change::Unpair { heads } => heads > 0 && shape.first().is_some_and(|rows| rows % (2 * heads) == 0),
            Change::Turn => shape.len() == 2,
        }
    }

    /// The changed tensor.
    ///
    /// # Panics
    /// If [`Change::fits`] does not hold.
    pub fn apply(self, values: ArrayD<f32>) -> ArrayD<f32> {
        assert!(self.fits(values.shape()), "{self:?} of {:?}", values.shape());
        match self {
            Change::Same => values,
            Change::LessOne => values - 1.0,
            Change::Turn => values.reversed_axes().as_standard_layout().into_owned(),
            Change::Unpair { heads } => {
                let rows = values.shape()[0];
                let (head, half) = (rows / heads, rows / heads / 2);
                // Row `pair * 2 + side` of a head becomes row `side * half + pair`.
                let from = |row: usize| {
                    let (h, r) = (row / head, row % head);
                    h * head + (r % half) * 2 + r / half
                };
                let order: Vec<usize> = (0..rows).map(from).collect();
                values.select(ndarray::Axis(0), &order)
            }
        }
    }
}

/// The names of an architecture: those of a block behind `blk.N.` and behind `blocks` + `N.`, those outside in full.
pub(super) struct Arch {
    /// `general.architecture`.
    pub name: &'static str,
    blocks: &'static str,
    outside: &'static [(&'static str, &'static str)],
    inside: &'static [(&'static str, &'static str)],
    /// Names of which 1 is taken off.
    less_one: bool,
    turned: bool,
    paired: bool,
}

const LLAMA_ENDS: &[(&str, &str)] = &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

const ARCHES: [Arch; 6] = [
    Arch {
        name: "llama",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
        inside: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
        less_one: false,
        turned: false,
        paired: true,
    },
    Arch {
        name: "gemma2",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
        inside: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
        less_one: true,
        turned: false,
        paired: false,
    },
    Arch {
        name: "phi2",
        blocks: "model.layers.",
        outside: &[("token_embd", "model.embed_tokens"), ("output_norm", "model.final_layernorm"), ("output", "lm_head")],
        inside: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.dense"),
            ("ffn_up", "mlp.fc1"),
            ("ffn_down", "mlp.fc2"),
        ],
        less_one: false,
        turned: false,
        paired: false,
    },
    Arch {
        name: "phi3",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
        inside: &[
            ("attn_norm", "input_layernorm"),
            ("attn_qkv", "self_attn.qkv_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_up", "mlp.gate_up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
        less_one: false,
        turned: false,
        paired: false,
    },
    Arch {
        name: "nemotron",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
        inside: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
        less_one: true,
        turned: false,
        paired: false,
    },
    Arch {
        name: "gpt2",
        blocks: "transformer.h.",
        outside: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        inside: &[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ],
        less_one: false,
        turned: true,
        paired: false,
    },
];

impl Arch {
    /// The architecture of this name.
    ///
    /// # Errors
    /// [`Error::Setting`] listing those that are known.
    pub fn of(name: &str) -> Result<&'static Arch> {
        ARCHES.iter().find(|a| a.name == name).ok_or_else(|| {
            let known = ARCHES.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
            Error::setting("general.architecture", format!("{} is none of {known}", crate::io::quoted(name)))
        })
    }

    /// The Hugging Face name of a tensor, and what is to be done to it; `None` if the architecture has no such tensor among its
    /// first `layers` blocks.
    pub fn translate(&self, name: &str, layers: usize, heads: (usize, usize)) -> Option<(String, Change)> {
        let (stem, kind) = name.rsplit_once('.')?;
        if kind != "weight" && kind != "bias" {
            return None;
        }
        let find = |list: &[(&str, &'static str)], stem: &str| list.iter().find(|(from, _)| *from == stem).map(|(_, to)| *to);
        let (there, here) = match stem.strip_prefix("blk.") {
            None => (find(self.outside, stem)?.to_string(), stem),
            Some(rest) => {
                let (layer, part) = rest.split_once('.')?;
                layer.parse::<usize>().ok().filter(|l| *l < layers && l.to_string() == layer)?;
                (format!("{}{layer}.{}", self.blocks, find(self.inside, part)?), part)
            }
        };
        let change = match here {
            "attn_q" if self.paired => Change::Unpair { heads: heads.0 },
            "attn_k" if self.paired => Change::Unpair { heads: heads.1 },
            "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down" if self.turned && kind == "weight" => Change::Turn,
            _ if self.less_one && kind == "weight" && here.ends_with("norm") => Change::LessOne,
            _ => Change::Same,
        };
        Some((format!("{there}.{kind}"), change))
    }

    /// The names, in the file, of the tensors that a model of so many blocks has at least.
    pub fn needed(&self, layers: usize) -> impl Iterator<Item = String> {
        let outside = self.outside.iter().filter(|(from, _)| *from != "output").map(|(from, _)| format!("{from}.weight"));
        outside.chain((0..layers).flat_map(|l| self.inside.iter().map(move |(from, _)| format!("blk.{l}.{from}.weight"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn pairs_of_rows_go_back_to_two_halves() {
        // A head of rows 0 1 2 3 is stored as 0 2 1 3.
        let stored = array![0.0f32, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0].into_dyn();
        let back = Change::Unpair { heads: 2 }.apply(stored);
        assert_eq!(back, array![0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0].into_dyn());
        assert!(!Change::Unpair { heads: 3 }.fits(&[8]));
    }

    #[test]
    fn names_are_translated_within_the_blocks_that_are_there() {
        let llama = Arch::of("llama").unwrap();
        let translated = |name| llama.translate(name, 3, (9, 3));
        assert_eq!(
            translated("blk.2.attn_k.weight"),
            Some(("model.layers.2.self_attn.k_proj.weight".to_string(), Change::Unpair { heads: 3 }))
        );
        assert_eq!(translated("output_norm.weight"), Some(("model.norm.weight".to_string(), Change::Same)));
        for unknown in ["blk.3.attn_k.weight", "blk.02.attn_k.weight", "blk.0.attn_q_norm.weight", "token_embd", "blk.1.weight"] {
            assert_eq!(translated(unknown), None, "{unknown}");
        }
        let norm = Arch::of("gemma2").unwrap().translate("blk.0.post_ffw_norm.weight", 1, (1, 1));
        assert_eq!(norm, Some(("model.layers.0.post_feedforward_layernorm.weight".to_string(), Change::LessOne)));
        let e = Arch::of("mamba").err().unwrap().to_string();
        assert!(e.contains("'mamba' is none of llama, gemma2, phi2"), "{e}");
    }
}
