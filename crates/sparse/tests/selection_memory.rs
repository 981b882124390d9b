//! Selection works beside the scores in bounded memory, counted by the allocator.

mod allocator;
mod random;

use allocator::beside;
use lacuna_sparse::mask::{Pattern, Scope, select};
use random::Seed;

#[test]
fn selecting_half_of_a_large_matrix_takes_less_than_the_scores_and_a_third_beside_them() {
    let scores = Seed(1).stream("scores").normal_array(4096, 2048, 1.0);
    let bytes = 4 * scores.len();
    for (pattern, scope) in
        [("unstructured", Scope::Layer), ("unstructured", Scope::Row), ("2:4", Scope::Layer), ("block4x1", Scope::Layer)]
    {
        let shape: Pattern = pattern.parse().unwrap();
        let budget = shape.budget(4096, 2048, 0.5).unwrap();
        let (mask, beside) = beside(|| select(&scores, shape, scope, budget).unwrap());
        assert_eq!(mask.kept(), scores.len() / 2);
        assert!(10 * beside <= 13 * bytes, "{pattern} in {scope:?} scope took {beside} bytes beside {bytes} of scores");
        if shape == Pattern::Unstructured {
            assert!(4 * beside <= bytes, "{pattern} in {scope:?} scope took {beside} bytes beside {bytes} of scores");
        }
    }
}
