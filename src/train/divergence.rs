//! How far a student's next-token distribution is from a teacher's, row by row of logits, with the slope.
//!
//! Forward KL: Hinton, Vinyals, Dean 2015, arXiv:1503.02531. Reverse KL: Gu et al. *MiniLLM.* ICLR 2024, arXiv:2306.08543. Jensen-Shannon:
//! Agarwal et al. *On-policy distillation of language models (GKD).* ICLR 2024, arXiv:2306.13649, with β = ½ and on given texts. Margin: Belcak
//! et al. *Minifinetuning: low-data generation domain adaptation through corrective self-distillation.* 2025, arXiv:2506.15702.
//!
//! ```text
//! p = softmax(v / τ)   q = softmax(z / τ)                                v of the teacher, z of the student
//! forward   KL(p ‖ q) = Σ p (ln p − ln q)                                ∂/∂z = (q − p) / τ
//! reverse   KL(q ‖ p) = Σ q (ln q − ln p)                                ∂/∂z = q (ln q/p − KL) / τ
//! JS        ½ KL(p ‖ m) + ½ KL(q ‖ m),  m = ½ (p + q)                    ∂/∂z = q (g − Σ q g) / τ,  g = ½ ln q/m
//! L = (1 − h) τ² D + h · cross-entropy(z, y)
//!
//! margin t  where the teacher's likeliest token is not y:  p ← (1 − c) p + c e_y,  c = (p_max − p_y + t) / (1 + p_max − p_y),
//!           which puts y above what was likeliest by t
//! ```
//!
//! Departure: where the teacher is right its distribution stays as it is; the published code can raise the right token there too.

use crate::kernels::vector;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which way a student's distribution is held against a teacher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// KL(teacher ‖ student): covers all that the teacher thinks possible.
    #[default]
    ForwardKl,
    /// KL(student ‖ teacher): keeps to what the teacher thinks likely.
    ReverseKl,
    /// The mean of both towards their mean; at most ln 2.
    JensenShannon,
}

impl Divergence {
    /// All of them.
    pub const ALL: [Divergence; 3] = [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::JensenShannon];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            Divergence::ForwardKl => "forward-kl",
            Divergence::ReverseKl => "reverse-kl",
            Divergence::JensenShannon => "jensen-shannon",
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Divergence {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    fn from_str(s: &str) -> Result<Divergence> {
        let found = Divergence::ALL.into_iter().find(|d| d.name() == s);
        found.ok_or_else(|| Error::unknown_name("divergence", s, Divergence::ALL.into_iter().map(Divergence::name)))
    }
}

/// How a language model learns from a teacher.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `divergence` | `forward-kl` | [`Divergence`] | D |
/// | `temperature` | 1 | above 0 | τ |
/// | `hard` | 0 | [0, 1] | h, the weight of the cross-entropy of the text |
/// | `margin` | | [0, 1) | t, for little data; with `forward-kl` |
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TeacherLoss {
    /// D
    pub divergence: Divergence,
    /// τ
    pub temperature: f32,
    /// h
    pub hard: f32,
    /// t
    pub margin: Option<f32>,
}

impl Default for TeacherLoss {
    fn default() -> Self {
        TeacherLoss { divergence: Divergence::ForwardKl, temperature: 1.0, hard: 0.0, margin: None }
    }
}

impl TeacherLoss {
    /// The same with another divergence.
    #[must_use]
    pub fn divergence(self, divergence: Divergence) -> Self {
        TeacherLoss { divergence, ..self }
    }

    /// The same at another temperature.
    #[must_use]
    pub fn temperature(self, temperature: f32) -> Self {
        TeacherLoss { temperature, ..self }
    }

    /// The same with so much of the text's own cross-entropy.
    #[must_use]
    pub fn hard(self, weight: f32) -> Self {
        TeacherLoss { hard: weight, ..self }
    }

    /// The same with the right token of the text above all others by this.
    #[must_use]
    pub fn margin(self, margin: f32) -> Self {
        TeacherLoss { margin: Some(margin), ..self }
    }

    /// Refuses numbers outside their ranges, and a margin beside another divergence than forward KL.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the name, the value and the range.
    pub fn check(&self) -> Result<()> {
        let TeacherLoss { divergence, temperature, hard, margin } = *self;
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::invalid_option(
                "temperature",
                format!("{temperature} is not a finite number above 0; 1 is usual"),
            ));
        }
        if !(0.0..=1.0).contains(&hard) {
            return Err(Error::invalid_option("hard", format!("{hard} is not in [0, 1]: 0 learns from the teacher alone")));
        }
        match margin {
            Some(margin) if !(0.0..1.0).contains(&margin) => {
                Err(Error::invalid_option("margin", format!("{margin} is not in [0, 1); 0.2 is usual")))
            }
            Some(_) if divergence != Divergence::ForwardKl => {
                Err(Error::invalid_option("margin", format!("is for forward-kl, not for {divergence}")))
            }
            _ => Ok(()),
        }
    }

    /// The loss L of one row: the student's logits `z` become `scale` times the slope of L at them; the teacher's `v` are used up. `y` is the
    /// token that follows.
    ///
    /// ```
    /// use lacuna::train::{Divergence, TeacherLoss};
    /// let (mut z, mut v) = (vec![0.0, 0.0], vec![0.0, 3f32.ln()]); // q = (1/2, 1/2), p = (1/4, 3/4)
    /// let loss = TeacherLoss::default().row(&mut z, &mut v, 1, 1.0);
    /// let right = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
    /// assert!((loss - right).abs() < 1e-6 && (z[0] - 0.25).abs() < 1e-6 && (z[1] + 0.25).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// If the rows differ in length, or `y` is beyond them.
    pub fn row(&self, z: &mut [f32], v: &mut [f32], y: u32, scale: f32) -> f64 {
        assert_eq!(z.len(), v.len(), "logits of student and teacher");
        let TeacherLoss { divergence, temperature, hard, margin } = *self;
        let (t, y) = (temperature, y as usize);
        let own = if hard > 0.0 { z.to_vec() } else { Vec::new() };
        let soft = f64::from(t)
            * f64::from(t)
            * match (divergence, margin) {
                (Divergence::ForwardKl, None) => forward(z, v, t, (1.0 - hard) * scale),
                (Divergence::ForwardKl, Some(margin)) => corrected(z, v, t, (1.0 - hard) * scale, (y, margin)),
                (Divergence::ReverseKl, _) => reverse(z, v, t, (1.0 - hard) * scale),
                (Divergence::JensenShannon, _) => jensen_shannon(z, v, t, (1.0 - hard) * scale),
            };
        if own.is_empty() { soft } else { mix((soft, z), own, y, (hard, scale)) }
    }
}

/// `(1 − h) · soft` and h times the cross-entropy at the logits `own`, whose slope is added to that of the former; both are times `scale`.
pub(super) fn mix((soft, slope): (f64, &mut [f32]), mut own: Vec<f32>, y: usize, (hard, scale): (f32, f32)) -> f64 {
    let right = f64::from(own[y]);
    let cross = soften(&mut own, 1.0) - right;
    own[y] -= 1.0;
    vector::add_scaled(slope, hard * scale, &own);
    f64::from(1.0 - hard) * soft + f64::from(hard) * cross
}

/// Logits become probabilities at temperature `t`; ln Σ e^(z / t).
fn soften(row: &mut [f32], t: f32) -> f64 {
    let shift = vector::max(row) / t;
    let sum = vector::exp_sum(row, 1.0 / t, shift);
    vector::scale(row, (1.0 / sum) as f32);
    f64::from(shift) + sum.ln()
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// KL(p ‖ q); `z` becomes `scale · t² · ∂/∂z`, as in all that follow.
fn forward(z: &mut [f32], v: &mut [f32], t: f32, scale: f32) -> f64 {
    let apart = difference(v, z);
    let (log_p, log_q) = (soften(v, t), soften(z, t));
    let loss = vector::dot(v, &apart) / f64::from(t) - log_p + log_q;
    vector::scale(z, t * scale);
    vector::add_scaled(z, -t * scale, v);
    loss.max(0.0)
}

/// The same with a margin for the right token.
fn corrected(z: &mut [f32], v: &mut [f32], t: f32, scale: f32, (y, margin): (usize, f32)) -> f64 {
    let likeliest = vector::max(v);
    if v[y] >= likeliest {
        return forward(z, v, t, scale);
    }
    let (raw_z, raw_v) = (z.to_vec(), v.to_vec());
    let (log_p, log_q) = (soften(v, t), soften(z, t));
    let (tau, p_y) = (f64::from(t), f64::from(v[y]));
    let ahead = f64::from(vector::max(v)) - p_y;
    let c = (ahead + f64::from(margin)) / (1.0 + ahead);
    // Σ p' ln p', of p' = (1 − c) p but at y.
    let ln_p_y = f64::from(raw_v[y]) / tau - log_p;
    let others = vector::dot(v, &raw_v) / tau - log_p - p_y * ln_p_y;
    let at_y = (1.0 - c) * p_y + c;
    let entropy = (1.0 - c) * ((1.0 - c).max(f64::MIN_POSITIVE).ln() * (1.0 - p_y) + others) + at_y * at_y.ln();
    let mean_z = (1.0 - c) * vector::dot(v, &raw_z) + c * f64::from(raw_z[y]);
    let loss = entropy - mean_z / tau + log_q;
    vector::scale(v, (1.0 - c) as f32);
    v[y] += c as f32;
    vector::scale(z, t * scale);
    vector::add_scaled(z, -t * scale, v);
    loss.max(0.0)
}

fn reverse(z: &mut [f32], v: &mut [f32], t: f32, scale: f32) -> f64 {
    let apart = difference(z, v);
    let (log_p, log_q) = (soften(v, t), soften(z, t));
    let mean = vector::dot(z, &apart);
    vector::softmax_back(z, &apart, mean as f32);
    vector::scale(z, scale);
    (mean / f64::from(t) - log_q + log_p).max(0.0)
}

fn jensen_shannon(z: &mut [f32], v: &mut [f32], t: f32, scale: f32) -> f64 {
    soften(v, t);
    soften(z, t);
    let mut loss = 0.0;
    // `v` becomes g.
    for (p, &q) in v.iter_mut().zip(&*z) {
        let middle = 0.5 * (*p + q);
        let part = |share: f32| if share > 0.0 { (share / middle).ln() } else { 0.0 };
        let (of_p, of_q) = (part(*p), part(q));
        loss += 0.5 * f64::from(*p * of_p + q * of_q);
        *p = 0.5 * of_q;
    }
    let mean = vector::dot(z, v);
    vector::softmax_back(z, v, mean as f32);
    vector::scale(z, t * scale);
    loss.max(0.0)
}
