//! Feed-forward widths of each block by itself: a budget is spread by what the model's loss is expected to rise by.
//!
//! One pass of the dense model gives, of every block, the loss at each number of features that may stay: group OBS with the metric of the outputs
//! ([`OutputMetrics`]) goes down to a quarter of them, and says after each round what it has lost. Losses add up, so that the widths that meet a budget
//! with the least sum follow from the lower convex hulls of these curves: the cheapest steps are taken first. This is the knapsack of SPDY (Frantar,
//! Alistarh, ICML 2022, arXiv:2201.13096) and ZipLM (Kurtic et al., NeurIPS 2023, arXiv:2302.04089) relaxed; those papers measure the loss where this
//! one expects it.
//!
//! Expected losses are of small errors, one block at a time. So the widths that are made lie half way between these and one width for all.
//! That is a rule of thumb, and attention stays as it is.

use super::ShrinkSizes;
use super::budget::{SizeSearch, of_unit};
use super::method::UnitMethod;
use super::metric::OutputMetrics;
use super::survey::Steps;
use super::target::PartSize;
use super::walk::{Choose, HiddenStates, UnitWalk};
use crate::criteria::Evidence;
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::{Config, Widths, couplings, load_block};
use crate::prune::language::{ActivationMemory, Part};
use crate::solve::{GroupObs, Removal};
use crate::structure::{Coupling, UnitKind};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Sequences of the pass.
const SEQUENCES: usize = 16;
/// The fraction of feed-forward features that always stays.
const LEAST: f64 = 0.25;

/// Widths that were found for each block, by the number of the block in the model before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockWidths {
    /// What was asked for.
    pub target: String,
    /// Of each block.
    pub widths: Vec<Widths>,
    /// What the loss is expected to rise by, nats a token.
    pub expected: f64,
    /// The curves by which they were found.
    pub curves: Vec<UnitCurve>,
    /// Tokens of the pass.
    pub tokens: usize,
}

/// What fewer units of a block cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitCurve {
    /// The block.
    pub block: usize,
    /// What the units are.
    pub kind: UnitKind,
    /// What one unit counts.
    pub unit: PartSize,
    /// Units that stay, from all of them down, and what the loss is expected to rise by, nats a token.
    pub points: Vec<(usize, f64)>,
}

impl UnitCurve {
    /// The points on the lower convex hull, by their numbers: no straight line between two points passes below.
    fn hull(&self) -> Vec<usize> {
        let mut hull: Vec<usize> = Vec::new();
        let slope = |a: usize, b: usize| {
            let ((na, la), (nb, lb)) = (self.points[a], self.points[b]);
            (lb - la) / (na - nb) as f64
        };
        for point in 0..self.points.len() {
            while let [.., a, b] = hull[..] {
                if slope(b, point) > slope(a, b) {
                    break;
                }
                hull.pop();
            }
            hull.push(point);
        }
        hull
    }

    fn loss(&self, keep: usize) -> f64 {
        self.points.iter().find(|(n, _)| *n == keep).map_or(0.0, |(_, loss)| *loss)
    }
}

/// The curves of all blocks, of the dense model's inputs.
fn curves(
    (folder, config): (&Folder, &Config),
    calibration: &Sequences,
    (obs, round): (GroupObs, usize),
    metrics: &OutputMetrics,
    memory: &ActivationMemory,
    see: &mut Steps<'_>,
) -> Result<Vec<UnitCurve>> {
    let all = couplings(folder, config)?;
    if !all.iter().any(|c| c.kind == UnitKind::FeedForward) {
        let reason = "chooses features of feed-forward layers, and experts stand in their place in every block: leave it out";
        return Err(Error::invalid_option("per-layer", reason));
    }
    let mut walk =
        UnitWalk::new((folder, config), (None, false), calibration, UnitMethod::Obs(obs), HiddenStates::default(), memory)?;
    let mut curves = Vec::new();
    for number in 0..config.layers() {
        let mut block = load_block(folder, config, number)?;
        let coupling: Option<&Coupling> = all.iter().find(|c| c.block == Some(number) && c.kind == UnitKind::FeedForward);
        let choose: &mut Choose<'_> = &mut |part, block, inputs| {
            let Some(coupling) = coupling else { return Ok(()) };
            let steps = (((1.0 - LEAST) * coupling.units as f64) as usize / round).min((coupling.units - 1) / round);
            let name = part.names(block).swap_remove(0);
            let layer = block.linears().into_iter().find(|l| l.name() == name);
            let layer = layer.ok_or_else(|| Error::unknown_layer(&name, std::iter::empty()))?;
            let weight = layer.dense_weight().into_owned();
            let found = inputs.sums.found();
            let evidence = Evidence { measured: found.inputs(), ..Evidence::weight_only(&name, &weight) };
            let factor = metrics.of(&evidence, (number, part), None, None)?;
            let mut points = vec![(coupling.units, 0.0)];
            if steps > 0 {
                let width = weight.ncols() / coupling.units;
                let removal = Removal { width, run: coupling.units, keep: coupling.units - steps * round };
                let one = GroupObs { rounds: steps, swaps: 0, ..obs };
                let left = one.remove_by(&evidence, &[removal], Some(&factor))?;
                let tokens = 2.0 * found.inputs().tokens as f64;
                points.extend((1..=steps).zip(&left.steps).map(|(i, loss)| (coupling.units - i * round, loss / tokens)));
            }
            curves.push(UnitCurve { block: number, kind: coupling.kind, unit: of_unit(folder, coupling)?, points });
            Ok(())
        };
        walk.block(&mut block, None, &[Part::Down], choose, None)?;
        Error::go_on(see(number + 1, config.layers()))?;
    }
    Ok(curves)
}

/// The widths of each block that leave at most `allowed` of `whole` numbers with the least sum of expected losses; `measure` says what of a unit counts.
/// Returns of each curve the number of units that stay, and what is left.
fn spread(curves: &[UnitCurve], (whole, allowed): (f64, f64), measure: impl Fn(&UnitCurve) -> f64) -> Result<Vec<usize>> {
    // Of each hull its edges, by what a weight costs there; along a hull they come in order.
    let mut edges: Vec<(f64, usize, usize, usize)> = Vec::new();
    for (number, curve) in curves.iter().enumerate() {
        for pair in curve.hull().windows(2) {
            let ((a, la), (b, lb)) = (curve.points[pair[0]], curve.points[pair[1]]);
            edges.push(((lb - la) / ((a - b) as f64 * measure(curve)).max(f64::MIN_POSITIVE), number, pair[0], pair[1]));
        }
    }
    edges.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut keep: Vec<usize> = curves.iter().map(|c| c.points[0].0).collect();
    let mut left = whole;
    for (_, number, from, to) in edges {
        // The last edge is taken as far as it must be.
        for point in from + 1..=to {
            if left <= allowed {
                return Ok(keep);
            }
            let units = curves[number].points[point].0;
            left -= (keep[number] - units) as f64 * measure(&curves[number]);
            keep[number] = units;
        }
    }
    match left <= allowed {
        true => Ok(keep),
        false => {
            let reason = format!(
                "{allowed} cannot be met: a quarter of the feed-forward features stays in each block and attention as it is, {left} of {whole}; that is \
                 the nearest possible value ({:.4})",
                left / whole
            );
            Err(Error::invalid_option("budget", reason))
        }
    }
}

/// Widths half way between those that were found and one width for all blocks, on the points of the curves: below it, and then up to the budget where most
/// is missing.
fn half_way(
    curves: &[UnitCurve],
    found: &[usize],
    (whole, allowed): (f64, f64),
    measure: impl Fn(&UnitCurve) -> f64,
) -> Vec<usize> {
    let (kept, all) = (found.iter().sum::<usize>(), curves.iter().map(|c| c.points[0].0).sum::<usize>());
    let fraction = kept as f64 / all.max(1) as f64;
    let wanted: Vec<f64> =
        curves.iter().zip(found).map(|(c, found)| 0.5 * (fraction * c.points[0].0 as f64 + *found as f64)).collect();
    let least = |c: &UnitCurve| c.points.len() - 1;
    let mut points: Vec<usize> = curves
        .iter()
        .zip(&wanted)
        .map(|(c, wanted)| c.points.iter().position(|(n, _)| *n as f64 <= wanted + 1e-9).unwrap_or_else(|| least(c)))
        .collect();
    let left = |points: &[usize]| {
        let gone = curves.iter().zip(points).map(|(c, &p)| (c.points[0].0 - c.points[p].0) as f64 * measure(c));
        whole - gone.sum::<f64>()
    };
    loop {
        let missing = |i: usize| wanted[i] - curves[i].points[points[i]].0 as f64;
        let mut order: Vec<usize> = (0..curves.len()).filter(|&i| points[i] > 0).collect();
        order.sort_by(|&a, &b| missing(b).total_cmp(&missing(a)).then(a.cmp(&b)));
        let wider = order.into_iter().find(|&i| {
            let mut more = points.clone();
            more[i] -= 1;
            left(&more) <= allowed
        });
        match wider {
            Some(i) => points[i] -= 1,
            None => return curves.iter().zip(points).map(|(c, p)| c.points[p].0).collect(),
        }
    }
}

/// The widths of each block that meet a budget. `blocks` is how many weights the linear layers of blocks have. `see` is told how many blocks are done.
///
/// # Errors
/// If the budget cannot be met or leaves everything, the model cannot be read or run, or group OBS fails (naming the layer); [`Error::Interrupted`] if
/// `see` stops.
pub fn spread_widths(
    (folder, config): (&Folder, &Config),
    calibration: &Sequences,
    (search, blocks): (&SizeSearch, usize),
    obs: GroupObs,
    metrics: &OutputMetrics,
    memory: &ActivationMemory,
    see: &mut Steps<'_>,
) -> Result<BlockWidths> {
    let search = search.timed((folder, config), &couplings(folder, config)?, see)?;
    let (target, whole) = (search.target, search.whole(blocks));
    let allowed = target.allowed(whole)?;
    let text = calibration.first(calibration.length() * SEQUENCES)?;
    let curves = curves((folder, config), &text, (obs, search.round), metrics, memory, see)?;
    let counts = |curve: &UnitCurve| curve.unit.counted(target, search.decode.unwrap_or_default().feature);
    let found = spread(&curves, (whole, allowed), counts).map_err(|e| match e {
        Error::InvalidOption { reason, .. } => Error::invalid_option(target.option(), reason),
        e => e,
    })?;
    let keep = half_way(&curves, &found, (whole, allowed), counts);
    let mut sizes = vec![ShrinkSizes::default(); config.layers()];
    for (curve, keep) in curves.iter().zip(&keep) {
        sizes[curve.block].intermediate = Some(*keep);
    }
    let widths = sizes.iter().enumerate().map(|(i, s)| s.widths(config.widths(i))).collect::<Result<Vec<Widths>>>()?;
    let expected = curves.iter().zip(&keep).map(|(curve, keep)| curve.loss(*keep)).sum();
    Ok(BlockWidths { target: target.to_string(), widths, expected, curves, tokens: text.ids().len() })
}

#[cfg(test)]
mod tests {
    use super::{PartSize, UnitCurve, half_way, spread};
    use crate::structure::UnitKind;

    fn curve(block: usize, points: &[(usize, f64)]) -> UnitCurve {
        UnitCurve {
            block,
            kind: UnitKind::FeedForward,
            unit: PartSize { weights: 3, numbers: 4, bytes: 8 },
            points: points.to_vec(),
        }
    }

    #[test]
    fn a_hull_has_no_point_above_a_line_between_two_others() {
        let of = |third: f64| curve(0, &[(8, 0.0), (6, 5.0), (4, 6.0), (2, third), (1, 20.0)]).hull();
        assert_eq!(of(10.0), [0, 2, 3, 4]);
        // A point on the line between two others is none of its own.
        assert_eq!(of(9.0), [0, 3, 4]);
        assert_eq!(curve(0, &[(4, 0.0)]).hull(), [0]);
    }

    #[test]
    fn the_spread_is_the_cheapest_of_all_where_curves_are_convex() {
        let convex = |a: f64| (0..5).map(|i| (8 - i, a * (i * i) as f64)).collect::<Vec<_>>();
        let curves = [curve(0, &convex(1.0)), curve(1, &convex(0.3)), curve(2, &convex(2.0))];
        for gone in 1..=12 {
            let keep = spread(&curves, (72.0, 72.0 - 3.0 * gone as f64), |c| c.unit.weights as f64).unwrap();
            let cost = |keep: &[usize]| curves.iter().zip(keep).map(|(c, k)| c.loss(*k)).sum::<f64>();
            assert_eq!(keep.iter().sum::<usize>(), 24 - gone);
            let mut best = f64::INFINITY;
            for a in 4..=8 {
                for b in 4..=8 {
                    for c in 4..=8 {
                        if a + b + c == 24 - gone {
                            best = best.min(cost(&[a, b, c]));
                        }
                    }
                }
            }
            assert!((cost(&keep) - best).abs() < 1e-9, "{gone} gone: {keep:?} costs {}, the best {best}", cost(&keep));
        }
        let line = spread(&curves, (72.0, 30.0), |c| c.unit.weights as f64).unwrap_err().to_string();
        assert!(line.contains("36 of 72"), "{line}");
    }

    #[test]
    fn half_way_lies_between_and_meets_the_budget_as_nearly_as_steps_let_it() {
        let points: Vec<(usize, f64)> = (0..8).map(|i| (16 - 2 * i, i as f64)).collect();
        let curves = [curve(0, &points), curve(1, &points), curve(2, &points)];
        // 24 of 48 stay: 8 of each, or as it was found.
        assert_eq!(half_way(&curves, &[16, 4, 4], (144.0, 72.0), |c| c.unit.weights as f64), [12, 6, 6]);
        let found = half_way(&curves, &[16, 2, 6], (144.0, 72.0), |c| c.unit.weights as f64);
        assert_eq!(found.iter().sum::<usize>(), 24);
        assert!(found[0] == 12 && found[1] >= 4 && found[2] >= 6, "{found:?}");
    }
}
