//! What a teacher says of a text, in a file: against its logits in f64, slopes against differences, and training from it.

use crate::common::*;
use crate::jobs::calibration;
use lacuna::data::{DocumentPacker, PackedDocuments};
use lacuna::io::Dtype;
use lacuna::job::TrainJob;
use lacuna::nn::Objective;
use lacuna::rng::Seed;
use lacuna::train::{CacheEntries, CachedDistillation, TeacherCache, TeacherLoss, TokenDistillation};
use std::ops::ControlFlow;
use std::path::PathBuf;

fn packed(ids: &[u32], context: usize) -> PackedDocuments {
    let mut packer = DocumentPacker::new(env!("CARGO_TARGET_TMPDIR")).unwrap();
    packer.document(ids, None).unwrap();
    packer.finish(context, None).unwrap()
}

/// A cache of the model's own predictions over four sequences.
fn cache(m: &Model, entries: CacheEntries, seed: u64) -> PathBuf {
    let path = m.out("cache.safetensors");
    let text = packed(&tokens(4), LENGTH);
    TeacherCache::write(&path, (&model(&m.dir), "it"), &text, (entries, Seed(seed)), &mut on).unwrap();
    path
}

/// Softmax of each token of a sequence, in f64.
fn probabilities(m: &Model, sequence: usize) -> Vec<Vec<f64>> {
    let ids = tokens(4);
    let logits = model(&m.dir).forward(&ids[sequence * LENGTH..(sequence + 1) * LENGTH]).unwrap();
    let row = |z: ndarray::ArrayView1<'_, f32>| -> Vec<f64> {
        let sum: f64 = z.iter().map(|z| f64::from(*z).exp()).sum();
        z.iter().map(|z| f64::from(*z).exp() / sum).collect()
    };
    logits.rows().into_iter().map(row).collect()
}

#[test]
fn the_likeliest_and_the_rest_come_back_from_the_file() {
    let m = Model::new(Dtype::F32);
    let path = cache(&m, CacheEntries::Top(5), 0);
    let cache = TeacherCache::open(&path).unwrap();
    let rows = cache.read(&[2, 1]).unwrap();
    for (place, sequence) in [2, 1].into_iter().enumerate() {
        for (t, p) in probabilities(&m, sequence).into_iter().enumerate() {
            let (ids, weights, rest) = rows.row(place * LENGTH + t);
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
            assert_eq!(ids.iter().map(|i| *i as usize).collect::<Vec<_>>(), order[..5]);
            for (id, w) in ids.iter().zip(weights) {
                assert!((f64::from(*w) / p[*id as usize] - 1.0).abs() < 5e-3, "{w} for {}", p[*id as usize]);
            }
            let right: f64 = order[5..].iter().map(|i| p[*i]).sum();
            assert!((f64::from(rest.unwrap()) - right).abs() < 2e-3, "{rest:?} for {right}");
            assert!((f64::from(rest.unwrap() + weights.sum()) - 1.0).abs() < 1e-6, "one distribution");
        }
    }
    assert_eq!(CacheEntries::Top(64).bytes(49_152), 260);
    assert!(CacheEntries::Top(48).bytes(128_256) <= 300 && CacheEntries::Sampled(64).bytes(49_152) <= 300);
}

#[test]
fn with_every_token_kept_the_loss_is_the_divergence_from_the_teacher_beside() {
    let m = Model::new(Dtype::F32);
    let path = cache(&m, CacheEntries::Top(50), 0);
    let (text, teacher) = (packed(&tokens(4), LENGTH), model(&m.dir));
    let batch = text.sequences(&[3, 0]).unwrap();
    let rows: Vec<usize> = (0..2 * LENGTH).collect();
    let student = Seed(8).stream("z").normal_array(2 * LENGTH, 50, 1.0);
    for hard in [0.0, 0.3] {
        let cached = CachedDistillation::new(TeacherCache::open(&path).unwrap().read(&[3, 0]).unwrap(), &batch, 50, hard);
        let beside = TokenDistillation::new(&teacher, &batch, TeacherLoss::default().hard(hard)).unwrap();
        let count = cached.count(&rows);
        assert_eq!((count, beside.count(&rows)), (22, 22));
        let (mut a, mut b) = (student.clone(), student.clone());
        let (loss, right) = (cached.loss(&rows, &mut a, count), beside.loss(&rows, &mut b, count));
        assert!((loss / right - 1.0).abs() < 1e-3, "{loss} {right}");
        assert!((&a - &b).iter().all(|d| d.abs() < 1e-4));
        assert!(a.row(11).iter().all(|d| *d == 0.0), "the last token of a sequence is followed by none");
    }
}

#[test]
fn the_slope_is_the_difference_of_the_divergence_of_the_kept_outcomes_and_the_rest() {
    let m = Model::new(Dtype::F32);
    for entries in [CacheEntries::Top(1), CacheEntries::Top(7), CacheEntries::Sampled(9)] {
        let rows = TeacherCache::open(cache(&m, entries, 3)).unwrap().read(&[0]).unwrap();
        let z: Vec<f32> = Seed(2).stream("z").normal_array(1, 50, 2.0).iter().copied().collect();
        for t in 0..LENGTH {
            let naive = |z: &[f64]| {
                let sum: f64 = z.iter().map(|z| z.exp()).sum();
                let q: Vec<f64> = z.iter().map(|z| z.exp() / sum).collect();
                let (ids, weights, rest) = rows.row(t);
                let kept = ids.iter().zip(weights).filter(|(_, w)| **w > 0.0);
                let kept: Vec<(f64, f64)> = kept.map(|(id, w)| (f64::from(*w), q[*id as usize])).collect();
                let mut loss: f64 = kept.iter().map(|(p, q)| p * (p / q).ln()).sum();
                if let Some(rest) = rest.map(f64::from) {
                    loss += rest * (rest / (1.0 - kept.iter().map(|(_, q)| q).sum::<f64>())).ln();
                }
                loss
            };
            let wide: Vec<f64> = z.iter().map(|z| f64::from(*z)).collect();
            let mut slope = z.clone();
            let loss = rows.loss(t, &mut slope, 2.0);
            assert!((loss - naive(&wide)).abs() < 1e-5, "{entries:?}: {loss} for {}", naive(&wide));
            for i in 0..50 {
                let at = |d: f64| {
                    let mut z = wide.clone();
                    z[i] += d;
                    naive(&z)
                };
                let difference = 2.0 * (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((f64::from(slope[i]) - difference).abs() < 1e-5, "{entries:?}, {t}, {i}: {} for {difference}", slope[i]);
            }
        }
    }
}

/// The mean of many draws is the teacher's distribution, and so is the mean slope; the top alone is not.
#[test]
fn draws_are_unbiased() {
    let m = Model::new(Dtype::F32);
    let (draws, n) = (200, 8);
    let p = &probabilities(&m, 1)[4];
    let mut mean = vec![0.0; 50];
    for seed in 0..draws {
        let rows = TeacherCache::open(cache(&m, CacheEntries::Sampled(n), seed)).unwrap().read(&[1]).unwrap();
        let (ids, weights, rest) = rows.row(4);
        assert!(rest.is_none() && (weights.sum() - 1.0).abs() < 1e-6);
        ids.iter().zip(weights).for_each(|(id, w)| mean[*id as usize] += f64::from(*w) / draws as f64);
    }
    for (i, (found, p)) in mean.iter().zip(p).enumerate() {
        let deviation = (p * (1.0 - p) / (draws as f64 * n as f64)).sqrt();
        assert!((found - p).abs() < 4.5 * deviation + 1e-3, "token {i}: {found} for {p}");
    }
}

#[test]
fn a_student_learns_from_a_cache_as_from_the_teacher_and_one_of_another_text_is_refused() {
    let m = Model::new(Dtype::F32);
    let ids = calibration(&m, &tokens(4));
    let path = cache(&m, CacheEntries::Top(50), 0);
    let job = TrainJob::new().model(&m.dir).text([&ids]).steps(6).context(LENGTH).lr(1e-2).hard(0.5);
    let run = |job: &TrainJob| job.run(&mut |_| ControlFlow::Continue(()));
    let cached = run(&job.clone().teacher_cache(&path).out(m.out("cached"))).unwrap();
    let beside = run(&job.clone().teacher(&m.dir).out(m.out("beside"))).unwrap();
    for (a, b) in cached.curve.iter().zip(&beside.curve) {
        assert!((a.loss - b.loss).abs() < 1e-2, "{a:?} {b:?}");
    }
    let refused = |job: &TrainJob| run(&job.clone().teacher_cache(&path).out(m.out("refused"))).unwrap_err().to_string();
    let line = refused(&job.clone().context(6));
    assert!(line.contains("is of 4 sequences of 12 tokens, and 8 of 6 are trained on"), "{line}");
    std::fs::rename(&ids, m.out("same.safetensors")).unwrap();
    let mut other = tokens(4);
    other[30] ^= 1;
    let line = refused(&job.clone().text([calibration(&m, &other)]));
    assert!(line.contains("is of other tokens (digest "), "{line}");
    let line = refused(&job.text([m.out("same.safetensors")]).temperature(2.0));
    assert_eq!(line, "temperature: is for --teacher");
    assert!(!m.out("refused").exists());
    let e = TeacherCache::open(m.dir.join("model.safetensors")).unwrap_err().to_string();
    assert!(e.ends_with("has no tensor 'teacher' of rows of bytes"), "{e}");
}
