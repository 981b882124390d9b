//! Pruning the weights of a plain file, by criteria that need the weights alone.

use crate::criteria::Measured;
use crate::io::{Checkpoint, Role, check_finite, quoted};
use crate::mask::Mask;
use crate::prune::Pruning;
use crate::prune::oneshot::prune_layers;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What became of one tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrunedTensor {
    /// Its name.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Of these, those that stay.
    pub kept: usize,
}

/// A tensor that looks like a weight and is not pruned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Its name.
    pub name: String,
    /// Its element type, as the file writes it.
    pub dtype: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Its elements.
    pub numbers: usize,
    /// Why it is left alone.
    pub why: String,
}

/// The names of the tensors that are weights of linear or convolutional layers, as far as a plain file can tell: those of
/// two dimensions or more with a floating-point type that is read, without masks, buffers and their like
/// ([`Checkpoint::role`]). Tensors of one dimension (biases, norms) are never pruned.
pub fn prunable(checkpoint: &Checkpoint) -> Vec<String> {
    let weights = checkpoint.roles().into_iter().filter(|(_, role)| *role == Role::Weight);
    weights.map(|(name, _)| name.to_string()).collect()
}

/// The other tensors of two dimensions or more, with the reason why they are no weights to prune: of a type that is not read, without
/// numbers, buffers, masks that other tools have left. Masks of this library and parts of packed weights are not among them.
pub fn left_alone(checkpoint: &Checkpoint) -> Vec<LeftAlone> {
    let mut left = Vec::new();
    for (name, role) in checkpoint.roles() {
        let Ok(info) = checkpoint.info(name) else { continue };
        let own_mask = matches!(&role, Role::Mask { .. }) && checkpoint.metadata().contains_key(&format!("{name}.cols"));
        let packed = matches!(&role, Role::Packed { .. });
        if info.shape.len() < 2 || role == Role::Weight || own_mask || packed {
            continue;
        }
        let numbers = info.elements();
        let why = if let Role::Mask { .. } = role { format!("{role}, goes with it") } else { role.to_string() };
        left.push(LeftAlone { name: info.name, dtype: info.dtype, shape: info.shape, numbers, why });
    }
    for weight in checkpoint.storages().map(String::from).chain(checkpoint.published_names()) {
        let shape = match checkpoint.storage(&weight) {
            Ok(storage) => storage.shape(),
            Err(_) => checkpoint.published(&weight).map_or((0, 0), |(w, _)| w.dim()),
        };
        let why = "packed: stored without its zeros".to_string();
        let (shape, numbers) = (vec![shape.0, shape.1], shape.0 * shape.1);
        left.push(LeftAlone { name: weight, dtype: "packed".to_string(), shape, numbers, why });
    }
    left
}

/// Prunes the weights of a checkpoint ([`prunable`]): what goes becomes 0, and every mask is stored beside its weight. All else is left
/// as it is. A weight of more than two dimensions counts as `(first, rest)`. Masks that the file already has are kept to: what
/// they dropped stays dropped.
///
/// A mask that another tool has left keeps its name and its type, and is brought up to date. So a state of `torch.nn.utils.prune` stays
/// one: `weight_orig` has its zeros, `weight_mask` the new mask, and the module that loads them multiplies the two.
///
/// # Errors
/// If the criterion needs more than weights, a weight is not finite, the file has no weights, a name in `skip` is unknown,
/// or the pattern or budget is impossible; each naming the tensor.
pub fn prune_checkpoint(checkpoint: &Checkpoint, pruning: &Pruning<'_>) -> Result<(Checkpoint, Vec<PrunedTensor>)> {
    let names = prunable(checkpoint);
    let left = left_alone(checkpoint);
    let mut skipped = Vec::new();
    for skip in pruning.skip {
        let tensor = checkpoint.tensor_of(skip).unwrap_or(skip);
        let known = names.iter().map(String::as_str).chain(left.iter().map(|l| l.name.as_str()));
        if !known.clone().any(|name| name == tensor) {
            return Err(Error::unknown_layer(skip, known));
        }
        skipped.push(tensor);
    }
    let names: Vec<String> = names.into_iter().filter(|n| !skipped.contains(&n.as_str())).collect();
    if names.is_empty() {
        let others = match &left[..] {
            [] => String::new(),
            [one] => format!("; {} is left alone: {}", quoted(&one.name), one.why),
            [one, ..] => format!("; {} tensors are left alone, the first of them {}: {}", left.len(), quoted(&one.name), one.why),
        };
        let reason = format!("holds no weights to prune (tensors of two dimensions or more in F32, F16 or BF16){others}");
        return Err(Error::malformed(checkpoint.path(), reason));
    }
    for name in &names {
        check_finite(name, checkpoint.get(name)?)?;
    }
    let mut pruned = checkpoint.clone();
    let skip: Vec<String> = prunable(checkpoint).into_iter().filter(|name| !names.contains(name)).collect();
    let nothing = vec![Measured::default(); names.len() + skip.len()];
    let (masks, _) = prune_layers(&mut pruned, &nothing, &Pruning { skip: &skip, ..*pruning })?;
    let one = |(name, mask): (String, Mask)| {
        let shape = checkpoint.get(&name)?.shape().to_vec();
        Ok(PrunedTensor { name, shape, weights: mask.len(), kept: mask.kept() })
    };
    let report = masks.into_iter().map(one).collect::<Result<_>>()?;
    Ok((pruned, report))
}
