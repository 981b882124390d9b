//! What the tensors of each architecture are called here and there, and what was done to their numbers on the way.

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
    /// All queries, all keys, all values stand behind one another; they go back to one head after another: its query, its key, its value.
    Group { heads: usize },
    /// A row stands as a list; it goes back to a matrix of one row.
    Row,
}

impl Change {
    /// The shape that a tensor has afterwards.
    pub fn shape(self, shape: &[usize]) -> Vec<usize> {
        match self {
            Change::Turn => shape.iter().rev().copied().collect(),
            Change::Row => vec![1, shape.iter().product()],
            _ => shape.to_vec(),
        }
    }

    /// Whether this can be done to a tensor of this shape.
    pub fn fits(self, shape: &[usize]) -> bool {
        match self {
            Change::Same | Change::LessOne => true,
            Change::Unpair { heads } => heads > 0 && shape.first().is_some_and(|rows| rows % (2 * heads) == 0),
            Change::Turn => shape.len() == 2,
            Change::Group { heads } => heads > 0 && shape.first().is_some_and(|rows| rows % (3 * heads) == 0),
            Change::Row => shape.len() == 1 || shape.len() == 2 && shape[0] == 1,
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
            Change::Group { heads } => in_parts(values, (heads, 3)),
            Change::Row => {
                let row = values.flatten().into_owned();
                row.insert_axis(Axis(0)).into_dyn()
            }
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
            Change::Group { heads } => in_parts(values, (3, heads)),
            Change::Row => values.flatten().into_owned().into_dyn(),
        }
    }
}

/// Rows that stand as `inner` blocks of `outer` parts each, as `outer` blocks of `inner` parts.
fn in_parts(values: ArrayD<f32>, (outer, inner): (usize, usize)) -> ArrayD<f32> {
    let rows = values.shape()[0];
    let size = rows / (outer * inner);
    let from = |row: usize| (row / size % inner * outer + row / size / inner) * size + row % size;
    values.select(Axis(0), &(0..rows).map(from).collect::<Vec<_>>())
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

/// A part by its name there and here, and its bias. A name with [`EACH`] in it is that of as many tensors as there are experts, which stand in one there.
pub(super) type Part = (&'static str, &'static str, Bias);

/// The place of an expert's number in a name.
pub(super) const EACH: &str = "*";

/// The names of an architecture: those of a block behind `blk.N.` and behind `blocks` + `N.`, those outside in full.
pub(super) struct Arch {
    /// `general.architecture`.
    pub name: &'static str,
    pub(super) blocks: &'static str,
    pub(super) outside: &'static [Part],
    pub(super) inside: &'static [Part],
    /// Whether the feed-forward layers are experts.
    pub(super) experts: bool,
    /// Names of which 1 is taken off.
    pub(super) less_one: bool,
    pub(super) turned: bool,
    pub(super) paired: bool,
    /// Whether queries, keys and values of one layer stand head by head in a checkpoint.
    pub(super) grouped: bool,
}

impl Arch {
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
            "attn_qkv" if self.grouped => Change::Group { heads: heads.0 },
            "ffn_gate_inp_shexp" => Change::Row,
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
        let Sizes { hidden, vocab, context, head, q, kv, width, experts, .. } = *sizes;
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
            "ffn_gate_inp" => (experts, hidden),
            "ffn_gate_exps" | "ffn_up_exps" => return vec![experts, sizes.expert_width, hidden],
            "ffn_down_exps" => return vec![experts, hidden, sizes.expert_width],
            "ffn_gate_shexp" | "ffn_up_shexp" => (sizes.shared_width, hidden),
            "ffn_down_shexp" => (hidden, sizes.shared_width),
            "attn_q_norm" | "attn_k_norm" if !matches!(self.name, "olmo2" | "olmoe") => return vec![head],
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
    /// Experts of a block, and how many a token meets; 0 where there are none.
    pub experts: usize,
    pub active: usize,
    /// Features between the layers of each, and of the one that all tokens meet.
    pub expert_width: usize,
    pub shared_width: usize,
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
    fn parts_of_heads_go_back_to_their_heads() {
        // Two heads of two features: all queries, keys and values behind one another.
        let stored = array![0.0f32, 1.0, 10.0, 11.0, 2.0, 3.0, 12.0, 13.0, 4.0, 5.0, 14.0, 15.0].into_dyn();
        let change = Change::Group { heads: 2 };
        let back = change.apply(stored.clone());
        assert_eq!(back, array![0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0].into_dyn());
        assert_eq!(change.undo(back), stored);
        assert!(!Change::Group { heads: 3 }.fits(&[12]) && change.fits(&[12, 4]));
        assert_eq!(Change::Row.apply(array![1.0f32, 2.0].into_dyn()), array![[1.0, 2.0]].into_dyn());
    }
}
