//! Sub-layers that go, and blocks of different widths that are padded: what is left is what the model computes in which they add nothing.

use crate::common::*;
use crate::shrink::{apart, logits, shrink, shrinking, with};
use lacuna::Error;
use lacuna::io::Dtype;
use lacuna::lm::{LanguageModel, Widths, next_tokens};
use lacuna::prune::{Correction, DepthScore, LanguageShrinking, Progress, ShrinkSizes, SubLayer, SubLayerKind, UnitMethod};
use lacuna::rng::Seed;
use lacuna::solve::GroupObs;
use ndarray::{Array2, s};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

fn subs(text: &str) -> Vec<SubLayer> {
    text.split(',').map(|one| one.parse().unwrap()).collect()
}

/// The model with the layers that sub-layers end with set to 0.
fn silenced(dir: &Path, gone: &[SubLayer]) -> LanguageModel {
    let mut whole = model(dir);
    for sub in gone {
        let part = if sub.kind == SubLayerKind::Attention { "self_attn.o_proj" } else { "mlp.down_proj" };
        let layer = whole.linear_mut(&format!("model.layers.{}.{part}", sub.block)).unwrap();
        let shape = layer.shape();
        layer.set_weight(Array2::zeros(shape)).unwrap();
    }
    whole
}

#[test]
fn a_model_without_sub_layers_runs_steps_and_learns_as_the_one_in_which_they_add_nothing() {
    let dense = Model::new(Dtype::F32);
    for (name, list) in [("a", "attention:1"), ("m", "mlp:0"), ("both", "attention:0,mlp:0,mlp:2")] {
        let (gone, out, padded) = (subs(list), dense.out(name), dense.out(&format!("{name} padded")));
        let settings = LanguageShrinking { drop: &gone, ..shrinking(ShrinkSizes::default(), UnitMethod::Minitron) };
        let record = shrink(&dense.dir, &out, &settings);
        assert_eq!(record.sublayers.unwrap().gone, gone);
        shrink(&dense.dir, &padded, &LanguageShrinking { pad: true, ..settings });
        let right = silenced(&dense.dir, &gone);
        for (dir, plain) in [(&out, false), (&padded, true)] {
            let small = model(dir);
            assert_eq!(small.config().to_json().get("layer_widths").is_none(), plain, "{name}");
            let off = apart(&logits(&small), &logits(&right));
            assert!(off < 1e-5, "{name}: {off}");
            // Token by token.
            let ids = tokens(1);
            let mut cache = small.cache();
            let mut last = Vec::new();
            for id in &ids {
                last = small.step(&[*id], &mut cache).unwrap().to_vec();
            }
            let whole = right.forward(&ids).unwrap();
            let off = last.iter().zip(whole.row(ids.len() - 1)).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
            assert!(off < 1e-5, "{name}, steps: {off}");
        }
        // Gradients of what both have.
        let gradients = |model: &LanguageModel| {
            let mut found = HashMap::new();
            model.backward(&tokens(2), LENGTH, &mut |name, g| drop(found.insert(name.to_string(), g))).unwrap();
            found
        };
        let (of_small, of_right) = (gradients(&model(&out)), gradients(&right));
        let mut compared = 0;
        for (tensor, g) in &of_small {
            let other = &of_right[tensor];
            if g.shape() == other.shape() {
                let off = g.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-5, "{name}, {tensor}: {off}");
                compared += 1;
            }
        }
        assert!(compared >= 12, "{name}: {compared} tensors");
        // What is cut may be cut again, and what is gone cannot go twice.
        let less = ShrinkSizes { intermediate: Some(16), ..ShrinkSizes::default() };
        shrink(&out, &dense.out(&format!("{name} less")), &shrinking(less, UnitMethod::Obs(GroupObs::default())));
        let again = LanguageShrinking { drop: &gone[..1], ..shrinking(less, UnitMethod::Random(Seed(0))) };
        let line = with(&out, dense.out("no"), &again, false, &mut go_on).unwrap_err().to_string();
        assert_eq!(line, format!("drop: {} is not there any more", gone[0]));
    }
}

#[test]
fn sub_layers_that_go_are_those_that_cost_least_by_every_score() {
    let dense = Model::new(Dtype::F32);
    let all: Vec<SubLayer> = (0..3).flat_map(|block| SubLayerKind::ALL.map(|kind| SubLayer { block, kind })).collect();
    let cheapest = |gone: &[SubLayer], count: usize, cost: &dyn Fn(&LanguageModel) -> f64| {
        let left = all.iter().filter(|sub| !gone.contains(sub));
        let mut costs: Vec<(f64, SubLayer)> =
            left.map(|sub| (cost(&silenced(&dense.dir, &[gone, &[*sub]].concat())), *sub)).collect();
        costs.sort_by(|a, b| a.0.total_cmp(&b.0));
        costs.into_iter().take(count).map(|(_, sub)| sub).collect::<Vec<_>>()
    };
    let gamma = open(&dense.dir).0.read("model.norm.weight").unwrap();
    let hidden = |model: &LanguageModel, sequences: usize| {
        let h = model.hidden_states(&tokens(10)[..sequences * LENGTH], LENGTH, &mut ()).unwrap();
        // The last norm by hand.
        let rows = h.rows().into_iter().flat_map(|h| {
            let root = (h.iter().map(|x| x * x).sum::<f32>() / 16.0 + 1e-5).sqrt();
            h.iter().zip(&gamma).map(|(x, w)| x / root * w).collect::<Vec<_>>()
        });
        Array2::from_shape_vec(h.dim(), rows.collect()).unwrap()
    };
    let whole = hidden(&model(&dense.dir), 2);
    let error = |model: &LanguageModel| hidden(model, 2).iter().zip(&whole).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let loss = |model: &LanguageModel| {
        let ids = &tokens(10)[..LENGTH];
        let h = model.hidden_states(ids, LENGTH, &mut ()).unwrap();
        model.embedding_head().nll(&h, &next_tokens(ids, LENGTH)).unwrap().iter().sum::<f64>()
    };
    let greedy = {
        let first = cheapest(&[], 1, &loss);
        [first.clone(), cheapest(&first, 1, &loss)].concat()
    };
    // 1 - cosine of the hidden states on both sides of each half.
    let cosines = {
        let (whole, at) = (model(&dense.dir), model(&dense.dir).positions(10, LENGTH));
        let mut h = whole.embedding_head().embed(&tokens(10), LENGTH, 0).unwrap();
        let mut scores = Vec::new();
        for (block, both) in whole.blocks().iter().enumerate() {
            let gone = silenced(&dense.dir, &[SubLayer { block, kind: SubLayerKind::FeedForward }]);
            let (before, mut between) = (h.clone(), h.clone());
            gone.blocks()[block].forward(&mut between, &at, &mut ());
            both.forward(&mut h, &at, &mut ());
            let turned = |a: &Array2<f32>, b: &Array2<f32>| {
                let one = |t: usize| {
                    let (a, b) = (a.row(t).mapv(f64::from), b.row(t).mapv(f64::from));
                    1.0 - a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
                };
                (0..a.nrows()).map(one).sum::<f64>()
            };
            scores.push((turned(&before, &between), SubLayer { block, kind: SubLayerKind::Attention }));
            scores.push((turned(&between, &h), SubLayer { block, kind: SubLayerKind::FeedForward }));
        }
        scores.sort_by(|a, b| a.0.total_cmp(&b.0));
        vec![scores[0].1, scores[1].1]
    };
    for (depth, mut right) in
        [(DepthScore::Cosine, cosines), (DepthScore::Error, cheapest(&[], 2, &error)), (DepthScore::Perplexity, greedy)]
    {
        let out = dense.out(&format!("{depth:?}"));
        let plain = shrinking(ShrinkSizes::default(), UnitMethod::Random(Seed(0)));
        let record = shrink(&dense.dir, &out, &LanguageShrinking { sublayers: Some(2), depth, ..plain });
        right.sort_unstable();
        let found = record.sublayers.unwrap();
        assert_eq!(found.gone, right, "{depth:?}: {:?}", found.scores);
        let off = apart(&logits(&model(&out)), &logits(&silenced(&dense.dir, &right)));
        assert!(off < 1e-5, "{depth:?}: {off}");
    }
    let plain = shrinking(ShrinkSizes::default(), UnitMethod::Random(Seed(0)));
    let many = LanguageShrinking { sublayers: Some(6), ..plain };
    let line = with(&dense.dir, dense.out("no"), &many, false, &mut go_on).unwrap_err().to_string();
    assert_eq!(line, "sublayers: 6 of 6 in 3 layers cannot go; the nearest possible value is 5");
}

#[test]
fn blocks_of_different_widths_are_padded_to_a_plain_model_of_the_same_function() {
    let dense = Model::new(Dtype::F32);
    let of = |heads, intermediate| Widths { heads, kv_heads: 1, head_dim: 8, intermediate };
    let widths = [of(2, 24), of(1, 16), of(2, 20)];
    let settings = LanguageShrinking {
        widths: Some(&widths),
        ..shrinking(ShrinkSizes::default(), UnitMethod::Obs(GroupObs { damping: 1e-3, ..GroupObs::default() }))
    };
    let (out, padded) = (dense.out("unequal"), dense.out("padded"));
    shrink(&dense.dir, &out, &settings);
    shrink(&dense.dir, &padded, &LanguageShrinking { pad: true, ..settings.clone() });
    let (small, whole) = (model(&out), model(&padded));
    assert!(small.config().to_json().get("layer_widths").is_some());
    assert!(whole.config().to_json().get("layer_widths").is_none());
    assert!((0..3).all(|i| whole.config().widths(i) == of(2, 24)));
    let off = apart(&logits(&whole), &logits(&small));
    assert!(off < 1e-5, "{off}");
    let folder = open(&padded).0;
    // Block 1 has half of the heads and two thirds of the features, and a mask says so.
    for (layer, kept) in
        [("self_attn.q_proj", 8 * 16), ("self_attn.o_proj", 16 * 8), ("mlp.up_proj", 16 * 16), ("mlp.down_proj", 16 * 16)]
    {
        let name = format!("model.layers.1.{layer}.weight");
        assert_eq!(folder.mask(&name).unwrap().unwrap().kept(), kept, "{layer}");
    }
    assert!(folder.mask("model.layers.0.mlp.up_proj.weight").unwrap().is_none());
    let down = weight(&whole, "model.layers.1.mlp.down_proj");
    assert!(down.slice(s![.., 16..]).iter().all(|w| *w == 0.0));
    // A folder that is cut already is padded alone; one whose blocks are alike has nothing to pad.
    let alone = LanguageShrinking { pad: true, ..shrinking(ShrinkSizes::default(), UnitMethod::Random(Seed(0))) };
    shrink(&out, &dense.out("later"), &alone);
    assert!(files(&dense.out("later")) == files(&padded), "padded later, it has other bytes");
    let line = with(&dense.dir, dense.out("no"), &alone, false, &mut go_on).unwrap_err().to_string();
    assert!(line.starts_with("pad: all blocks have one width already"), "{line}");
}

#[test]
fn layers_of_a_folder_of_different_widths_go_with_theirs() {
    let dense = Model::new(Dtype::F32);
    let of = |intermediate| Widths { heads: 2, kv_heads: 1, head_dim: 8, intermediate };
    let widths = [of(24), of(16), of(20)];
    let settings = LanguageShrinking { widths: Some(&widths), ..shrinking(ShrinkSizes::default(), UnitMethod::Random(Seed(1))) };
    shrink(&dense.dir, &dense.out("unequal"), &settings);
    let sizes = ShrinkSizes { layers: Some(1), ..ShrinkSizes::default() };
    let record = shrink(&dense.out("unequal"), &dense.out("one"), &shrinking(sizes, UnitMethod::Random(Seed(1))));
    let kept = record.layers.unwrap().kept[0];
    assert_eq!(model(&dense.out("one")).config().widths(0), widths[kept]);
}

#[test]
fn a_run_without_sub_layers_goes_on_to_the_same_bits() {
    let dense = Model::new(Dtype::BF16);
    let sizes = ShrinkSizes { intermediate: Some(16), hidden: Some(12), ..ShrinkSizes::default() };
    let correction = Some(Correction { inputs: 1.0, hidden_states: 1.0, damping: 0.01 });
    for pad in [false, true] {
        let plain = shrinking(sizes, UnitMethod::Obs(GroupObs::default()));
        let settings = LanguageShrinking { sublayers: Some(2), pad, correction, ..plain };
        let [whole, stopped] = ["whole", "stopped"].map(|name| dense.out(&format!("{name} {pad}")));
        shrink(&dense.dir, &whole, &settings);
        let stop = &mut |p: Progress| if p.blocks == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let error = with(&dense.dir, stopped.as_path(), &settings, false, stop).unwrap_err();
        assert!(matches!(error, Error::Unfinished { .. }), "{error}");
        with(&dense.dir, stopped.as_path(), &settings, true, &mut go_on).unwrap();
        assert!(files(&whole) == files(&stopped), "padded: {pad}");
    }
}
