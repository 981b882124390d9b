//! How the weights of a block of slices are put into steps.
//!
//! More steps in a phase leave more slots empty, fewer let more weights come too late. A phase takes as many steps as the lane asks for that has
//! most left to do, or the one after the first few, whichever is the cheapest over the block. Tried: steps in proportion to the average of
//! the columns (a tenth more steps for as many late weights).

use super::slots::Slots;
use crate::kernels::{A_WORD, PLACE, SELL_LANES, Value};
use crate::mask::Mask;

/// The bits of a row in the columns of a phase.
fn phase_bits(mask: &Mask, row: usize, phase: usize, lanes: usize) -> u16 {
    let bits = mask.row_words(row)[phase * lanes / 64] >> (phase * lanes % 64);
    bits as u16 & (u16::MAX >> (16 - lanes))
}

/// What one block stores; see [`SellParts`](super::SellParts).
pub(super) struct Block<T> {
    pub steps: Vec<u8>,
    pub places: Vec<u32>,
    pub masks: Vec<u16>,
    /// Of each slice.
    pub values: Vec<Vec<T>>,
    /// Lane, column and value of weights that come too late.
    pub late: Vec<(u8, u32, T)>,
}

impl<T: Value> Block<T> {
    /// The rows of some slices.
    pub fn new(
        mask: &Mask,
        rows: &[u32],
        (lanes, slices): (usize, usize),
        slots: Slots,
        value: impl Fn(usize, usize) -> T,
    ) -> Self {
        let phases = mask.cols().div_ceil(lanes);
        let mut counts = Counts { lanes: rows.len(), counts: vec![0; phases * rows.len()] };
        for (lane, &row) in rows.iter().enumerate() {
            for phase in 0..phases {
                counts.counts[phase * rows.len() + lane] = phase_bits(mask, row as usize, phase, lanes).count_ones() as u8;
            }
        }
        let steps = counts.steps(slices);
        let all: usize = steps.iter().map(|&s| usize::from(s)).sum();
        // The column of each slot, if it has one, step by step and lane by lane.
        let mut columns = vec![u32::MAX; all * slices * lanes];
        let mut late = Vec::new();
        for (lane, &row) in rows.iter().enumerate() {
            let mut left = mask.row_indices(row as usize).peekable();
            let mut step = 0;
            for (phase, &here) in steps.iter().enumerate() {
                for step in step..step + usize::from(here) {
                    if let Some(column) = left.next_if(|&c| c < (phase + 2) * lanes) {
                        columns[step * slices * lanes + lane] = column as u32;
                    }
                }
                step += usize::from(here);
                while let Some(column) = left.next_if(|&c| c < (phase + 1) * lanes) {
                    late.push((lane as u8, column as u32, value(row as usize, column)));
                }
            }
        }
        let mut block = Block {
            steps,
            places: vec![0; all.div_ceil(A_WORD) * slices * lanes],
            masks: vec![0; all * slices],
            values: vec![Vec::with_capacity(all * lanes); slices],
            late,
        };
        let mut step = 0;
        for phase in 0..phases {
            for _ in 0..block.steps[phase] {
                for (lane, &column) in columns[step * slices * lanes..(step + 1) * slices * lanes].iter().enumerate() {
                    let values = &mut block.values[lane / lanes];
                    if column < u32::MAX {
                        block.masks[step * slices + lane / lanes] |= 1 << (lane % lanes);
                        let place = column - (phase * lanes) as u32;
                        block.places[step / A_WORD * slices * lanes + lane] |= place << (PLACE * (step % A_WORD));
                        values.push(value(rows[lane] as usize, column as usize));
                    } else if slots == Slots::Padded {
                        values.push(T::default());
                    }
                }
                step += 1;
            }
        }
        block
    }
}

/// Weights of each lane of a block in the columns of each phase, `(phases, lanes)`.
struct Counts {
    lanes: usize,
    counts: Vec<u8>,
}

/// Lanes whose demand is passed over that are tried: what they then miss comes too late.
const PASSED_OVER: [usize; 4] = [0, 1, 2, 4];
/// Steps of a slice that cost as much as a weight that comes too late.
const LATE: usize = 2;

impl Counts {
    /// The cheapest steps that were found, for slices together.
    fn steps(&self, slices: usize) -> Vec<u8> {
        let mut best = (usize::MAX, Vec::new());
        for passed_over in PASSED_OVER {
            let (steps, late) = self.passing_over(passed_over);
            let all: usize = steps.iter().map(|&s| usize::from(s)).sum();
            let cost = slices * all + LATE * late;
            if cost < best.0 {
                best = (cost, steps);
            }
        }
        best.1
    }

    /// The steps of each phase if all lanes but so many are to have what they need, and the weights that come too late.
    fn passing_over(&self, lanes: usize) -> (Vec<u8>, usize) {
        let (mut early, mut late) = ([0u8; SELL_LANES], 0);
        let mut steps = Vec::new();
        let mut phases = self.counts.chunks_exact(self.lanes.max(1)).peekable();
        while let Some(here) = phases.next() {
            let next = phases.peek().copied().unwrap_or(&NONE[..here.len()]);
            // How many lanes have so many weights left that go by now.
            let mut having = [0u8; MOST + 1];
            for (here, early) in here.iter().zip(&early) {
                having[usize::from(here - early)] += 1;
            }
            let mut left = lanes;
            let most = (0..=MOST).rev().find(|&due| {
                let enough = usize::from(having[due]) > left;
                left = left.saturating_sub(usize::from(having[due]));
                enough
            });
            let taken = most.unwrap_or(0) as u8;
            for lane in 0..here.len() {
                let due = here[lane] - early[lane];
                late += usize::from(due.saturating_sub(taken));
                early[lane] = taken.saturating_sub(due).min(next[lane]);
            }
            steps.push(taken);
        }
        (steps, late)
    }
}

/// Weights of a lane in a phase, at most.
const MOST: usize = 16;
/// Counts of lanes where nothing is left.
static NONE: [u8; SELL_LANES] = [0; SELL_LANES];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lanes_take_as_many_steps_as_they_have_weights() {
        let counts = Counts { lanes: 16, counts: vec![8; 3 * 16] };
        assert_eq!(counts.steps(1), [8, 8, 8]);
    }

    #[test]
    fn enough_steps_leave_nothing_late_and_one_lane_passed_over_saves_steps() {
        let mut state = 1u32;
        let mut count = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) % 9) as u8
        };
        for phases in [2, 7, 40] {
            let counts = Counts { lanes: 13, counts: (0..13 * phases).map(|_| count()).collect() };
            let all = |steps: &[u8]| steps.iter().map(|&s| usize::from(s)).sum::<usize>();
            let ((enough, none), (fewer, late)) = (counts.passing_over(0), counts.passing_over(1));
            assert_eq!(none, 0, "{phases} phases");
            assert!(late > 0 && all(&fewer) < all(&enough), "{phases} phases");
        }
    }

    #[test]
    fn a_lane_that_has_time_takes_what_the_window_shows_next() {
        // The first lane asks for three steps; the second takes two weights of the next phase meanwhile, and needs one more there.
        let counts = Counts { lanes: 2, counts: vec![3, 1, 0, 3] };
        assert_eq!(counts.passing_over(0), (vec![3, 1], 0));
        // Without the first lane, one step is enough at first.
        assert_eq!(counts.passing_over(1), (vec![1, 0], 2 + 3));
    }
}
