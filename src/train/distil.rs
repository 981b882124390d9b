//! Knowledge distillation: a student learns the softened outputs of a teacher.
//!
//! Hinton, Vinyals, Dean. *Distilling the knowledge in a neural network.* 2015, arXiv:1503.02531, equations 1 to 4.
//!
//! ```text
//! p = softmax(v / τ)    q = softmax(z / τ)                      v of the teacher, z of the student
//! L = (1 − h) τ² KL(p ‖ q) + h · cross-entropy(z, t)
//!
//! ∂/∂z τ² KL(p ‖ q) = τ (q − p)  →  (z − v) / N  for τ → ∞, for z and v of mean 0 over the N classes
//! ```
//!
//! The factor τ² keeps the weight of the two terms when τ changes: without it the soft gradient falls as 1/τ². For τ → ∞ this is
//! matching the logits, as in model compression (Bucilă, Caruana, Niculescu-Mizil 2006).
//!
//! Departure: the paper's soft term is the cross-entropy of p and q; the divergence differs from it by the entropy of p, which
//! no weight changes, and is 0 where the student has learnt all.

use crate::linalg::for_entries;
use crate::nn::{Loss, Objective};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, Axis};

/// A teacher's outputs to learn, and the labels beside them.
#[derive(Debug, Clone, Copy)]
pub struct Distil<'a> {
    teacher: &'a ArrayRef2<f32>,
    labels: &'a ArrayRef2<f32>,
    temperature: f32,
    hard: f32,
}

impl<'a> Distil<'a> {
    /// Learns `teacher (samples, classes)`, logits, at `temperature` τ, and with the weight `hard` h the `labels`
    /// `(samples, classes)`, one-hot or soft.
    ///
    /// # Errors
    /// If τ is not positive, h not in [0, 1], the shapes differ, or a logit is not finite.
    pub fn new(teacher: &'a ArrayRef2<f32>, labels: &'a ArrayRef2<f32>, temperature: f32, hard: f32) -> Result<Self> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::invalid_option("temperature", format!("{temperature}: it must be positive")));
        }
        if !(0.0..=1.0).contains(&hard) {
            return Err(Error::invalid_option("hard", format!("{hard} is not in [0, 1]: 0 learns from the teacher alone")));
        }
        if teacher.dim() != labels.dim() {
            let (a, b) = (teacher.dim(), labels.dim());
            return Err(Error::shape("labels beside a teacher's outputs", &[a.0, a.1], &[b.0, b.1]));
        }
        crate::io::check_finite("the teacher's outputs", teacher)?;
        Ok(Distil { teacher, labels, temperature, hard })
    }
}

impl Objective for Distil<'_> {
    fn dim(&self) -> (usize, usize) {
        self.teacher.dim()
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        let (losses, mut d) = distillation(outputs, &self.teacher.select(Axis(0), rows), self.temperature);
        let mut loss = losses.sum() * f64::from(1.0 - self.hard);
        if self.hard > 0.0 {
            let labels = self.labels.select(Axis(0), rows);
            loss += f64::from(self.hard) * Loss::CrossEntropy.values(outputs, &labels).sum();
            let hard = Loss::CrossEntropy.gradient(outputs, &labels);
            let h = self.hard;
            for_entries(&mut d, [&hard], |d, [g]| (1.0 - h) * d + h * g);
        }
        d *= 1.0 / count as f32;
        *outputs = d;
        loss
    }
}

/// `p log(p / q) + q − p` of the logarithms: what a class adds to the divergence. The last two sum to 0 over the classes, and with them
/// no term is negative; without them little but rounding is left where p and q are near one another, at high temperatures.
fn divergence(p: f64, q: f64) -> f64 {
    let apart = p - q;
    if apart.abs() < 1e-3 { p.exp() * (apart + (-apart).exp_m1()) } else { p.exp() * apart + (q.exp() - p.exp()) }
}

/// τ² KL(p ‖ q) of each sample and its derivative τ (q − p) in `student`, both logits `(samples, classes)`.
///
/// ```
/// use lacuna::train::distillation;
/// use ndarray::array;
/// let (student, teacher) = (array![[1., -1.]], array![[-2., 2.]]);
/// let (loss, d) = distillation(&student, &teacher, 1e3);
/// // Far above the logits: half the squared difference of the logits over the number of classes.
/// assert!((loss[0] - (9. + 9.) / 4.).abs() < 1e-2);
/// assert!((d[[0, 0]] - 3. / 2.).abs() < 1e-2);
/// ```
///
/// # Panics
/// If the shapes differ.
pub fn distillation(student: &Array2<f32>, teacher: &Array2<f32>, temperature: f32) -> (Array1<f64>, Array2<f32>) {
    assert_eq!(student.dim(), teacher.dim(), "student and teacher differ in shape");
    let t = f64::from(temperature);
    let soft = |row: ndarray::ArrayView1<'_, f32>| -> Vec<f64> {
        let max = f64::from(row.fold(f32::NEG_INFINITY, |m, &z| m.max(z)));
        let e: Vec<f64> = row.iter().map(|&z| (f64::from(z) - max) / t).collect();
        let log_sum = e.iter().map(|e| e.exp()).sum::<f64>().ln();
        e.into_iter().map(|e| e - log_sum).collect()
    };
    let mut d = Array2::zeros(student.dim());
    let mut losses = Array1::zeros(student.nrows());
    for ((mut d, loss), (z, v)) in d.rows_mut().into_iter().zip(&mut losses).zip(student.rows().into_iter().zip(teacher.rows())) {
        let (q, p) = (soft(z), soft(v));
        *loss = t * t * p.iter().zip(&q).map(|(&p, &q)| divergence(p, q)).sum::<f64>();
        d.iter_mut().zip(p.iter().zip(&q)).for_each(|(d, (p, q))| *d = (t * (q.exp() - p.exp())) as f32);
    }
    (losses, d)
}
