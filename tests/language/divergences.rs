//! Losses towards a teacher against their formulas in f64, and their slopes against differences of these.

use lacuna::rng::Seed;
use lacuna::train::{Divergence, TeacherLoss};

fn softmax(z: &[f64], t: f64) -> Vec<f64> {
    let max = z.iter().fold(f64::MIN, |m, z| m.max(*z));
    let e: Vec<f64> = z.iter().map(|z| ((z - max) / t).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

/// The loss by its formula.
fn naive(loss: &TeacherLoss, z: &[f64], v: &[f64], y: usize) -> f64 {
    let t = f64::from(loss.temperature);
    let (q, mut p) = (softmax(z, t), softmax(v, t));
    if let Some(margin) = loss.margin {
        let likeliest = (0..p.len()).max_by(|a, b| p[*a].total_cmp(&p[*b])).unwrap();
        if likeliest != y {
            let c = (p[likeliest] - p[y] + f64::from(margin)) / (1.0 + p[likeliest] - p[y]);
            p.iter_mut().for_each(|p| *p *= 1.0 - c);
            p[y] += c;
        }
    }
    let middle: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.5 * (p + q)).collect();
    let soft = match loss.divergence {
        Divergence::ForwardKl => kl(&p, &q),
        Divergence::ReverseKl => kl(&q, &p),
        Divergence::JensenShannon => 0.5 * kl(&p, &middle) + 0.5 * kl(&q, &middle),
    };
    let hard = f64::from(loss.hard);
    (1.0 - hard) * t * t * soft - hard * softmax(z, 1.0)[y].ln()
}

fn losses() -> Vec<TeacherLoss> {
    let mut all = Vec::new();
    for divergence in Divergence::ALL {
        for (temperature, hard) in [(1.0, 0.0), (2.5, 0.0), (0.5, 0.25), (1.0, 1.0), (3.0, 0.7)] {
            all.push(TeacherLoss::default().divergence(divergence).temperature(temperature).hard(hard));
        }
    }
    for (temperature, hard) in [(1.0, 0.0), (2.0, 0.5)] {
        all.push(TeacherLoss::default().temperature(temperature).hard(hard).margin(0.2));
    }
    all
}

#[test]
fn losses_towards_a_teacher_are_their_formulas_and_slopes_are_their_differences() {
    let mut random = Seed(1).stream("logits");
    for loss in losses() {
        for width in [2, 7, 33, 300] {
            let z: Vec<f32> = (0..width).map(|_| 2.0 * random.normal()).collect();
            let v: Vec<f32> = (0..width).map(|_| 3.0 * random.normal()).collect();
            let y = random.below(width);
            let [wide_z, wide_v] = [&z, &v].map(|x| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
            let right = naive(&loss, &wide_z, &wide_v, y);
            let (mut slope, mut used) = (z.clone(), v.clone());
            let found = loss.row(&mut slope, &mut used, y as u32, 0.5);
            assert!((found - right).abs() < 3e-6 * right.abs().max(1.0), "{loss:?}, {width}: {found} for {right}");
            for i in (0..width).step_by(width.div_ceil(20)) {
                let at = |d: f64| {
                    let mut z = wide_z.clone();
                    z[i] += d;
                    naive(&loss, &z, &wide_v, y)
                };
                let difference = 0.5 * (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((f64::from(slope[i]) - difference).abs() < 2e-6, "{loss:?}, {width}, {i}: {} for {difference}", slope[i]);
            }
        }
    }
}

#[test]
fn a_student_that_says_what_its_teacher_says_has_no_loss_and_no_slope() {
    let v: Vec<f32> = (0..500).map(|i| (i as f32).sin() * 6.0).collect();
    for loss in losses().into_iter().filter(|l| l.hard == 0.0 && l.margin.is_none()) {
        let (mut z, mut used) = (v.clone(), v.clone());
        let found = loss.row(&mut z, &mut used, 3, 1.0);
        assert!((0.0..1e-5).contains(&found) && z.iter().all(|d| d.abs() < 1e-6), "{loss:?}: {found}");
    }
}

/// The margin puts the text's token above what the teacher held likeliest, by exactly that much.
#[test]
fn a_margin_lifts_the_right_token_where_the_teacher_is_wrong_and_leaves_it_where_it_is_right() {
    let v = [3f32.ln(), 0.0, 0.0]; // p = (3, 1, 1) / 5
    let loss = TeacherLoss::default().margin(0.2);
    for y in [0, 1] {
        let (mut z, mut used) = (vec![0.0f32; 3], v.to_vec());
        loss.row(&mut z, &mut used, y, 1.0);
        // What is learnt is q minus the slope.
        let target: Vec<f32> = z.iter().map(|d| 1.0 / 3.0 - d).collect();
        if y == 0 {
            assert!(target.iter().zip([0.6, 0.2, 0.2]).all(|(t, r)| (t - r).abs() < 1e-6), "{target:?}");
        } else {
            assert!((target[1] - target[0] - 0.2).abs() < 1e-6 && (target.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{target:?}");
            assert!((target[0] / target[2] - 3.0).abs() < 1e-5, "the others keep their shares: {target:?}");
        }
    }
}

#[test]
fn numbers_that_a_loss_cannot_have_are_refused() {
    for (loss, line) in [
        (TeacherLoss::default().temperature(0.0), "temperature: 0 is not a finite number above 0; 1 is usual"),
        (TeacherLoss::default().hard(-0.5), "hard: -0.5 is not in [0, 1]: 0 learns from the teacher alone"),
        (TeacherLoss::default().margin(1.0), "margin: 1 is not in [0, 1); 0.2 is usual"),
        (TeacherLoss::default().divergence(Divergence::ReverseKl).margin(0.2), "margin: is for forward-kl, not for reverse-kl"),
    ] {
        assert_eq!(loss.check().unwrap_err().to_string(), line);
    }
}
