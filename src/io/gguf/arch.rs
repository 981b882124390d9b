//! What the tensors of each architecture are called here and there, and what was done to their numbers on the way.

use crate::{Error, Result};
use ndarray::{ArrayD, Axis};

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
            // Row `pair * 2 + side` of a head becomes row `side * half + pair`.
            Change::Unpair { heads } => in_heads(values, heads, |row, half| (row % half) * 2 + row / half),
        }
    }

    /// The way back of [`Change::apply`].
    ///
    /// # Panics
    /// If the tensor is none that `apply` gives.
    pub fn undo(self, values: ArrayD<f32>) -> ArrayD<f32> {
        match self {
            Change::Same | Change::Turn => self.apply(values),
            Change::LessOne => values + 1.0,
            Change::Unpair { heads } => in_heads(values, heads, |row, half| (row % 2) * half + row / 2),
        }
    }
}

/// The rows of each of `heads` heads in another order: `from` says which row of a head comes to a place, given half of its rows.
fn in_heads(values: ArrayD<f32>, heads: usize, from: impl Fn(usize, usize) -> usize) -> ArrayD<f32> {
    let rows = values.shape()[0];
    let head = rows / heads;
    let order: Vec<usize> = (0..rows).map(|row| row / head * head + from(row % head, head / 2)).collect();
    values.select(Axis(0), &order)
}

/// Whether a part has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    No,
    Must,
    /// With the others of its kind: what attention has, and what the feed-forward layers have.
    May(Joint),
}

/// Layers that have biases together or not at all in a Hugging Face checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    Attention,
    Feed,
}

use Bias::{May, Must, No};

/// A part by its name there and here, and its bias.
pub(super) type Part = (&'static str, &'static str, Bias);

/// The names of an architecture: those of a block behind `blk.N.` and behind `blocks` + `N.`, those outside in full.
pub(super) struct Arch {
    /// `general.architecture`.
    pub name: &'static str,
    pub(super) blocks: &'static str,
    pub(super) outside: &'static [Part],
    pub(super) inside: &'static [Part],
    /// Names of which 1 is taken off.
    less_one: bool,
    turned: bool,
    paired: bool,
}

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

const ARCHES: [Arch; 12] = [
    Arch {
        name: "llama",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
        inside: LLAMA_BLOCK,
        less_one: false,
        turned: false,
        paired: true,
    },
    Arch {
        name: "gemma2",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
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
        turned: false,
        paired: false,
    },
    Arch {
        name: "phi2",
        blocks: "model.layers.",
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
        less_one: false,
        turned: false,
        paired: false,
    },
    Arch {
        name: "phi3",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
        inside: &[
            ("attn_norm", "input_layernorm", No),
            ("attn_qkv", "self_attn.qkv_proj", No),
            ("attn_output", "self_attn.o_proj", No),
            ("ffn_norm", "post_attention_layernorm", No),
            ("ffn_up", "mlp.gate_up_proj", No),
            ("ffn_down", "mlp.down_proj", No),
        ],
        less_one: false,
        turned: false,
        paired: false,
    },
    Arch {
        name: "nemotron",
        blocks: "model.layers.",
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
        turned: false,
        paired: false,
    },
    Arch {
        name: "qwen2",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
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
        less_one: false,
        turned: false,
        paired: false,
    },
    Arch {
        name: "qwen3",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
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
        less_one: false,
        turned: false,
        paired: false,
    },
    Arch {
        name: "gemma",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
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
        turned: false,
        paired: false,
    },
    Arch {
        name: "gemma3",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
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
        turned: false,
        paired: false,
    },
    Arch {
        name: "smollm3",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
        inside: LLAMA_BLOCK,
        less_one: false,
        turned: false,
        paired: true,
    },
    Arch {
        name: "olmo2",
        blocks: "model.layers.",
        outside: LLAMA_ENDS,
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
        less_one: false,
        turned: false,
        paired: false,
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
        less_one: false,
        turned: true,
        paired: false,
    },
];

impl Arch {
    /// The architecture of this name.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] listing those that are known.
    pub fn of(name: &str) -> Result<&'static Arch> {
        ARCHES.iter().find(|a| a.name == name).ok_or_else(|| {
            let known = ARCHES.iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
            Error::invalid_option("general.architecture", format!("{} is none of {known}", crate::io::quoted(name)))
        })
    }

    /// Whether the head may be the embedding: not where it has a bias of its own.
    pub fn may_tie(&self) -> bool {
        self.outside.iter().any(|(from, _, bias)| *from == "output" && *bias == No)
    }

    /// The Hugging Face name of a tensor, and what is to be done to it; `None` if the architecture has no such tensor among its
    /// first `layers` blocks.
    pub fn translate(&self, name: &str, layers: usize, heads: (usize, usize)) -> Option<(String, Change)> {
        let (stem, kind) = name.rsplit_once('.')?;
        if kind != "weight" && kind != "bias" {
            return None;
        }
        let find = |list: &'static [Part], stem: &str| list.iter().find(|(from, _, _)| *from == stem);
        let (there, here, bias) = match stem.strip_prefix("blk.") {
            None => find(self.outside, stem).map(|(_, to, bias)| (to.to_string(), stem, *bias))?,
            Some(rest) => {
                let (layer, part) = rest.split_once('.')?;
                layer.parse::<usize>().ok().filter(|l| *l < layers && l.to_string() == layer)?;
                find(self.inside, part).map(|(_, to, bias)| (format!("{}{layer}.{to}", self.blocks), part, *bias))?
            }
        };
        if kind == "bias" && bias == No {
            return None;
        }
        let change = match here {
            "attn_q" if self.paired => Change::Unpair { heads: heads.0 },
            "attn_k" if self.paired => Change::Unpair { heads: heads.1 },
            "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down" if self.turned && kind == "weight" => Change::Turn,
            _ if self.less_one && kind == "weight" && here.ends_with("norm") => Change::LessOne,
            _ => Change::Same,
        };
        Some((format!("{there}.{kind}"), change))
    }

    /// The names, in the file, of the tensors that a model of so many blocks has at least; `tied` models have no head.
    pub fn needed(&self, layers: usize, tied: bool) -> impl Iterator<Item = String> {
        let both = |name: String, bias: Bias| {
            let bias = (bias == Must).then(|| format!("{name}.bias"));
            [Some(format!("{name}.weight")), bias].into_iter().flatten()
        };
        let outside = self.outside.iter().filter(move |(from, _, _)| !tied || *from != "output");
        let outside = outside.flat_map(move |(from, _, bias)| both(from.to_string(), *bias));
        outside.chain(
            (0..layers)
                .flat_map(move |l| self.inside.iter().flat_map(move |(from, _, bias)| both(format!("blk.{l}.{from}"), *bias))),
        )
    }

    /// The parts of a block that have biases if one of `joint` has, by their names in the file without the ending.
    pub fn biased(&self, joint: Joint, layers: usize) -> impl Iterator<Item = String> {
        let parts = move |l: usize| {
            let of = move |(from, _, bias): &Part| (*bias == May(joint)).then(|| format!("blk.{l}.{from}"));
            self.inside.iter().filter_map(of)
        };
        (0..layers).flat_map(parts)
    }

    /// The shape of a tensor in the file by its name there.
    pub fn shape(&self, name: &str, sizes: &Sizes) -> Vec<usize> {
        let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        let part = stem.rsplit_once('.').map_or(stem, |(_, part)| part);
        let Sizes { hidden, vocab, context, head, q, kv, width } = *sizes;
        let (rows, cols) = match part {
            "token_embd" | "output" => (vocab, hidden),
            "position_embd" => (context, hidden),
            "attn_q" => (q, hidden),
            "attn_k" | "attn_v" => (kv, hidden),
            "attn_qkv" => (q.saturating_add(kv.saturating_mul(2)), hidden),
            "attn_output" => (hidden, q),
            "ffn_up" if self.name == "phi3" => (2 * width, hidden),
            "ffn_gate" | "ffn_up" => (width, hidden),
            "ffn_down" => (hidden, width),
            "attn_q_norm" | "attn_k_norm" if self.name != "olmo2" => return vec![head],
            "attn_q_norm" => return vec![q],
            "attn_k_norm" => return vec![kv],
            _ => return vec![hidden],
        };
        if kind == "bias" { vec![rows] } else { vec![rows, cols] }
    }
}

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub hidden: usize,
    pub vocab: usize,
    pub context: usize,
    /// Features of a head.
    pub head: usize,
    /// Features of all query heads, and of all key heads.
    pub q: usize,
    pub kv: usize,
    /// Features between the feed-forward layers.
    pub width: usize,
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
