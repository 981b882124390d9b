//! The shape that survivors take, and the check that a mask has it.

use crate::mask::{Budget, Mask, Scope};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The shape that the surviving weights of one `(out, in)` matrix take.
///
/// Written and read as `unstructured`, `2:4`, `block16x1`, `rows`, `cols`.
///
/// ```
/// use lacuna_sparse::mask::{Mask, Pattern};
/// let p: Pattern = "2:4".parse().unwrap();
/// let mask = Mask::from_fn(1, 8, |_, c| c < 3 || c == 7);
/// assert_eq!(p.check(&mask).unwrap_err().to_string(), "mask is not 2:4: row 0, columns 0..4 keep 3, not 2");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Pattern {
    /// Any weight may go.
    #[default]
    Unstructured,
    /// Exactly `n` of every `m` consecutive inputs of a row are **kept**. `m` must divide the row.
    Nm {
        /// How many stay.
        n: usize,
        /// Of how many consecutive inputs.
        m: usize,
    },
    /// Blocks of `rows x cols` stay or go whole, counted from the upper left corner; the blocks at the lower and right edge
    /// may be smaller and are units like the others.
    Block {
        /// Outputs that a block spans.
        rows: usize,
        /// Inputs that a block spans.
        cols: usize,
    },
    /// Whole rows (output units) stay or go.
    Rows,
    /// Whole columns (inputs) stay or go.
    Cols,
}

impl Pattern {
    /// Number of units that are kept or dropped one by one in a matrix of this shape: weights for unstructured and N:M.
    ///
    /// # Errors
    /// As [`Pattern::check_shape`].
    pub fn units(self, rows: usize, cols: usize) -> Result<usize> {
        self.check_shape(rows, cols)?;
        let (r, c) = self.grid(rows, cols);
        Ok(r * c)
    }

    /// The budget, in units of this pattern, that drops the share `sparsity` of a matrix of this shape. An N:M pattern has
    /// one budget only, whatever the sparsity.
    ///
    /// # Errors
    /// As [`Pattern::check_shape`], and if `sparsity` is not in [0, 1).
    pub fn budget(self, rows: usize, cols: usize, sparsity: f64) -> Result<Budget> {
        let units = self.units(rows, cols)?;
        match self {
            Pattern::Nm { n, m } => Budget::new(units / m * n, units),
            _ => Budget::from_sparsity(units, sparsity),
        }
    }

    /// Rows and columns of the grid of units.
    pub fn grid(self, rows: usize, cols: usize) -> (usize, usize) {
        match self {
            Pattern::Unstructured | Pattern::Nm { .. } => (rows, cols),
            Pattern::Block { rows: r, cols: c } => (rows.div_ceil(r), cols.div_ceil(c)),
            Pattern::Rows => (rows, 1),
            Pattern::Cols => (1, cols),
        }
    }

    /// Rows and columns of one unit in a matrix of this shape.
    pub fn unit(self, rows: usize, cols: usize) -> (usize, usize) {
        match self {
            Pattern::Unstructured | Pattern::Nm { .. } => (1, 1),
            Pattern::Block { rows, cols } => (rows, cols),
            Pattern::Rows => (1, cols),
            Pattern::Cols => (rows, 1),
        }
    }

    /// Whether this pattern can be laid over a matrix of this shape.
    ///
    /// # Errors
    /// If the matrix has no rows or no columns, `n` is 0, `n > m`, `m` does not divide the row, or a block has no rows or columns.
    pub fn check_shape(self, rows: usize, cols: usize) -> Result<()> {
        let refuse = |reason: String| Err(Error::Pattern { pattern: self.to_string(), rows, cols, reason });
        if rows == 0 || cols == 0 {
            return refuse("it has no weights".into());
        }
        match self {
            Pattern::Nm { n, m } if n == 0 || n > m => refuse(format!("N:M keeps N of every M, and {n} of {m} is impossible")),
            Pattern::Nm { m, .. } if cols % m != 0 => refuse(format!("{m} does not divide the {cols} inputs of a row")),
            Pattern::Block { rows: r, cols: c } if r == 0 || c == 0 => refuse("a block has rows and columns".into()),
            _ => Ok(()),
        }
    }

    /// Whether units of this pattern can compete within `scope`.
    ///
    /// # Errors
    /// For whole rows or columns in row scope, which leaves nothing to choose.
    pub fn check_scope(self, scope: Scope) -> Result<()> {
        match (self, scope) {
            (Pattern::Rows | Pattern::Cols, Scope::Row) => {
                Err(Error::invalid_option("scope", format!("pattern {self} cannot be chosen row by row; use the layer scope")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a mask has this pattern.
    ///
    /// # Errors
    /// [`Error::Violation`] names the first place, row by row, where it has not; shape errors as [`Pattern::check_shape`].
    pub fn check(self, mask: &Mask) -> Result<()> {
        let (rows, cols) = mask.dim();
        self.check_shape(rows, cols)?;
        let violation = |place: String, found: String| Err(Error::Violation { pattern: self.to_string(), place, found });
        match self {
            Pattern::Unstructured => {}
            Pattern::Nm { n, m } => {
                if let Some((r, g, kept)) = first_unit(mask, (1, m), |_, _, kept| kept != n) {
                    return violation(format!("row {r}, columns {}..{}", g * m, (g + 1) * m), format!("keep {kept}, not {n}"));
                }
            }
            Pattern::Block { .. } | Pattern::Rows | Pattern::Cols => {
                let (ur, uc) = self.unit(rows, cols);
                let unit = |i: usize, j: usize| {
                    let (top, left) = (i * ur, j * uc);
                    (top..(top + ur).min(rows), left..(left + uc).min(cols))
                };
                let size = |i: usize, j: usize| unit(i, j).0.len() * unit(i, j).1.len();
                if let Some((i, j, kept)) = first_unit(mask, (ur, uc), |i, j, kept| kept != 0 && kept != size(i, j)) {
                    let (rows, cols) = unit(i, j);
                    return violation(format!("rows {rows:?}, columns {cols:?}"), format!("keep {kept} of {}", size(i, j)));
                }
            }
        }
        Ok(())
    }
}

/// The first unit of `rows x cols` of a mask whose place and count are wrong, line by line of units, and its count. One line is counted at
/// a time, so that small units of a large weight take no memory of it.
fn first_unit(
    mask: &Mask,
    (rows, cols): (usize, usize),
    wrong: impl Fn(usize, usize, usize) -> bool,
) -> Option<(usize, usize, usize)> {
    let mut counts = vec![0; mask.cols().div_ceil(cols)];
    (0..mask.rows()).step_by(rows).enumerate().find_map(|(i, top)| {
        counts.fill(0);
        for r in top..(top + rows).min(mask.rows()) {
            mask.row_indices(r).for_each(|c| counts[c / cols] += 1);
        }
        counts.iter().enumerate().find(|&(j, &kept)| wrong(i, j, kept)).map(|(j, &kept)| (i, j, kept))
    })
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Unstructured => f.write_str("unstructured"),
            Pattern::Nm { n, m } => write!(f, "{n}:{m}"),
            Pattern::Block { rows, cols } => write!(f, "block{rows}x{cols}"),
            Pattern::Rows => f.write_str("rows"),
            Pattern::Cols => f.write_str("cols"),
        }
    }
}

impl From<Pattern> for String {
    fn from(p: Pattern) -> String {
        p.to_string()
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl FromStr for Pattern {
    type Err = Error;

    /// Reads what `Display` writes.
    ///
    /// # Errors
    /// If the text is no pattern, or one that no matrix can have (`5:4`, `0:4`, `block0x4`).
    fn from_str(s: &str) -> Result<Self> {
        let pair = |text: &str, sep: char| -> Option<(usize, usize)> {
            let (a, b) = text.split_once(sep)?;
            Some((a.parse().ok()?, b.parse().ok()?))
        };
        let refuse = |reason: String| Err(Error::invalid_option("pattern", reason));
        match s {
            "unstructured" => Ok(Pattern::Unstructured),
            "rows" => Ok(Pattern::Rows),
            "cols" => Ok(Pattern::Cols),
            _ => match (s.strip_prefix("block").and_then(|t| pair(t, 'x')), pair(s, ':')) {
                (Some((rows, cols)), _) if rows > 0 && cols > 0 => Ok(Pattern::Block { rows, cols }),
                (Some(_), _) => refuse(format!("'{s}': a block has rows and columns")),
                (_, Some((n, m))) if n > 0 && n <= m => Ok(Pattern::Nm { n, m }),
                (_, Some(_)) => refuse(format!("'{s}' keeps N of every M, so 1 <= N <= M")),
                _ => refuse(format!("'{s}' is none of unstructured, N:M (as 2:4), blockRxC (as block16x1), rows, cols")),
            },
        }
    }
}
