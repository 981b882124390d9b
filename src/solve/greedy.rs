//! Removing weights one after another from rows that share a mask, each time the cheapest.
//!
//! ```text
//! columns still there, in any order:   position   0   1   2  …
//!     cols      their columns
//!     w         the rows' weights
//!     diagonal  of the current inverse:  [H⁻¹]_jj − Σ_t l_t[j]²
//!     l_t       one vector for each column that went; the current inverse is  H⁻¹ − Σ_t l_t l_tᵀ
//! ```
//!
//! A column that goes changes places with the last one, in all of them, and they become shorter.

use ndarray::{Array2, ArrayRef2};

/// What goes together, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    /// Neighbouring columns that go together; divides the number of columns.
    pub unit: usize,
    /// Of every m neighbouring columns n stay.
    pub nm: Option<(usize, usize)>,
}

/// The state of one band of rows.
pub(super) struct Greedy<'a> {
    inverse: &'a Array2<f64>,
    groups: Groups,
    /// Columns that are still there; those of a unit stand side by side.
    cols: Vec<usize>,
    diagonal: Vec<f64>,
    /// One vector a row.
    w: Vec<Vec<f64>>,
    taken: Vec<Vec<f64>>,
    /// Of each unit still there its block of the current inverse, `unit²` numbers; not used where units are single columns.
    blocks: Vec<Vec<f64>>,
    /// How many columns of each group of m are gone.
    missing: Vec<usize>,
    column: Vec<f64>,
}

impl<'a> Greedy<'a> {
    /// Nothing removed yet. `rows` is `(rows, in)`, `inverse` is H⁻¹ `(in, in)`.
    pub fn new(rows: &ArrayRef2<f32>, inverse: &'a Array2<f64>, groups: Groups) -> Self {
        let n = rows.ncols();
        let k = groups.unit;
        let block = |u: usize| (0..k * k).map(|i| inverse[[u * k + i / k, u * k + i % k]]).collect();
        Greedy {
            inverse,
            groups,
            cols: (0..n).collect(),
            diagonal: inverse.diag().to_vec(),
            w: rows.rows().into_iter().map(|r| r.iter().map(|&w| f64::from(w)).collect()).collect(),
            taken: Vec::new(),
            blocks: if k == 1 { vec![] } else { (0..n / k).map(block).collect() },
            missing: groups.nm.map_or(vec![], |(_, m)| vec![0; n / m]),
            column: vec![0.0; n],
        }
    }

    /// Whether a unit may still go.
    pub fn can_step(&self) -> bool {
        (0..self.cols.len() / self.groups.unit).any(|slot| self.may_go(slot))
    }

    fn may_go(&self, slot: usize) -> bool {
        self.groups.nm.is_none_or(|(n, m)| self.missing[self.cols[slot * self.groups.unit] / m] < m - n)
    }

    /// Removes the cheapest unit: its number, and the increase of the loss. `None` if none may go, rounding has broken the inverse, or an
    /// increase is too large for a number.
    pub fn step(&mut self) -> Option<(usize, f64)> {
        let k = self.groups.unit;
        let mut best: Option<(usize, f64)> = None;
        for slot in (0..self.cols.len() / k).filter(|&s| self.may_go(s)) {
            let score = self.score(slot).filter(|s| s.is_finite())?;
            // Of equals the lowest column, wherever it stands.
            if best.is_none_or(|(b, s)| score < s || (score == s && self.cols[slot * k] < self.cols[b * k])) {
                best = Some((slot, score));
            }
        }
        let (slot, _) = best?;
        let unit = self.cols[slot * k] / k;
        Some((unit, self.take(slot)?))
    }

    /// Removes one unit by its number: the increase of the loss.
    pub fn remove(&mut self, unit: usize) -> Option<f64> {
        let k = self.groups.unit;
        let slot = (0..self.cols.len() / k).find(|&s| self.cols[s * k] == unit * k)?;
        self.take(slot)
    }

    /// The rows as they are now `(rows, in)`, 0 where columns are gone.
    pub fn weights(&self) -> Array2<f64> {
        let mut out = Array2::zeros((self.w.len(), self.inverse.nrows()));
        for (r, w) in self.w.iter().enumerate() {
            self.cols.iter().zip(w).for_each(|(&c, &v)| out[[r, c]] = v);
        }
        out
    }

    /// The increase of the loss if the unit in this place goes.
    fn score(&self, slot: usize) -> Option<f64> {
        let k = self.groups.unit;
        if k == 1 {
            let d = self.diagonal[slot];
            return (d > 0.0).then(|| self.w.iter().map(|w| w[slot] * w[slot]).sum::<f64>() / d);
        }
        // w B⁻¹ wᵀ by the Cholesky factor of the block B: the squares of L⁻¹ wᵀ.
        let mut l = self.blocks[slot].clone();
        for j in 0..k {
            let pivot = l[j * k + j] - (0..j).map(|t| l[j * k + t] * l[j * k + t]).sum::<f64>();
            // NaN is not positive either.
            if pivot.is_nan() || pivot <= 0.0 {
                return None;
            }
            l[j * k + j] = pivot.sqrt();
            for i in j + 1..k {
                let rest = l[i * k + j] - (0..j).map(|t| l[i * k + t] * l[j * k + t]).sum::<f64>();
                l[i * k + j] = rest / l[j * k + j];
            }
        }
        let mut total = 0.0;
        let mut y = vec![0.0; k];
        for w in &self.w {
            for i in 0..k {
                y[i] = (w[slot * k + i] - (0..i).map(|t| l[i * k + t] * y[t]).sum::<f64>()) / l[i * k + i];
                total += y[i] * y[i];
            }
        }
        Some(total)
    }

    /// Removes the unit in this place, column by column from its last.
    fn take(&mut self, slot: usize) -> Option<f64> {
        let k = self.groups.unit;
        let mut loss = 0.0;
        for at in (slot * k..(slot + 1) * k).rev() {
            loss += self.eliminate(at)?;
        }
        // The last unit comes into its place.
        let last = self.cols.len() / k - 1;
        for i in 0..k {
            let (to, from) = (slot * k + i, last * k + i);
            if let Some((_, m)) = self.groups.nm {
                self.missing[self.cols[to] / m] += 1;
            }
            self.cols.swap(to, from);
            self.diagonal.swap(to, from);
            self.w.iter_mut().for_each(|w| w.swap(to, from));
            self.taken.iter_mut().for_each(|l| l.swap(to, from));
        }
        let left = last * k;
        self.cols.truncate(left);
        self.diagonal.truncate(left);
        self.w.iter_mut().for_each(|w| w.truncate(left));
        self.taken.iter_mut().for_each(|l| l.truncate(left));
        if k > 1 {
            self.blocks.swap(slot, last);
            self.blocks.truncate(last);
        }
        loss.is_finite().then_some(loss)
    }

    /// One step of elimination at position `at`; the column stays in its place, with weight 0 and nothing left in the inverse.
    fn eliminate(&mut self, at: usize) -> Option<f64> {
        let (n, k) = (self.cols.len(), self.groups.unit);
        let row = self.inverse.row(self.cols[at]);
        let column = &mut self.column[..n];
        column.iter_mut().zip(&self.cols).for_each(|(v, &c)| *v = row[c]);
        let mut quads = self.taken.chunks_exact(4);
        for quad in &mut quads {
            let [a, b, c, d] = [&quad[0][..n], &quad[1][..n], &quad[2][..n], &quad[3][..n]];
            let (fa, fb, fc, fd) = (a[at], b[at], c[at], d[at]);
            for (j, v) in column.iter_mut().enumerate() {
                *v -= fa * a[j] + fb * b[j] + fc * c[j] + fd * d[j];
            }
        }
        for l in quads.remainder() {
            let factor = l[at];
            column.iter_mut().zip(l).for_each(|(v, l)| *v -= factor * l);
        }
        let d = column[at];
        if d.is_nan() || d <= 0.0 {
            return None;
        }
        let mut loss = 0.0;
        for w in &mut self.w {
            let factor = w[at] / d;
            loss += factor * w[at];
            w.iter_mut().zip(column.iter()).for_each(|(w, v)| *w -= factor * v);
            w[at] = 0.0;
        }
        let root = d.sqrt();
        let taken: Vec<f64> = column.iter().map(|v| v / root).collect();
        self.diagonal.iter_mut().zip(&taken).for_each(|(d, l)| *d -= l * l);
        for (slot, block) in self.blocks.iter_mut().enumerate() {
            let l = &taken[slot * k..(slot + 1) * k];
            (0..k * k).for_each(|i| block[i] -= l[i / k] * l[i % k]);
        }
        self.taken.push(taken);
        Some(loss)
    }
}
