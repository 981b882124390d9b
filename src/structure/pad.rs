//! [`UnitPad`]: the units of a smaller block at their places in a larger one, with zeros where it has none.

use super::{Coupling, Extent, UnitKind};
use crate::mask::Mask;
use ndarray::{ArrayD, Axis, IxDyn};
use std::collections::{BTreeMap, BTreeSet};

/// How many units of a kind a block has, and in how many runs of one length they lie: of the smaller block, then of the larger one.
pub type UnitCounts = [(usize, usize); 2];

/// Where the tensors of a block lie in those of one with more units. A unit keeps its number within its run, and a run its number; all other entries of
/// the larger tensors are 0. Heads that read zeros and features that nobody makes add nothing, so that both blocks are the same function where no norm
/// takes a mean over the units.
///
/// ```
/// use lacuna::structure::{Coupling, Extent, Member, Side, UnitKind, UnitPad};
/// use ndarray::array;
/// let member = |tensor: &str, axis, side| Member { tensor: tensor.into(), part: Extent::Slice { axis, offset: 0, width: 1 }, side };
/// let members = vec![member("up", 0, Side::Makes), member("down", 1, Side::Reads)];
/// let large = Coupling { name: "mlp".into(), kind: UnitKind::FeedForward, block: Some(0), units: 3, runs: 1, members };
/// let pad = UnitPad::new(&[large], &|_| [(2, 1), (3, 1)]);
/// let padded = pad.spread("down", array![[5., 6.]].into_dyn());
/// assert_eq!(padded, array![[5., 6., 0.]].into_dyn());
/// assert_eq!(pad.gather("down", padded), array![[5., 6.]].into_dyn());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitPad {
    /// Of each tensor and axis, for each entry of the larger one that of the smaller one.
    axes: BTreeMap<(String, usize), Vec<Option<usize>>>,
}

impl UnitPad {
    /// The places of a block whose larger form has these couplings; `counts` says how many units of each kind both have. Where a coupling of heads and one
    /// of groups name the same entries, those of heads hold.
    ///
    /// # Panics
    /// If the larger block has fewer units than the smaller one, or `counts` says otherwise than its couplings.
    pub fn new(large: &[Coupling], counts: &dyn Fn(UnitKind) -> UnitCounts) -> UnitPad {
        let mut regions: BTreeMap<(String, usize), BTreeMap<usize, Region>> = BTreeMap::new();
        let mut ordered: Vec<&Coupling> = large.iter().collect();
        ordered.sort_by_key(|c| c.kind != UnitKind::Head);
        for coupling in ordered {
            let [(small, small_runs), (units, runs)] = counts(coupling.kind);
            assert_eq!(coupling.units, units, "{}: units of the larger block", coupling.name);
            let (run, small_run) = (units / runs.max(1), small / small_runs.max(1));
            assert!(small_run <= run && small_runs <= runs, "{}: {small} units in {units}", coupling.name);
            let of = |unit: usize| {
                let (first, within) = (unit / run, unit % run);
                (first < small_runs && within < small_run).then_some(first * small_run + within)
            };
            for member in &coupling.members {
                if let Extent::Slice { axis, offset, width } = member.part {
                    let all = regions.entry((member.tensor.clone(), axis)).or_default();
                    all.entry(offset).or_insert_with(|| Region { width, small, of: (0..units).map(of).collect() });
                }
            }
        }
        let whole = |regions: BTreeMap<usize, Region>| {
            let (mut places, mut first) = (Vec::new(), 0);
            for Region { width, small, of } in regions.into_values() {
                let entry = |i: usize| of[i / width].map(|unit| first + unit * width + i % width);
                places.extend((0..of.len() * width).map(entry));
                first += small * width;
            }
            places
        };
        UnitPad { axes: regions.into_iter().map(|(key, regions)| (key, whole(regions))).collect() }
    }

    fn axis(&self, tensor: &str, axis: usize) -> Option<&[Option<usize>]> {
        self.axes.get(&(tensor.to_string(), axis)).map(Vec::as_slice)
    }

    /// Whether a tensor has zeros in the larger block that it has not in the smaller one.
    pub fn pads(&self, tensor: &str) -> bool {
        (0..2).any(|axis| self.axis(tensor, axis).is_some_and(|places| places.iter().any(Option::is_none)))
    }

    /// The tensors that have such zeros.
    pub fn padded(&self) -> BTreeSet<&str> {
        self.axes.keys().map(|(tensor, _)| tensor.as_str()).filter(|tensor| self.pads(tensor)).collect()
    }

    /// The shape in the larger block.
    pub fn shape(&self, tensor: &str, shape: &[usize]) -> Vec<usize> {
        shape.iter().enumerate().map(|(axis, len)| self.axis(tensor, axis).map_or(*len, <[_]>::len)).collect()
    }

    /// A tensor of the smaller block, in the larger one.
    ///
    /// # Panics
    /// If its shape is not that of the smaller block.
    pub fn spread(&self, tensor: &str, values: ArrayD<f32>) -> ArrayD<f32> {
        (0..values.ndim()).fold(values, |values, axis| {
            let Some(places) = self.axis(tensor, axis) else { return values };
            let mut shape = values.shape().to_vec();
            shape[axis] = places.len();
            let mut whole = ArrayD::zeros(IxDyn(&shape));
            for (to, from) in places.iter().enumerate().filter_map(|(to, from)| Some((to, (*from)?))) {
                whole.index_axis_mut(Axis(axis), to).assign(&values.index_axis(Axis(axis), from));
            }
            whole
        })
    }

    /// The way back: what the smaller block has of a tensor of the larger one.
    ///
    /// # Panics
    /// If its shape is not that of the larger block.
    pub fn gather(&self, tensor: &str, values: ArrayD<f32>) -> ArrayD<f32> {
        (0..values.ndim()).fold(values, |values, axis| match self.axis(tensor, axis) {
            None => values,
            Some(places) => {
                assert_eq!(places.len(), values.len_of(Axis(axis)), "{tensor}: entries along axis {axis}");
                let all: Vec<usize> = (0..places.len()).filter(|&i| places[i].is_some()).collect();
                values.select(Axis(axis), &all)
            }
        })
    }

    /// What of a matrix `(rows, columns)` of the larger block is not such a zero; `None` where nothing is.
    pub fn mask(&self, tensor: &str, shape: (usize, usize)) -> Option<Mask> {
        let stays = |axis: usize, i: usize| self.axis(tensor, axis).is_none_or(|places| places[i].is_some());
        self.pads(tensor).then(|| Mask::from_fn(shape.0, shape.1, |r, c| stays(0, r) && stays(1, c)))
    }
}

/// Units that lie one behind the other in a tensor of the larger block.
struct Region {
    width: usize,
    /// Units of the smaller block.
    small: usize,
    /// Of each unit that of the smaller block.
    of: Vec<Option<usize>>,
}

#[cfg(test)]
mod tests {
    use super::UnitPad;
    use crate::structure::{Coupling, Extent, Member, Side, UnitKind};
    use ndarray::{Array1, ArrayD, array};

    /// Queries, keys and values of one layer: 4 heads in 2 groups, a feature each; behind them nothing.
    fn fused() -> [Coupling; 2] {
        let member = |tensor: &str, axis, offset, width| Member {
            tensor: tensor.into(),
            part: Extent::Slice { axis, offset, width },
            side: Side::Makes,
        };
        let of = |kind, units, runs, members| Coupling { name: "c".into(), kind, block: Some(0), units, runs, members };
        let groups = vec![member("qkv", 0, 0, 2), member("qkv", 0, 4, 1), member("qkv", 0, 6, 1), member("o", 1, 0, 2)];
        let heads = vec![member("qkv", 0, 0, 1), member("o", 1, 0, 1)];
        [of(UnitKind::KvGroup, 2, 1, groups), of(UnitKind::Head, 4, 2, heads)]
    }

    #[test]
    fn a_unit_keeps_its_number_within_its_run() {
        let counts = |kind| match kind {
            // Two groups of one head each, and both groups of two heads.
            UnitKind::Head => [(2, 2), (4, 2)],
            _ => [(2, 1), (2, 1)],
        };
        let pad = UnitPad::new(&fused(), &counts);
        let small: ArrayD<f32> = Array1::from_iter((1..=6).map(|n| n as f32)).into_dyn();
        let whole = pad.spread("qkv", small.clone());
        assert_eq!(whole, array![1., 0., 2., 0., 3., 4., 5., 6.].into_dyn());
        assert_eq!(pad.gather("qkv", whole), small);
        assert_eq!(pad.shape("o", &[3, 2]), [3, 4]);
        assert_eq!(pad.padded().into_iter().collect::<Vec<_>>(), ["o", "qkv"]);
        let mask = pad.mask("o", (1, 4)).unwrap();
        assert_eq!([0, 1, 2, 3].map(|c| mask.get(0, c)), [true, false, true, false]);
    }

    #[test]
    fn a_block_without_units_is_zeros_and_one_with_all_of_them_is_as_it_was() {
        let none = UnitPad::new(&fused(), &|kind| if kind == UnitKind::Head { [(0, 0), (4, 2)] } else { [(0, 1), (2, 1)] });
        assert_eq!(none.spread("qkv", Array1::zeros(0).into_dyn()), Array1::<f32>::zeros(8).into_dyn());
        assert_eq!(none.gather("qkv", Array1::zeros(8).into_dyn()).len(), 0);
        let all = UnitPad::new(&fused(), &|kind| if kind == UnitKind::Head { [(4, 2); 2] } else { [(2, 1); 2] });
        assert!(all.padded().is_empty() && all.mask("o", (1, 4)).is_none());
    }
}
