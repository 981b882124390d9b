//! [`UnitCut`]: a choice of units as the rows and columns of tensors that stay.

use super::{Coupling, Extent};
use ndarray::{ArrayD, Axis};
use std::collections::{BTreeMap, BTreeSet};

/// Which parts of tensors stay, and in which order, when units are left out. A tensor of which nothing is said stays as it is.
///
/// ```
/// use lacuna::structure::{Coupling, Member, Extent, Side, UnitCut, UnitKind};
/// use ndarray::array;
/// let member = |tensor: &str, axis, side| Member { tensor: tensor.into(), part: Extent::Slice { axis, offset: 0, width: 1 }, side };
/// let members = vec![member("up", 0, Side::Makes), member("down", 1, Side::Reads)];
/// let coupling = Coupling { name: "mlp".into(), kind: UnitKind::FeedForward, block: None, units: 3, runs: 1, members };
/// let mut cut = UnitCut::default();
/// cut.keep(&coupling, &[0, 2]);
/// assert_eq!(cut.apply("up", array![[1.], [2.], [3.]].into_dyn()), array![[1.], [3.]].into_dyn());
/// assert_eq!(cut.apply("down", array![[1., 2., 3.]].into_dyn()), array![[1., 3.]].into_dyn());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitCut {
    /// Of each tensor and axis, what was said of its entries, in the order in which it was said.
    slices: BTreeMap<(String, usize), Vec<Slice>>,
    /// Tensors that go.
    gone: BTreeSet<String>,
}

/// Of the entries from `first` on, units of `width`, where each goes to among those that stay.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slice {
    first: usize,
    width: usize,
    rank: Vec<Option<usize>>,
}

impl UnitCut {
    /// Keeps these units of a coupling, in this order; the others go. Of several couplings that cut one axis of a tensor (heads, and the groups in
    /// which they lie) an entry stays if all keep it, and the order of the last one holds.
    ///
    /// # Panics
    /// If there is no such unit, or one is named twice.
    pub fn keep(&mut self, coupling: &Coupling, units: &[usize]) {
        let mut rank = vec![None; coupling.units];
        for (place, &unit) in units.iter().enumerate() {
            assert!(rank[unit].replace(place).is_none(), "{}: unit {unit} twice", coupling.name);
        }
        for member in &coupling.members {
            match member.part {
                Extent::Slice { axis, offset, width } => {
                    let slices = self.slices.entry((member.tensor.clone(), axis)).or_default();
                    slices.push(Slice { first: offset, width, rank: rank.clone() });
                }
                Extent::All { unit } if rank[unit].is_none() => drop(self.gone.insert(member.tensor.clone())),
                Extent::All { .. } => {}
            }
        }
    }

    /// Whether something of a tensor stays.
    pub fn keeps(&self, tensor: &str) -> bool {
        !self.gone.contains(tensor)
    }

    /// The entries of an axis of `len` that stay, in their order; `None` where all do, as they are.
    ///
    /// # Panics
    /// If the tensor is shorter than its coupling says.
    pub fn kept(&self, tensor: &str, axis: usize, len: usize) -> Option<Vec<usize>> {
        let slices = self.slices.get(&(tensor.to_string(), axis))?;
        let mut entries: Vec<usize> = (0..len).collect();
        for Slice { first, width, rank } in slices {
            let end = first + width * rank.len();
            assert!(end <= len, "{tensor}: {len} entries along axis {axis}, of which units lie in {first}..{end}");
            let unit = |entry: usize| (*first..end).contains(&entry).then(|| (entry - first) / width);
            entries.retain(|&e| unit(e).is_none_or(|u| rank[u].is_some()));
            // Entries of these units move among the places that they have.
            let places: Vec<usize> = (0..entries.len()).filter(|&i| unit(entries[i]).is_some()).collect();
            let mut moved: Vec<usize> = places.iter().map(|&i| entries[i]).collect();
            moved.sort_by_key(|&e| unit(e).and_then(|u| rank[u]));
            places.iter().zip(moved).for_each(|(&place, entry)| entries[place] = entry);
        }
        (entries.len() != len || entries.iter().enumerate().any(|(i, &e)| i != e)).then_some(entries)
    }

    /// The shape of what stays of a tensor.
    ///
    /// # Panics
    /// As [`UnitCut::kept`].
    pub fn shape(&self, tensor: &str, shape: &[usize]) -> Vec<usize> {
        let left = |(axis, &len): (usize, &usize)| self.kept(tensor, axis, len).map_or(len, |kept| kept.len());
        shape.iter().enumerate().map(left).collect()
    }

    /// What stays of a tensor, in standard layout.
    ///
    /// # Panics
    /// As [`UnitCut::kept`].
    pub fn apply(&self, tensor: &str, values: ArrayD<f32>) -> ArrayD<f32> {
        (0..values.ndim()).fold(values, |values, axis| match self.kept(tensor, axis, values.len_of(Axis(axis))) {
            Some(kept) => values.select(Axis(axis), &kept),
            None => values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::UnitCut;
    use crate::structure::{Coupling, Extent, Member, Side, UnitKind};

    fn coupling(kind: UnitKind, units: usize, offset: usize, width: usize) -> Coupling {
        let part = Extent::Slice { axis: 0, offset, width };
        let members = vec![Member { tensor: "w".into(), part, side: Side::Makes }];
        Coupling { name: "c".into(), kind, block: None, units, runs: 1, members }
    }

    #[test]
    fn groups_and_the_heads_in_them_cut_one_axis_together() {
        // Two groups of two heads of two rows, behind an entry of nobody.
        let (groups, heads) = (coupling(UnitKind::KvGroup, 2, 1, 4), coupling(UnitKind::Head, 4, 1, 2));
        let mut cut = UnitCut::default();
        cut.keep(&groups, &[1]);
        cut.keep(&heads, &[0, 3]);
        assert_eq!(cut.kept("w", 0, 10).unwrap(), [0, 7, 8, 9]);
        assert_eq!(cut.shape("w", &[10, 3]), [4, 3]);
    }

    #[test]
    fn units_come_in_the_order_that_was_asked_for_and_others_keep_their_places() {
        let mut cut = UnitCut::default();
        cut.keep(&coupling(UnitKind::FeedForward, 3, 1, 2), &[2, 0]);
        assert_eq!(cut.kept("w", 0, 8).unwrap(), [0, 5, 6, 1, 2, 7]);
        let mut same = UnitCut::default();
        same.keep(&coupling(UnitKind::FeedForward, 3, 0, 1), &[0, 1, 2]);
        assert_eq!((same.kept("w", 0, 3), cut.kept("w", 1, 3), cut.kept("v", 0, 3)), (None, None, None));
    }
}
