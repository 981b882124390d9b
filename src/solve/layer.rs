//! The trait, and what all pruners do first: check the layer, damp its Gram matrix, say what is wrong with it.

use crate::criteria::{Evidence, Needs};
use crate::mask::{Budget, Mask, Pattern, Scope, check_finite};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;
use std::borrow::Cow;

/// A layer after pruning.
#[derive(Debug, Clone, PartialEq)]
pub struct Pruned {
    /// Which weights stay.
    pub mask: Mask,
    /// `(out, in)`, 0 wherever the mask drops.
    pub weight: Array2<f32>,
    /// ‖X (Ŵ − W)ᵀ‖², summed over tokens and outputs, without damping; `None` where no Gram matrix was measured.
    pub loss: Option<f64>,
}

impl Pruned {
    /// Refuses a result of another shape than the layer's `(out, in)`.
    ///
    /// # Errors
    /// [`Error::Shape`], naming the layer.
    pub fn check(&self, layer: &str, (rows, cols): (usize, usize)) -> Result<()> {
        for (what, found) in [("mask", self.mask.dim()), ("pruned weight", self.weight.dim())] {
            if found != (rows, cols) {
                return Err(Error::shape(what, &[rows, cols], &[found.0, found.1]).in_layer(layer));
            }
        }
        Ok(())
    }

    /// Holds what a pruner gave to what it was asked for, whoever wrote the pruner: the layer's shape, the pattern, exactly the budget (no more
    /// than it, where the layer's own mask has left fewer), nothing kept that this mask dropped, 0 wherever the mask drops, finite numbers, a loss of at least 0.
    ///
    /// ```
    /// use lacuna::criteria::Evidence;
    /// use lacuna::mask::{Budget, Mask, Pattern};
    /// use lacuna::solve::Pruned;
    /// use ndarray::array;
    /// let w = array![[1., 2.]];
    /// let all = Pruned { mask: Mask::full(1, 2), weight: w.clone(), loss: None };
    /// let wrong = all.fulfils(&Evidence::weight_only("fc1", &w), Pattern::Unstructured, Budget::new(1, 2)?).unwrap_err();
    /// assert_eq!(wrong.to_string(), "layer fc1: budget: cannot keep 1 of 2: the pruner kept 2");
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first of these that is not so, naming the layer.
    pub fn fulfils(&self, layer: &Evidence<'_>, pattern: Pattern, budget: Budget) -> Result<()> {
        self.check(layer.layer, layer.weight.dim())?;
        if self.weight.is_empty() {
            return Ok(());
        }
        self.fulfils_within(layer.mask, pattern, budget).map_err(|e| e.in_layer(layer.layer))
    }

    fn fulfils_within(&self, old: Option<&Mask>, pattern: Pattern, budget: Budget) -> Result<()> {
        let (rows, cols) = self.mask.dim();
        if let Some(old) = old.filter(|old| old.dim() != (rows, cols)) {
            return Err(Error::shape("older mask", &[rows, cols], &[old.rows(), old.cols()]));
        }
        check_finite(&self.weight, "weights after pruning")?;
        let wrong =
            |row: usize, col: usize, what: &str| Err(Error::invalid_option("pruner", format!("row {row}, column {col} {what}")));
        if let Some((row, col)) = old.and_then(|old| self.mask.minus(old).iter_kept().next()) {
            return wrong(row, col, "was dropped before, and is kept again");
        }
        if self.mask.dropped_nonzeros(&self.weight) > 0 {
            let dropped = |&((row, col), w): &((usize, usize), &f32)| *w != 0.0 && !self.mask.get(row, col);
            let ((row, col), w) = self.weight.indexed_iter().find(dropped).unwrap_or(((0, 0), &0.0));
            return wrong(row, col, &format!("holds {w}, and the mask drops it"));
        }
        if let Some(loss) = self.loss.filter(|loss| !(loss.is_finite() && *loss >= 0.0)) {
            let reason = format!("the pruner says {loss}, which is no finite number of at least 0");
            return Err(Error::Numerical { what: "loss".into(), reason });
        }
        // With what an older mask dropped put back into units of which something is kept, the mask must be one of the pattern.
        let (r, c) = pattern.unit(rows, cols);
        let single = (r, c) == (1, 1);
        let counts = |mask: &Mask| mask.block_counts(r, c);
        let whole = match old.filter(|_| !single) {
            Some(old) => {
                let kept = counts(&self.mask);
                Cow::Owned(Mask::from_fn(rows, cols, |row, col| {
                    self.mask.get(row, col) || (kept[[row / r, col / c]] > 0 && !old.get(row, col))
                }))
            }
            None => Cow::Borrowed(&self.mask),
        };
        match (pattern, old) {
            (Pattern::Nm { n, m }, Some(_)) => {
                pattern.check_shape(rows, cols)?;
                if let Some(((row, group), kept)) = self.mask.block_counts(1, m).indexed_iter().find(|(_, kept)| **kept > n) {
                    let place = format!("row {row}, columns {}..{}", group * m, (group + 1) * m);
                    return Err(Error::Violation { pattern: pattern.to_string(), place, found: format!("keep {kept}, not {n}") });
                }
            }
            _ => pattern.check(&whole)?,
        }
        let kept = if single { self.mask.kept() } else { counts(&self.mask).iter().filter(|kept| **kept > 0).count() };
        if kept > budget.keep() || (kept < budget.keep() && old.is_none()) {
            let reason = format!("the pruner kept {kept}");
            return Err(Error::Budget { keep: budget.keep(), of: budget.of(), reason });
        }
        Ok(())
    }
}

/// Chooses the mask of one layer, and the weights that survive under it.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured};
/// use lacuna::mask::{Budget, Pattern, Scope};
/// use lacuna::solve::{Pruner, SparseGpt};
/// use ndarray::array;
/// // Two inputs that are always equal: what one loses the other takes over.
/// let measured = Measured { tokens: 4, gram: Some(array![[4., 4.], [4., 4.]]), ..Measured::default() };
/// let w = array![[1., 2.]];
/// let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) };
/// let pruner = SparseGpt { damping: 1e-6, ..SparseGpt::default() };
/// let pruned = pruner.prune(&layer, Pattern::Unstructured, Scope::Layer, Budget::new(1, 2)?)?;
/// assert!((pruned.weight[[0, 1]] - 3.).abs() < 1e-4 && pruned.weight[[0, 0]] == 0.);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[auto_impl::auto_impl(&, Box)]
pub trait Pruner: Send + Sync + std::fmt::Debug {
    /// The name users know, lower case: `sparsegpt`.
    fn name(&self) -> &str;

    /// What must be measured before a layer can be pruned.
    fn needs(&self) -> Needs;

    /// The layer with exactly `budget` units of `pattern` kept, or fewer where the layer's own mask has left fewer: what that
    /// mask dropped stays dropped.
    ///
    /// # Errors
    /// If something that [`Pruner::needs`] names was not measured or does not fit, weights or measures are not finite, the Gram
    /// matrix is not positive definite with the damping given, or pattern, scope and budget do not fit the layer or the method.
    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned>;
}

/// ‖X (a − b)ᵀ‖²_F of two weights `(out, in)` from the Gram matrix XᵀX `(in, in)` of their inputs, in f64.
///
/// The same bits for any number of threads. NaN where a weight or the matrix is.
///
/// # Panics
/// If the shapes do not agree.
pub fn squared_error(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, gram: &ArrayRef2<f64>) -> f64 {
    assert!(a.dim() == b.dim() && gram.dim() == (a.ncols(), a.ncols()), "{:?}, {:?} and {:?}", a.dim(), b.dim(), gram.dim());
    const ROWS: usize = 64;
    let part = |(a, b): (ndarray::ArrayView2<'_, f32>, ndarray::ArrayView2<'_, f32>)| {
        let d = Array2::from_shape_fn(a.dim(), |at| f64::from(a[at]) - f64::from(b[at]));
        (d.dot(gram) * &d).sum()
    };
    let parts: Vec<f64> =
        a.axis_chunks_iter(Axis(0), ROWS).into_par_iter().zip(b.axis_chunks_iter(Axis(0), ROWS)).map(part).collect();
    let sum = parts.iter().sum::<f64>();
    // Rounding may leave it a little below 0; NaN stays NaN.
    if sum < 0.0 { 0.0 } else { sum }
}

/// Refuses what does not fit together, and returns the weight with what was dropped before set to 0.
pub(super) fn checked_weight(layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Array2<f32>> {
    let (rows, cols) = layer.weight.dim();
    let units = pattern.units(rows, cols)?;
    pattern.check_scope(scope)?;
    let wrong = |reason: String| Err(Error::Budget { keep: budget.keep(), of: budget.of(), reason });
    if budget.of() != units {
        return wrong(format!("a {rows} x {cols} matrix has {units} units of pattern {pattern}"));
    }
    if let Pattern::Nm { n, m } = pattern
        && budget.keep() != units / m * n
    {
        return wrong(format!("pattern {pattern} keeps exactly {}", units / m * n));
    }
    if let Some(mask) = layer.mask
        && mask.dim() != (rows, cols)
    {
        let found = [mask.rows(), mask.cols()];
        return Err(Error::shape("mask", &[rows, cols], &found).in_layer(layer.layer));
    }
    check_finite(&layer.weight, "weights")?;
    let mut weight = layer.weight.as_standard_layout().into_owned();
    if let Some(mask) = layer.mask {
        mask.apply(&mut weight);
    }
    Ok(weight)
}

/// A Gram matrix that can be factored.
pub(super) struct Damped {
    /// `(in, in)`, with the damping on its diagonal, and 1 on that of dead inputs.
    pub matrix: Array2<f64>,
    /// Inputs that were 0 for every token.
    pub dead: Vec<bool>,
}

/// The Gram matrix of a layer with `damping · mean diagonal` added to its diagonal, as [`damped_diagonal`] does it.
pub(super) fn damped(method: &str, layer: &Evidence<'_>, damping: f64) -> Result<Damped> {
    let gram = layer.gram(method)?;
    let (diagonal, dead) = damped_diagonal(layer, gram, damping)?;
    let mut matrix = gram.clone();
    matrix.diag_mut().assign(&ndarray::ArrayView1::from(&diagonal));
    Ok(Damped { matrix, dead })
}

/// The diagonal of the Gram matrix `gram` of a layer with `damping · mean diagonal` added, and which inputs were always 0.
///
/// Such an input is dead: its weights matter to nothing, its row and column of the matrix are 0, and its diagonal
/// becomes 1 before damping. The mean counts it as 0.
pub(super) fn damped_diagonal(layer: &Evidence<'_>, gram: &Array2<f64>, damping: f64) -> Result<(Vec<f64>, Vec<bool>)> {
    if !(damping.is_finite() && damping >= 0.0) {
        return Err(Error::invalid_option("damping", format!("{damping} is not a finite number of at least 0; 0.01 is usual")));
    }
    let diagonal = gram.diag().to_vec();
    let n = diagonal.len();
    if let Some(col) = diagonal.iter().position(|d| *d < 0.0) {
        let hint = format!("its diagonal there is {}, and sums of squares are not negative", diagonal[col]);
        return Err(Error::NotPositiveDefinite { what: "Gram matrix".into(), order: n, column: col, hint });
    }
    let dead: Vec<bool> = diagonal.iter().map(|d| *d == 0.0).collect();
    if dead.iter().all(|d| *d) {
        let reason = format!("all {n} inputs are 0 in all {} tokens; calibrate with other data", layer.measured.tokens);
        return Err(Error::Numerical { what: "Gram matrix".into(), reason });
    }
    let damp = damping * ndarray::ArrayView1::from(&diagonal).sum() / n as f64;
    let damped = diagonal.iter().zip(&dead).map(|(d, dead)| if *dead { 1.0 + damp } else { d + damp }).collect();
    Ok((damped, dead))
}

/// Says of a factorisation that failed which layer it was of, and what would help.
pub(super) fn explain(error: Error, layer: &Evidence<'_>, damping: f64) -> Error {
    let Error::NotPositiveDefinite { order, column, .. } = error else { return error };
    let tokens = layer.measured.tokens;
    let few = if tokens < order { format!("at least {order} tokens, or ") } else { String::new() };
    let hint =
        format!("{tokens} tokens, damping {damping} of the mean diagonal: give {few}a damping above {}", damping.max(1e-3));
    Error::NotPositiveDefinite { what: "Gram matrix".into(), order, column, hint }.in_layer(layer.layer)
}

/// The result of a pruner, with its error measured.
pub(super) fn finish(layer: &Evidence<'_>, mask: Mask, mut weight: Array2<f32>) -> Result<Pruned> {
    mask.apply(&mut weight);
    check_finite(&weight, "weights after pruning")?;
    let loss = layer.measured.gram.as_ref().map(|g| squared_error(&weight, &layer.weight, g));
    Ok(Pruned { mask, weight, loss })
}
