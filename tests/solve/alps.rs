use crate::common::*;
use lacuna::criteria::{Evidence, Wanda};
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::solve::{Alps, Pruner, Reconstruct, Reconstructed, Scored, Solver, SparseGpt, squared_error};

const NM: Pattern = Pattern::Nm { n: 2, m: 4 };

fn total(pruner: &dyn Pruner, pattern: Pattern, sparsity: f64) -> f64 {
    (0..6).map(|seed| Layer::random(12, 60, 200, 70 + seed).prune(pruner, pattern, sparsity).unwrap().loss.unwrap()).sum()
}

#[test]
fn it_loses_less_than_sparsegpt_and_than_least_squares_on_wanda_s_mask() {
    let exact = Reconstruct { damping: 0.01, solver: Solver::Exact };
    let wanda = Scored(&Wanda);
    for (pattern, sparsity) in [(Pattern::Unstructured, 0.5), (Pattern::Unstructured, 0.7), (NM, 0.5)] {
        let alps = total(&Alps::default(), pattern, sparsity);
        let sparse = total(&SparseGpt::default(), pattern, sparsity);
        let wanda = total(&Reconstructed::new(&wanda, exact), pattern, sparsity);
        assert!(alps < 0.97 * sparse && alps < wanda, "{pattern} {sparsity}: alps {alps}, sparsegpt {sparse}, wanda {wanda}");
    }
}

#[test]
fn of_eight_weights_it_loses_no_less_than_the_best_mask_and_little_more() {
    let (mut best, mut found) = (0.0, 0.0);
    for seed in 0..20 {
        let layer = Layer::random(2, 8, 40, seed);
        let alps = Alps { damping: 0.0, ..Alps::default() };
        let loss = layer.prune_in(&alps, Pattern::Unstructured, Scope::Row, 0.5).unwrap().loss.unwrap();
        let least: f64 = layer.weight.rows().into_iter().map(|w| best_row(&wide(w), 4, layer.gram(), |_| true)).sum();
        assert!(loss >= least * (1.0 - 1e-5), "seed {seed}: {loss} is less than the least, {least}");
        best += least;
        found += loss;
    }
    assert!(found < 1.25 * best, "{found} where {best} is possible");
}

#[test]
fn its_weights_are_the_least_squares_solution_on_its_mask() {
    let layer = Layer::random(8, 40, 120, 81);
    let pruned = layer.prune(&Alps { back_solve: 100, ..Alps::default() }, Pattern::Unstructured, 0.6).unwrap();
    let exact = Reconstruct { damping: 0.01, solver: Solver::Exact }.run(&layer.evidence(), &pruned.mask, &layer.weight).unwrap();
    let (least, found) = (squared_error(&exact, &layer.weight, layer.gram()), pruned.loss.unwrap());
    assert!((found / least - 1.0).abs() < 1e-3, "{found} and {least}");
}

#[test]
fn every_pattern_is_met_exactly_and_older_masks_are_kept() {
    let layer = Layer::random(8, 48, 150, 83);
    let old = Mask::from_fn(8, 48, |r, c| (r * 5 + c) % 7 != 0);
    let block = |rows, cols| Pattern::Block { rows, cols };
    for pattern in [Pattern::Unstructured, NM, Pattern::Nm { n: 4, m: 8 }, block(1, 4), block(4, 4), Pattern::Cols, Pattern::Rows]
    {
        let pruned = layer.prune(&Alps::default(), pattern, 0.5).unwrap();
        pattern.check(&pruned.mask).unwrap();
        assert_eq!(pruned.mask.kept(), 192, "{pattern}");
    }
    let evidence = Evidence { mask: Some(&old), ..layer.evidence() };
    let pruned = Alps::default().prune(&evidence, Pattern::Unstructured, Scope::Layer, keep(150, 384)).unwrap();
    assert!(pruned.mask.is_subset_of(&old) && pruned.mask.kept() == 150);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let layer = Layer::random(30, 80, 200, 85);
    let run = || layer.prune(&Alps::default(), Pattern::Unstructured, 0.7).unwrap();
    assert_eq!(on_threads(1, run), on_threads(2, run));
}

#[test]
fn singular_matrices_and_settings_out_of_range_are_errors() {
    let layer = Layer::random(3, 30, 8, 87);
    let text = layer.prune(&Alps { damping: 0.0, ..Alps::default() }, Pattern::Unstructured, 0.5).unwrap_err().to_string();
    assert!(text.starts_with("layer blocks.3.o: Gram matrix: ") && text.contains("8 tokens, damping 0"), "{text}");
    let text = layer.prune(&Alps { rho: 0.0, ..Alps::default() }, Pattern::Unstructured, 0.5).unwrap_err().to_string();
    assert_eq!(text, "rho: 0 is not a finite number above 0; 0.1 is usual");
}
