//! Shrunk Gram matrices, weights of texts, and what is chosen on texts that are left out.

use crate::common::*;
use lacuna::criteria::{Evidence, Measured, Need, TextGram, Wanda};
use lacuna::linalg::{Cross, Gram};
use lacuna::mask::{Pattern, Scope};
use lacuna::rng::Seed;
use lacuna::solve::{
    Alps, GramShrinkage, Pruner, Regularised, Retarget, RobustTexts, Scored, SparseGpt, TextProducts, chosen_shares,
    relative_error,
};
use ndarray::{Array2, array, s};

const HALF: Pattern = Pattern::Unstructured;

/// A layer with texts of so many tokens; inputs of each lie in directions of their own.
fn layer(texts: &[usize], seed: u64) -> Layer {
    let mut stream = Seed(seed).stream("texts");
    let weight = stream.normal_array(8, 16, 1.0);
    let mut found = Vec::new();
    for (g, &tokens) in texts.iter().enumerate() {
        let mut x = stream.normal_array(tokens, 16, 0.3);
        let common = stream.normal_array(tokens, 1, 2.0);
        let along = Seed(seed + 100 * g as u64).stream("along").normal_array(1, 16, 1.0);
        x += &common.dot(&along);
        let mut gram = Gram::new(16);
        gram.update(&x).unwrap();
        found.push(TextGram { tokens, gram: gram.matrix(), held_out: false });
    }
    let gram = found.iter().map(|t| t.gram.clone()).reduce(|a, b| a + b);
    let measured = Measured { tokens: texts.iter().sum(), gram, texts: found, ..Measured::default() };
    Layer { weight, measured }
}

fn errors(layer: &Layer, weight: &Array2<f32>) -> Vec<f64> {
    layer.measured.texts.iter().map(|text| relative_error(weight, &layer.weight, &text.gram)).collect()
}

#[test]
fn without_shrinkage_it_is_the_pruner_to_the_bit() {
    let layer = layer(&[40, 60], 1);
    for pruner in [&SparseGpt::default() as &dyn Pruner, &Alps::default(), &Scored(Wanda)] {
        let plain = layer.prune(pruner, HALF, 0.5).unwrap();
        assert_eq!(layer.prune(&Regularised::new(pruner), HALF, 0.5).unwrap(), plain);
        let robust = Regularised { robust: Some(RobustTexts::new(1)), ..Regularised::new(pruner) };
        assert_eq!(layer.prune(&robust, HALF, 0.5).unwrap(), plain, "the first solve is the plain one");
    }
    assert_eq!(Regularised::new(SparseGpt::default()).needs(), SparseGpt::default().needs());
}

#[test]
fn towards_the_diagonal_all_the_way_sparsegpt_looks_at_what_wanda_looks_at() {
    let layer = layer(&[50, 50], 2);
    let shrinkage = GramShrinkage { diagonal: 1.0, ..GramShrinkage::default() };
    let pruner = SparseGpt { damping: 0.0, ..SparseGpt::default() };
    let pruned = layer.prune_in(&Regularised { shrinkage, ..Regularised::new(pruner) }, HALF, Scope::Row, 0.5).unwrap();
    let wanda = layer.prune_in(&Scored(Wanda), HALF, Scope::Row, 0.5).unwrap();
    assert_eq!(pruned.mask, wanda.mask);
    assert_eq!(pruned.weight, wanda.weight, "no weight takes over what another loses");
    let loss = layer.prune_in(&Scored(Wanda), HALF, Scope::Row, 0.5).unwrap().loss;
    assert_eq!(pruned.loss, loss, "the loss is that on the matrix as it was measured");
}

#[test]
fn shrinkage_is_its_formula_and_leaves_dead_inputs_dead() {
    let mut layer = layer(&[30, 90], 3);
    for text in &mut layer.measured.texts {
        text.gram.column_mut(2).fill(0.0);
        text.gram.row_mut(2).fill(0.0);
    }
    let [a, b] = [0, 1].map(|g| layer.measured.texts[g].gram.clone());
    layer.measured.gram = Some(&a + &b);
    let shrinkage = GramShrinkage { diagonal: 0.25, identity: 0.1, texts: 0.5 };
    let found = shrinkage.gram(&layer.measured, None).unwrap().unwrap();
    // Weights by tokens are 1/4 and 3/4, half-way to equal ones 3/8 and 5/8; times 120 tokens over those of the text.
    let whole = a * (0.375 * 120.0 / 30.0) + b * (0.625 * 120.0 / 90.0);
    let mean = whole.diag().mean().unwrap();
    for ((i, j), &h) in found.indexed_iter() {
        let by_hand = match i == j {
            true if i == 2 => 0.0,
            true => whole[[i, i]] + 0.1 * mean,
            false => 0.75 * whole[[i, j]],
        };
        assert!((h - by_hand).abs() <= 1e-12 * by_hand.abs().max(1.0), "{i}, {j}: {h} is not {by_hand}");
    }
    // Equal weights of texts with as many tokens are what the sum is.
    let even = self::layer(&[30, 30], 4);
    let mean = GramShrinkage { texts: 1.0, ..GramShrinkage::default() }.gram(&even.measured, None).unwrap().unwrap();
    assert!((&mean - even.gram()).iter().all(|d| d.abs() < 1e-9));
    let wrong = GramShrinkage { diagonal: 1.5, ..GramShrinkage::default() }.gram(&even.measured, None).unwrap_err().to_string();
    assert_eq!(wrong, "shrinkage: 1.5 towards the diagonal is not in [0, 1]; 0.1 is usual");
}

#[test]
fn the_worst_text_fares_no_worse_and_mostly_better_and_one_text_is_the_plain_solve() {
    let mut better = 0;
    for seed in 0..10 {
        // One text has a tenth of the tokens: the plain sum all but passes it over.
        let layer = layer(&[200, 20], seed);
        let plain = layer.prune(&SparseGpt::default(), HALF, 0.5).unwrap();
        let robust = Regularised { robust: Some(RobustTexts::new(6)), ..Regularised::new(SparseGpt::default()) };
        assert!(robust.needs().contains(Need::TextGrams));
        let pruned = layer.prune(&robust, HALF, 0.5).unwrap();
        pruned.fulfils(&layer.evidence(), HALF, HALF.budget(8, 16, 0.5).unwrap()).unwrap();
        let worst = |weight| errors(&layer, weight).into_iter().fold(0.0, f64::max);
        let (before, after) = (worst(&plain.weight), worst(&pruned.weight));
        assert!(after <= before, "seed {seed}: {before} to {after}");
        better += usize::from(after < 0.9 * before);
        let one = self::layer(&[200], seed);
        let alone = one.prune(&robust, HALF, 0.5).unwrap();
        assert_eq!(alone, one.prune(&SparseGpt::default(), HALF, 0.5).unwrap());
    }
    assert!(better >= 5, "{better} of 10 are a tenth better");
    let missing = Layer { measured: Measured { texts: vec![], ..layer(&[9], 0).measured }, weight: layer(&[9], 0).weight };
    let robust = Regularised { robust: Some(RobustTexts::new(2)), ..Regularised::new(SparseGpt::default()) };
    let line = missing.prune(&robust, HALF, 0.5).unwrap_err().to_string();
    assert!(line.contains("the Gram matrices of the texts"), "{line}");
}

#[test]
fn shrinkage_is_chosen_by_the_error_on_what_was_left_out() {
    let candidates = [0.0, 0.3, 0.6, 1.0].map(|diagonal| GramShrinkage { diagonal, ..GramShrinkage::default() });
    let regularised = Regularised::new(SparseGpt::default());
    let how = (HALF, Scope::Layer, HALF.budget(8, 16, 0.5).unwrap());
    let mut layer = layer(&[20, 20, 20], 7);
    // By hand, each text in turn.
    let score = |layer: &Layer, shrinkage: GramShrinkage, left_out: usize| {
        let texts: Vec<TextGram> =
            layer.measured.texts.iter().enumerate().filter(|(g, _)| *g != left_out).map(|(_, t)| t.clone()).collect();
        let gram = texts.iter().map(|t| t.gram.clone()).reduce(|a, b| a + b);
        let measured = Measured { tokens: 40, gram, ..Measured::default() };
        let pruner = Regularised { shrinkage, ..regularised };
        let rest = Evidence { measured: &measured, ..layer.evidence() };
        errors(layer, &pruner.prune(&rest, how.0, how.1, how.2).unwrap().weight)[left_out]
    };
    let sums = candidates.map(|c| (0..3).map(|g| score(&layer, c, g)).sum::<f64>());
    let best = (0..4).min_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap();
    assert_eq!(regularised.chosen(&layer.evidence(), how, &candidates).unwrap(), candidates[best], "{sums:?}");
    // One that is held out alone judges.
    layer.measured.texts[1].held_out = true;
    let gram = &layer.measured.texts[0].gram + &layer.measured.texts[2].gram;
    layer.measured.gram = Some(gram);
    let alone = candidates.map(|c| score(&layer, c, 1));
    let best = (0..4).min_by(|a, b| alone[*a].total_cmp(&alone[*b])).unwrap();
    assert_eq!(regularised.chosen(&layer.evidence(), how, &candidates).unwrap(), candidates[best], "{alone:?}");
    // Texts that are alike say nothing against the plain solve.
    let mut twins = self::layer(&[400], 8);
    twins.measured.texts.push(twins.measured.texts[0].clone());
    twins.measured.gram = Some(twins.gram() * 2.0);
    assert_eq!(regularised.chosen(&twins.evidence(), how, &candidates).unwrap(), candidates[0]);
    let line = regularised.chosen(&self::layer(&[9], 0).evidence(), how, &candidates).unwrap_err().to_string();
    assert_eq!(line, "layer blocks.3.o: choose: 4 candidates and 1 texts: one is left out, and one is fitted on");
}

/// Inputs of a text in the dense and in a changed model, and the drift of its hidden states.
struct Changed {
    x: Array2<f32>,
    dense: Array2<f32>,
    drift: Array2<f32>,
    gram: Array2<f64>,
    crossed: Cross,
    drifted: Cross,
}

impl Changed {
    fn new(x: Array2<f32>, dense: Array2<f32>, drift: Array2<f32>) -> Changed {
        let mut gram = Gram::new(x.ncols());
        gram.update(&x).unwrap();
        let (mut crossed, mut drifted) = (Cross::new(dense.ncols(), x.ncols()), Cross::new(drift.ncols(), x.ncols()));
        crossed.update(&dense, &x).unwrap();
        drifted.update(&drift, &x).unwrap();
        Changed { gram: gram.matrix(), x, dense, drift, crossed, drifted }
    }

    fn products(&self) -> TextProducts<'_> {
        let (crossed, drift) = (Some(self.crossed.matrix()), Some(self.drifted.matrix()));
        TextProducts { tokens: self.x.nrows(), gram: &self.gram, crossed, drift, held_out: false }
    }

    /// ‖X Vᵀ − Y‖² / ‖X Wᵀ‖².
    fn error(&self, w: &Array2<f32>, v: &Array2<f32>) -> f64 {
        let wide = |a: &Array2<f32>| a.mapv(f64::from);
        let target = wide(&self.dense).dot(&wide(w).t()) + wide(&self.drift);
        let given = wide(&self.x).dot(&wide(w).t());
        let off = wide(&self.x).dot(&wide(v).t()) - target;
        off.mapv(|d| d * d).sum() / given.mapv(|d| d * d).sum()
    }
}

#[test]
fn shares_are_those_of_the_least_error_on_texts_left_out() {
    let mut stream = Seed(3).stream("changed");
    let w = stream.normal_array(5, 6, 1.0);
    let mut text = |tokens: usize, change: f32| {
        let dense = stream.normal_array(tokens, 6, 1.0);
        let x = &dense * 0.8 + stream.normal_array(tokens, 6, change);
        let drift = stream.normal_array(tokens, 5, 0.5) + x.slice(s![.., ..5]);
        Changed::new(x, dense, drift)
    };
    let texts = [text(12, 0.5), text(10, 0.7), text(9, 0.4)];
    let damping = 0.01;
    let layer = Evidence::weight_only("fc1", &w);
    let all: Vec<TextProducts<'_>> = texts.iter().map(Changed::products).collect();
    let found = chosen_shares(&layer, &all, (1.0, 0.5), damping).unwrap();
    // By hand: a weight for each pair and text left out, on its own inputs.
    let score = |a: f64, b: f64| -> f64 {
        let one = |left_out: usize| {
            let rest: Vec<&Changed> = (0..3).filter(|g| *g != left_out).map(|g| &texts[g]).collect();
            let sum = |of: &dyn Fn(&Changed) -> Array2<f64>| rest.iter().map(|t| of(t)).reduce(|a, b| a + b).unwrap();
            let gram = sum(&|t| t.gram.clone());
            let (crossed, drift) = (sum(&|t| t.crossed.matrix().clone()), sum(&|t| t.drifted.matrix().clone()));
            let measured = Measured { tokens: 20, gram: Some(gram), ..Measured::default() };
            let retarget = Retarget { damping, inputs: Some((a, &crossed)), hidden_states: Some((b, &drift)) };
            texts[left_out]
                .error(&w, &retarget.run(&Evidence { measured: &measured, ..Evidence::weight_only("fc1", &w) }).unwrap())
        };
        (0..3).map(one).sum()
    };
    let mut best = (f64::INFINITY, (0.0, 0.0));
    for (i, j) in (0..=20).flat_map(|i| (0..=20).map(move |j| (i, j))) {
        let at = (i as f64 / 20.0, 0.5 * j as f64 / 20.0);
        let value = score(at.0, at.1);
        if value < best.0 {
            best = (value, at);
        }
    }
    let least = score(found.0, found.1);
    assert!(least <= best.0 * (1.0 + 1e-5), "{found:?} gives {least}, {best:?} is less");
    // Nothing was changed: nothing is made up for.
    let x = Seed(1).stream("x").normal_array(9, 6, 1.0);
    let still = Changed::new(x.clone(), x, Array2::zeros((9, 5)));
    assert_eq!(chosen_shares(&layer, &[still.products(), still.products()], (1.0, 1.0), damping).unwrap(), (0.0, 0.0));
    let line = chosen_shares(&layer, &[still.products()], (1.0, 1.0), damping).unwrap_err().to_string();
    assert!(line.contains("1 texts: one is left out"), "{line}");
    let narrow = array![[1.0]];
    let wrong = TextProducts { crossed: Some(&narrow), ..still.products() };
    assert!(chosen_shares(&layer, &[wrong, wrong], (1.0, 1.0), damping).is_err());
}
