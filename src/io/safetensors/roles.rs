//! [`Role`]: what the tensors of a file are for.

use super::binary::{filled, is_float, truths};
use super::buffers::buffer;
use super::checkpoint::{Checkpoint, Tensor};
use crate::Result;
use ::safetensors::tensor::Dtype as Element;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a tensor of a file is for, as far as its name, its type, its numbers and its neighbours tell.
///
/// A plain file does not say which layers a model has. A tensor of two dimensions or more with a floating-point type is taken for
/// a weight unless it is one of the other things for certain; a weight is never taken for a buffer (see
/// [`Checkpoint::role`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A weight of a linear layer or a convolution: two dimensions or more, F32, F16 or BF16.
    Weight,
    /// Numbers of one dimension or none: biases, norms, scales.
    Vector,
    /// Which numbers of a weight are kept.
    Mask {
        /// The tensor of the weight.
        of: String,
    },
    /// What a module keeps beside its parameters: causal masks, frequencies, running statistics. Says which.
    Buffer(&'static str),
    /// Numbers out of which a weight is computed, or that scale one. Says which.
    Factor(&'static str),
    /// A part of a weight that is stored without its zeros.
    Packed {
        /// The weight.
        of: String,
    },
    /// Numbers of a floating-point type that is not read.
    Unread,
    /// Integers, flags and complex numbers.
    Integers,
    /// No numbers at all.
    Empty,
}

impl Role {
    /// Whether the numbers are parameters of the model, to be counted.
    pub fn is_counted(&self) -> bool {
        matches!(self, Role::Weight | Role::Vector | Role::Factor(_) | Role::Unread)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Weight => f.write_str("weight"),
            Role::Vector => f.write_str("vector"),
            Role::Mask { of } => write!(f, "mask of {of}"),
            Role::Buffer(what) => write!(f, "buffer: {what}"),
            Role::Factor(what) => f.write_str(what),
            Role::Packed { of } => write!(f, "part of {of}"),
            Role::Unread => f.write_str("not read: F32, F16 and BF16 are"),
            Role::Integers => f.write_str("no floating-point numbers"),
            Role::Empty => f.write_str("no numbers"),
        }
    }
}

const WEIGHT_NORM: &str = "weight norm computes a weight of it; fold it first";
const SPECTRAL_NORM: &str = "spectral norm computes a weight of it; fold it first";
const PARAMETRIZED: &str = "a parametrization computes a weight of it; fold it first";
const SCALES: &str = "scales of quantised numbers";
const NO_MASK: &str = "called a mask, and none: other numbers than 0 and 1, or another shape than its weight";
const STRAY_MASK: &str = "mask without its weight";

/// Names under which quantised numbers lie, and those of what belongs to them.
const QUANTISED: [&str; 6] = ["weight", "qweight", "weight_packed", "weight_q", "W_q", "blocks"];
const OF_QUANTISED: [&str; 14] = [
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "weight_global_scale",
    "weight_zero_point",
    "weight_scales",
    "weight_zeros",
    "scales",
    "scale",
    "zeros",
    "zero",
    "zero_point",
    "scale_inv",
    "absmax",
];

impl Checkpoint {
    /// What a tensor is for.
    ///
    /// A name alone makes a buffer only where no weight has it (`inv_freq`, `running_mean`). A causal mask must have the numbers
    /// of one in a square behind dimensions of 1, a table of positions those of sines and cosines, a mask zeros and ones in the
    /// shape of its weight, and none of these is found under the name of a weight (`NAME.weight`).
    ///
    /// # Errors
    /// [`Error::UnknownName`](crate::Error::UnknownName) if there is no such tensor.
    pub fn role(&self, name: &str) -> Result<Role> {
        let tensor = self.tensor(name)?;
        Ok(self.judge(name, tensor, &self.packed_parts(), &self.mask_tensors()))
    }

    /// All tensors with what they are for, in order.
    pub fn roles(&self) -> Vec<(&str, Role)> {
        let (packed, masks) = (self.packed_parts(), self.mask_tensors());
        let one = |name| Some((name, self.judge(name, self.find(name)?, &packed, &masks)));
        self.names().filter_map(one).collect()
    }

    /// Numbers of a tensor that are not 0; `None` if its type does not say.
    ///
    /// # Errors
    /// [`Error::UnknownName`](crate::Error::UnknownName) if there is no such tensor.
    pub fn filled(&self, name: &str) -> Result<Option<usize>> {
        Ok(match self.tensor(name)? {
            Tensor::Weight(values, _) => Some(values.iter().filter(|v| **v != 0.0).count()),
            Tensor::Opaque { element, bytes, .. } => filled(*element, bytes),
        })
    }

    /// Of each mask that can be read, by the name of its tensor, the weight.
    fn mask_tensors(&self) -> BTreeMap<String, &str> {
        self.names().filter_map(|weight| Some((self.mask_name(weight)?, weight))).collect()
    }

    /// Of each part of a packed weight the weight.
    fn packed_parts(&self) -> BTreeMap<String, String> {
        let mut parts = BTreeMap::new();
        let names: BTreeSet<&str> = self.names().collect();
        for weight in self.storages() {
            let prefix = format!("{weight}.");
            let own = names.range(prefix.as_str()..).take_while(|name| name.starts_with(&prefix));
            let own = own.filter(|name| name[prefix.len()..] != *"mask");
            parts.extend(own.map(|part| (part.to_string(), weight.to_string())));
        }
        for weight in self.published_names() {
            let bare = weight.strip_suffix(".weight").unwrap_or(&weight);
            for part in ["shape", "compressed", "bitmask", "row_offsets"] {
                for layer in [bare, &weight] {
                    parts.insert(format!("{layer}.{part}"), weight.clone());
                }
            }
        }
        parts
    }

    fn judge(&self, name: &str, tensor: &Tensor, packed: &BTreeMap<String, String>, masks: &BTreeMap<String, &str>) -> Role {
        let (element, shape) = (tensor.element(), tensor.shape());
        let numbers = if let Tensor::Weight(values, _) = tensor { Some(values) } else { None };
        if let Some(of) = packed.get(name) {
            return Role::Packed { of: of.clone() };
        }
        // The metadata says of a mask of this library what it is, though its weight may lie in another file.
        let stated = name.strip_suffix(".mask").filter(|_| self.metadata.contains_key(&format!("{name}.cols")));
        if let Some(of) = masks.get(name).copied().or(stated) {
            return Role::Mask { of: of.to_string() };
        }
        if shape.contains(&0) {
            return Role::Empty;
        }
        if let Some(what) = buffer(name, shape, numbers) {
            return Role::Buffer(what);
        }
        if self.is_named_as_mask(name) {
            return Role::Buffer(NO_MASK);
        }
        if name.ends_with("mask") && truths(tensor).is_some() && (shape.len() >= 2 || !is_float(element)) {
            return Role::Buffer(STRAY_MASK);
        }
        if !is_float(element) {
            return Role::Integers;
        }
        if element == Element::F8_E8M0 {
            return Role::Factor(SCALES); // powers of two alone
        }
        match self.factor(name, shape.len()) {
            Some(what) => Role::Factor(what),
            None if numbers.is_none() => Role::Unread,
            None if shape.len() < 2 => Role::Vector,
            None => Role::Weight,
        }
    }

    /// What a tensor is that is no weight by itself: a weight is computed of it, or it scales one.
    fn factor(&self, name: &str, rank: usize) -> Option<&'static str> {
        let beside = |of: &str, from: &str, to: &str| {
            name.strip_suffix(from).is_some_and(|stem| stem.ends_with(of) && self.contains(&format!("{stem}{to}")))
        };
        if beside("weight", "_g", "_v") || beside("weight", "_v", "_g") {
            return Some(WEIGHT_NORM);
        }
        if beside("", "_orig", "_u") && self.mask_name(name).is_none() {
            return Some(SPECTRAL_NORM);
        }
        let (path, last) = name.rsplit_once('.').map_or(("", name), |(path, last)| (path, last));
        if last.starts_with("original") && path.contains("parametrizations.") && self.mask_name(name).is_none() {
            return Some(PARAMETRIZED);
        }
        let sibling = |other: &str| {
            let full = if path.is_empty() { other.to_string() } else { format!("{path}.{other}") };
            matches!(self.find(&full), Some(Tensor::Opaque { .. }))
        };
        (rank >= 2 && OF_QUANTISED.contains(&last) && QUANTISED.into_iter().any(sibling)).then_some(SCALES)
    }
}
