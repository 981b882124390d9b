//! How far a layer should make up for what earlier ones changed, chosen on text of another kind.
//!
//! [`Retarget`](super::Retarget) fits a weight to the inputs of a calibration; what it makes up for there need not be what goes wrong elsewhere. Of the fractions
//! α (inputs) and β (hidden states) those are taken by which the weight, fitted without a text, comes nearest on that text to the dense model:
//!
//! ```text
//! V(α, β) = W + α A + β B,    A = W (X₀ᵀX − H) (H + λI)⁻¹,   B = (S₀ − S)ᵀX (H + λI)⁻¹      of the texts without h
//! min over α, β of  Σ_h ‖X_h Vᵀ − Y_h‖² / ‖X_h Wᵀ‖²,         Y_h = X₀_h Wᵀ + S₀_h − S_h
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | W, H, X₀ᵀX, (S₀ − S)ᵀX, λ | as [`Retarget`](super::Retarget) has them |
//! | h | a text that is left out: those held out, or each in turn |
//!
//! The sum is quadratic in α and β; it is looked at on a grid. Only products of inputs are needed, no inputs.
//!
//! Departure: what is judged is the weight to be pruned, before it is.
//!
//! Cost: for each text left out a Cholesky factor, `in³ / 3`, and about `8 out · in²` multiplications.

use super::layer::{damped, explain};
use crate::criteria::{Evidence, Measured};
use crate::linalg::solve_spd;
use crate::{Error, Result};
use ndarray::Array2;

/// What was measured of one text, of a layer whose inputs earlier ones have changed.
#[derive(Debug, Clone, Copy)]
pub struct TextProducts<'a> {
    /// Tokens.
    pub tokens: usize,
    /// XᵀX `(in, in)`.
    pub gram: &'a Array2<f64>,
    /// X₀ᵀX `(in, in)`.
    pub crossed: Option<&'a Array2<f64>>,
    /// (S₀ − S)ᵀX `(out, in)`, for layers whose output joins the hidden states.
    pub drift: Option<&'a Array2<f64>>,
    /// Whether the text is only judged by.
    pub held_out: bool,
}

/// Parts of [0, 1] that are looked at.
const PARTS: usize = 20;

/// Sums of two matrices' products, entry by entry.
fn dot(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The quadratic form of α and β, without its constant: [α, β, α², αβ, β²].
type Form = [f64; 5];

/// α in [0, `most.0`] and β in [0, `most.1`] in steps of a twentieth of these; see the module. Of equals the smallest. `damping` is λ as a fraction of the mean
/// diagonal.
///
/// ```
/// use lacuna::criteria::Evidence;
/// use lacuna::solve::{TextProducts, chosen_shares};
/// use ndarray::array;
/// // Earlier layers have halved the input, in both texts: all of it is made up for.
/// let (gram, crossed, w) = (array![[4.]], array![[8.]], array![[3.]]);
/// let text = TextProducts { tokens: 1, gram: &gram, crossed: Some(&crossed), drift: None, held_out: false };
/// let layer = Evidence::weight_only("fc1", &w);
/// assert_eq!(chosen_shares(&layer, &[text, text], (1., 1.), 0.)?, (1., 0.));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidOption`] if there are not two texts, of which one can be left out; [`Error::Shape`] if a product does not fit; if a Gram matrix of the
/// others is not positive definite with this damping.
pub fn chosen_shares(layer: &Evidence<'_>, texts: &[TextProducts<'_>], most: (f64, f64), damping: f64) -> Result<(f64, f64)> {
    let (out, cols) = layer.weight.dim();
    for text in texts {
        let all = [(Some(text.gram), cols), (text.crossed, cols), (text.drift, out)];
        for (product, rows) in all.into_iter().filter_map(|(product, rows)| Some((product?, rows))) {
            if product.dim() != (rows, cols) {
                return Err(Error::shape("products of a text's inputs", &[rows, cols], product.shape()).in_layer(layer.layer));
            }
        }
    }
    let held: Vec<usize> = (0..texts.len()).filter(|g| texts[*g].held_out).collect();
    let folds: Vec<Vec<usize>> = match held.is_empty() {
        true => (0..texts.len()).map(|g| vec![g]).collect(),
        false => vec![held],
    };
    let mut form: Form = [0.0; 5];
    for left_out in &folds {
        let fitted: Vec<&TextProducts<'_>> = (0..texts.len()).filter(|g| !left_out.contains(g)).map(|g| &texts[g]).collect();
        if fitted.is_empty() {
            let reason = format!("{} texts: one is left out, and one is fitted on", texts.len());
            return Err(Error::invalid_option("choose", reason).in_layer(layer.layer));
        }
        let judged: Vec<&TextProducts<'_>> = left_out.iter().map(|&g| &texts[g]).collect();
        let found = fold(layer, &fitted, &judged, damping)?;
        form.iter_mut().zip(found).for_each(|(sum, x)| *sum += x);
    }
    let share = |part: usize, most: f64| most * part as f64 / PARTS as f64;
    let (mut best, mut least) = ((0.0, 0.0), 0.0f64);
    for (i, j) in (0..=PARTS).flat_map(|i| (0..=PARTS).map(move |j| (i, j))) {
        let (a, b) = (share(i, most.0), share(j, most.1));
        let value = form[0] * a + form[1] * b + form[2] * a * a + form[3] * a * b + form[4] * b * b;
        // What rounding alone tells apart is equal.
        if value < least - 1e-12 * least.abs() {
            (best, least) = ((a, b), value);
        }
    }
    Ok(best)
}

/// What texts that were left out make of a weight fitted on the others.
fn fold(layer: &Evidence<'_>, fitted: &[&TextProducts<'_>], judged: &[&TextProducts<'_>], damping: f64) -> Result<Form> {
    let sum =
        |of: &dyn Fn(&TextProducts<'_>) -> Option<Array2<f64>>| fitted.iter().filter_map(|text| of(text)).reduce(|a, b| a + b);
    let measured = Measured {
        tokens: fitted.iter().map(|text| text.tokens).sum(),
        gram: sum(&|text| Some(text.gram.clone())),
        ..Measured::default()
    };
    let evidence = Evidence { measured: &measured, ..*layer };
    let gram = damped("retargeting", &evidence, damping)?.matrix;
    let weight = layer.weight.mapv(f64::from);
    let solved = |right: Array2<f64>| -> Result<Array2<f64>> {
        Ok(solve_spd(&gram, &right.t()).map_err(|e| explain(e, &evidence, damping))?.reversed_axes())
    };
    let of_inputs = sum(&|text| text.crossed.map(|crossed| crossed - text.gram)).map(|change| solved(weight.dot(&change)));
    let of_states = sum(&|text| text.drift.cloned()).map(solved);
    let (a, b) = (of_inputs.transpose()?, of_states.transpose()?);
    let mut form = [0.0; 5];
    for text in judged {
        let given = weight.dot(text.gram);
        let whole = dot(&weight, &given);
        if whole <= 0.0 {
            continue;
        }
        // (Y − X Wᵀ)ᵀ X of the text.
        let mut missing = text.crossed.map_or_else(|| Array2::zeros(weight.dim()), |crossed| weight.dot(crossed) - &given);
        if let Some(drift) = text.drift {
            missing += drift;
        }
        let products = [&a, &b].map(|m| m.as_ref().map(|m| m.dot(text.gram)));
        let [ag, bg] = &products;
        let one = |m: &Option<Array2<f64>>| m.as_ref().map_or(0.0, |m| -2.0 * dot(m, &missing) / whole);
        let two =
            |m: &Option<Array2<f64>>, g: &Option<Array2<f64>>| m.as_ref().zip(g.as_ref()).map_or(0.0, |(m, g)| dot(m, g) / whole);
        let found = [one(&a), one(&b), two(&a, ag), 2.0 * two(&b, ag), two(&b, bg)];
        form.iter_mut().zip(found).for_each(|(sum, x)| *sum += x);
    }
    Ok(form)
}
