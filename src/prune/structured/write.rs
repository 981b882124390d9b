//! Tensors of a block on their way into the folder, and back out of it.

use super::choice::Choice;
use crate::io::{Folder, FolderWriter, Weights};
use crate::nn::Block;
use crate::prune::language::read_vectors;
use crate::structure::{UnitCut, UnitPad};
use crate::{Error, Result};
use ndarray::{Array2, ArrayD, Axis, Ix2};

/// A tensor of a block as it is in memory, as the checkpoint lays it; a norm's where norms were trained.
pub(super) fn of_block(block: &Block, name: &str, norms: bool) -> Option<ArrayD<f32>> {
    for layer in block.linears() {
        if layer.tensor() == name {
            let weight = layer.dense_weight().into_owned();
            return Some(if layer.is_transposed() { weight.reversed_axes().into_dyn() } else { weight.into_dyn() });
        }
        if layer.bias_tensor() == name {
            return layer.bias().map(|b| b.clone().into_dyn());
        }
    }
    let mut found = None;
    if norms && block.norms().iter().any(|norm| is_of(name, norm.name())) {
        block.visit(&mut |of, values, _| {
            if of == name {
                found = Some(values.to_owned());
            }
        });
    }
    found
}

/// Whether a tensor is a norm's weight or bias.
fn is_of(tensor: &str, norm: &str) -> bool {
    matches!(tensor.strip_prefix(norm), Some(".weight" | ".bias"))
}

/// Writes what is left of a tensor, among zeros where its block is padded: as it is in memory, or as the folder has it, which is copied byte by byte where
/// all of it stays.
pub(super) fn put(
    writer: &mut FolderWriter,
    choice: &Choice<'_>,
    name: &str,
    (cut, pad): (&UnitCut, Option<&UnitPad>),
    changed: Option<ArrayD<f32>>,
    folder: &Folder,
) -> Result<()> {
    let shape = choice.base.shape(name)?;
    let stays = (0..shape.len()).all(|axis| cut.kept(name, axis, shape[axis]).is_none());
    let pads = pad.is_some_and(|pad| pad.pads(name));
    if changed.is_none() && stays && !pads && choice.base.is_whole(name) {
        return writer.copy_as(name, folder, choice.base.old(name));
    }
    let values = match changed {
        Some(values) => values,
        None => choice.base.read(name)?,
    };
    let small = cut.apply(name, values);
    let Some(pad) = pad.filter(|_| pads) else { return writer.write(name, &small) };
    let whole = pad.spread(name, small);
    if let &[rows, columns] = whole.shape()
        && let Some(mask) = pad.mask(name, (rows, columns))
    {
        writer.write_mask(name, &mask)?;
    }
    writer.write(name, &whole)
}

/// Puts what was written into a block, at the places that it had; norms too where they were trained.
pub(super) fn take_over(
    block: &mut Block,
    (cut, pad): (&UnitCut, Option<&UnitPad>),
    norms: bool,
    writer: &FolderWriter,
) -> Result<()> {
    if norms {
        let names: Vec<String> = block.norms().iter().map(|n| n.name().to_string()).collect();
        read_vectors(block, |name| names.iter().any(|norm| is_of(name, norm)), writer)?;
    }
    let read = |name: &str| -> Result<ArrayD<f32>> {
        let written = writer.read(name)?;
        Ok(match pad {
            Some(pad) => pad.gather(name, written),
            None => written,
        })
    };
    for layer in block.linears_mut() {
        let (tensor, bias) = (layer.tensor(), layer.bias_tensor());
        let stored = if layer.is_transposed() { (layer.shape().1, layer.shape().0) } else { layer.shape() };
        let small = read(&tensor)?.into_dimensionality::<Ix2>();
        let small = small.map_err(|_| Error::shape(&tensor, &[stored.0, stored.1], &[]))?;
        // Rows that went keep what the folder has: nothing reads what they make.
        let own = layer.dense_weight().into_owned();
        let mut whole: Array2<f32> =
            if layer.is_transposed() { own.reversed_axes().as_standard_layout().into_owned() } else { own };
        let (read_axis, make_axis) = if layer.is_transposed() { (0, 1) } else { (1, 0) };
        let reads = cut.kept(&tensor, read_axis, if read_axis == 0 { stored.0 } else { stored.1 });
        let makes = cut.kept(&tensor, make_axis, if make_axis == 0 { stored.0 } else { stored.1 });
        if reads.is_some() {
            whole.fill(0.0);
        }
        let all = |n: usize| (0..n).collect::<Vec<_>>();
        let (rows, cols) = if layer.is_transposed() { (reads, makes) } else { (makes, reads) };
        let (rows, cols) = (rows.unwrap_or_else(|| all(stored.0)), cols.unwrap_or_else(|| all(stored.1)));
        for (r, &row) in rows.iter().enumerate() {
            cols.iter().enumerate().for_each(|(c, &col)| whole[[row, col]] = small[[r, c]]);
        }
        layer.set_weight(if layer.is_transposed() { whole.reversed_axes().as_standard_layout().into_owned() } else { whole })?;
        if let Some(own) = layer.bias() {
            let (mut whole, small) = (own.clone(), read(&bias)?);
            let kept = cut.kept(&bias, 0, whole.len()).unwrap_or_else(|| all(whole.len()));
            kept.iter().zip(small.axis_iter(Axis(0))).for_each(|(&i, v)| whole[i] = v.iter().copied().next().unwrap_or_default());
            layer.set_bias(Some(whole))?;
        }
    }
    Ok(())
}
