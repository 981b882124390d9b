//! Blocks that are trained after they are pruned: nearer to the dense model, masks exact, and the same bytes after an interruption.

use crate::common::*;
use crate::jobs::calibration;
use lacuna::io::Dtype;
use lacuna::job::{Event, Methods, ModelReport, PruneJob, PruneReport, Stage};
use lacuna::lm::LanguageModel;
use lacuna::mask::Pattern;
use lacuna::nn::Parameters;
use lacuna::prune::{CalibrationInputs, Sequential};
use lacuna::{Error, Result};
use std::ops::ControlFlow;
use std::path::Path;

fn job(m: &Model, method: &str) -> PruneJob {
    let ids = calibration(m, &tokens(40));
    let job = PruneJob::new(method).sparsity(0.5).calibration(ids).samples(40).context(LENGTH);
    job.model(&m.dir).out(m.out("out")).reconstruct_blocks(8).reconstruct_rate(1e-3)
}

fn run(job: &PruneJob) -> Result<ModelReport> {
    match job.run(&Methods::standard(), &mut |_| ControlFlow::Continue(()))? {
        PruneReport::Model(report) => Ok(*report),
        PruneReport::File(_) => panic!("the model is a folder"),
    }
}

/// ‖Δh‖² / ‖h‖² behind the last block, the mean over tokens of the calibration.
fn apart(dense: &LanguageModel, pruned: &LanguageModel) -> f64 {
    let ids = tokens(40);
    let [a, b] = [dense, pruned].map(|model| model.hidden_states(&ids, LENGTH, &mut ()).unwrap());
    let square = |x: ndarray::ArrayView1<'_, f32>| x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    a.rows().into_iter().zip(b.rows()).map(|(a, b)| square((&a - &b).view()) / square(a)).sum::<f64>() / a.nrows() as f64
}

fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    files(dir).into_iter().filter(|(name, _)| !name.starts_with("prune.")).collect()
}

#[test]
fn blocks_come_nearer_to_the_dense_ones_with_their_masks_and_what_is_written_is_what_ran() {
    for (dtype, method) in [(Dtype::F32, "magnitude"), (Dtype::BF16, "sparsegpt"), (Dtype::F32, "alps")] {
        let m = Model::new(dtype);
        let mut plain = job(&m, method).out(m.out("plain"));
        plain.reconstruct_blocks = None;
        let without = run(&plain).unwrap();
        let report = run(&job(&m, method)).unwrap();
        assert_eq!((report.kept, report.sparsity), (without.kept, without.sparsity));
        for block in 0..3 {
            // Attention by itself, then the feed-forward layers.
            let of: Vec<_> = report.layers.iter().filter(|l| l.block == block).map(|l| l.reconstructed.unwrap()).collect();
            assert!(of.len() == 7 && of[..4].iter().all(|e| e == &of[0]) && of[4..].iter().all(|e| e == &of[4]), "{of:?}");
            for (before, after) in [of[0], of[4]] {
                assert!(after < 0.95 * before, "{method}, block {block}: {before} to {after}");
            }
        }
        assert!(without.layers.iter().all(|l| l.reconstructed.is_none()));
        let [dense, plain, trained] = [&m.dir, &m.out("plain"), &m.out("out")].map(|dir| model(dir));
        for layer in trained.linears() {
            let (mask, weight) = (layer.mask().unwrap(), layer.weight().unwrap());
            assert!(weight.indexed_iter().all(|((r, c), w)| mask.get(r, c) || *w == 0.0), "{}", layer.name());
        }
        let (before, after) = (apart(&dense, &plain), apart(&dense, &trained));
        assert!(after < 0.9 * before, "{method}: {before} to {after}");
        // The last block's error is of the model that was written.
        let said = report.layers.last().unwrap().reconstructed.unwrap().1;
        let bound = if dtype == Dtype::F32 { 1e-5 } else { 0.05 };
        assert!((after / said - 1.0).abs() < bound, "{after} for {said}");
        let mut embeddings = Vec::new();
        for of in [&dense, &trained] {
            of.visit(&mut |name, values, _| {
                if name == "model.embed_tokens.weight" || name == "model.norm.weight" {
                    embeddings.push(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
                }
            });
        }
        assert!(embeddings[0] == embeddings[2] && embeddings[1] == embeddings[3], "what is in no block stays");
    }
}

#[test]
fn a_run_that_was_cut_off_goes_on_to_the_same_bytes() {
    let m = Model::new(Dtype::BF16);
    for (name, job) in [
        ("turns", job(&m, "sparsegpt").correct(1.0, 1.0)),
        ("blocks", job(&m, "wanda").sequential(Sequential::Block)),
        ("pattern", {
            let mut job = job(&m, "magnitude").pattern(Pattern::Nm { n: 2, m: 4 });
            job.sparsity = None;
            job
        }),
    ] {
        let (right, out) = (m.out(&format!("{name}-right")), m.out(name));
        let report = run(&job.clone().out(&right)).unwrap();
        let mut stop = |event: &Event| match event {
            Event::Progress { stage: Stage::Blocks, done: 2, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let e = job.clone().out(&out).run(&Methods::standard(), &mut stop).unwrap_err();
        assert!(matches!(e, Error::Unfinished { .. }), "{e}");
        let other = run(&job.clone().out(&out).reconstruct_blocks(9).resume(true)).unwrap_err().to_string();
        assert!(other.starts_with("--reconstruct-blocks: the unfinished run has 8, this one 9; "), "{other}");
        let again = run(&job.out(&out).resume(true)).unwrap();
        assert_eq!(content(&out), content(&right), "{name}");
        let errors = |r: &ModelReport| r.layers.iter().map(|l| l.reconstructed).collect::<Vec<_>>();
        assert_eq!(errors(&again), errors(&report));
    }
}

#[test]
fn what_cannot_be_reconstructed_is_refused() {
    let m = Model::new(Dtype::F32);
    let plain = job(&m, "sparsegpt");
    let mut without = plain.clone();
    without.calibration = None;
    for (job, line) in [
        (plain.clone().reconstruct_blocks(0), "reconstruct-blocks: 0 is not at least 1"),
        (plain.clone().reconstruct_rate(0.0), "reconstruct-rate: 0 is not a finite number above 0; 3e-5 is usual"),
        (
            plain.clone().inputs(CalibrationInputs::Dense),
            "reconstruct-blocks: blocks are reconstructed on pruned inputs, not on --inputs dense",
        ),
        (plain.clone().bits(4), "bits: 4 bits beside reconstruct-blocks: weights that are trained leave their grid"),
        (without, "calibration: this method measures inputs: give --calibration FILE, text or token numbers"),
    ] {
        assert_eq!(run(&job).unwrap_err().to_string(), line);
    }
}
