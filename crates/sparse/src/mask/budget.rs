//! How many stay, and who competes with whom.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How many units stay of how many: a count, rounded once.
///
/// The units are those of the pattern: weights for unstructured and N:M masks, blocks, rows or columns otherwise
/// (see [`Pattern::units`](crate::mask::Pattern::units)).
///
/// ```
/// use lacuna_sparse::mask::Budget;
/// assert_eq!(Budget::from_sparsity(10, 0.3).unwrap().keep(), 7);
/// assert!(Budget::from_sparsity(10, 1.0).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Budget {
    keep: usize,
    of: usize,
}

/// A budget as files hold it.
#[derive(Deserialize)]
struct Unchecked {
    keep: usize,
    of: usize,
}

impl TryFrom<Unchecked> for Budget {
    type Error = Error;
    fn try_from(b: Unchecked) -> Result<Self> {
        Budget::new(b.keep, b.of)
    }
}

impl Budget {
    /// Keep `keep` of `of`.
    ///
    /// # Errors
    /// If more are to stay than there are.
    pub fn new(keep: usize, of: usize) -> Result<Self> {
        if keep > of {
            return Err(Error::Budget { keep, of, reason: "more are to stay than there are".into() });
        }
        Ok(Budget { keep, of })
    }

    /// Keep all.
    pub fn all(of: usize) -> Self {
        Budget { keep: of, of }
    }

    /// Drop the share `sparsity` of `of`: the number dropped is `of * sparsity`, rounded to the nearest, a half up.
    ///
    /// # Errors
    /// If `sparsity` is not in [0, 1).
    pub fn from_sparsity(of: usize, sparsity: f64) -> Result<Self> {
        check_sparsity(sparsity)?;
        Ok(Budget { keep: of - (of as f64 * sparsity).round() as usize, of })
    }

    /// How many stay.
    pub fn keep(self) -> usize {
        self.keep
    }

    /// Of how many.
    pub fn of(self) -> usize {
        self.of
    }

    /// How many go.
    pub fn drop(self) -> usize {
        self.of - self.keep
    }

    /// Share that goes; 0 of nothing.
    pub fn sparsity(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.drop() as f64 / self.of as f64 }
    }
}

/// Refuses a sparsity outside [0, 1), NaN included.
///
/// # Errors
/// [`Error::InvalidOption`] with the value.
pub(crate) fn check_sparsity(sparsity: f64) -> Result<()> {
    if (0.0..1.0).contains(&sparsity) {
        return Ok(());
    }
    Err(Error::invalid_option("sparsity", format!("{sparsity} is not in [0, 1): 0 keeps all, 0.9 drops nine of ten")))
}

/// Who competes with whom inside one matrix.
///
/// Competition between layers is not a scope: it is an allocation (`lacuna::allocate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All units of the matrix together.
    #[default]
    Layer,
    /// The units of each row apart, as Wanda does: every row keeps the same number. Where the count does not divide by the
    /// rows, the first rows keep one more.
    Row,
}
