//! Products work beside their weight, x and y in bounded memory, whatever the strides, counted by the allocator: no copy of the weight, and
//! with many tokens none of x or y.

mod allocator;
mod random;

use allocator::beside;
use lacuna_sparse::mask::{Mask, Pattern, Scope, select};
use lacuna_sparse::storage::{Format, Precision};
use ndarray::{Array2, s};
use random::Seed;

const ROWS: usize = 4096;
const COLS: usize = 1536;

/// Bytes that a call asked for at most beside what was there, on a thread of its own: what threads keep at hand is counted too.
fn alone(call: impl FnOnce() + Send) -> usize {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| beside(call).1)
}

#[test]
fn strided_products_copy_neither_the_weight_nor_many_tokens() {
    let weight = Seed(1).stream("weight").normal_array(ROWS, COLS, 1.0);
    let of =
        |pattern: Pattern| -> Mask { select(&weight, pattern, Scope::Layer, pattern.budget(ROWS, COLS, 0.5).unwrap()).unwrap() };
    let cases = [
        (Format::Csr, "unstructured", Precision::F32),
        (Format::TileCsr(128), "unstructured", Precision::F32),
        (Format::TilePairs(64), "unstructured", Precision::Bf16),
        (Format::Bitmask(128), "unstructured", Precision::I8),
        (Format::Nm(2, 4), "2:4", Precision::F32),
        (Format::Bsr(16, 1), "block16x1", Precision::I8),
    ];
    // Strips of 128 tokens of x beside the sums of a block of up to 1024 rows, and on the way back strips of 64 of dy beside those of a tile of
    // columns; with few tokens a block of rows' sums; and lists of tasks.
    let lists = 64 << 10;
    let bounds = |tokens: usize| match tokens {
        ..64 => [4 * 8 * tokens * (COLS + 1024) + lists, 4 * 4 * (ROWS + COLS) + lists],
        _ => [4 * 128 * (COLS + 1025) + lists, 4 * 64 * (ROWS + COLS) + lists],
    };
    for (format, pattern, values) in cases {
        let op = format.build(&weight, &of(pattern.parse().unwrap()), values).unwrap();
        // A row is read without its weight being made dense.
        let mut row = vec![0.0; COLS];
        let read = alone(|| op.row_into(ROWS - 1, &mut row));
        assert!(read <= 4 * COLS, "{format} of {values}: {read} bytes for a row");
        for tokens in [1, 4, 300] {
            let mut wide = Array2::<f32>::ones((2 * tokens, 3 * COLS));
            wide.row_mut(0).fill(2.0);
            let mut into = Array2::<f32>::zeros((3 * tokens, 2 * ROWS));
            let [bound, bound_back] = bounds(tokens);
            let (most, x, y) = (bound.max(bound_back), 4 * tokens * COLS, 4 * tokens * ROWS);
            assert!(tokens < 64 || most < x.min(y), "{most} bytes would hide a copy of x ({x}) or y ({y})");
            assert!(most < op.bytes() / 2, "{most} bytes would hide a copy of the weight ({})", op.bytes());
            let forward = alone(|| op.apply_into(&wide.slice(s![..;2, ..;3]), &mut into.slice_mut(s![..;3, ..;2])));
            assert!(forward <= bound, "{format} of {values}, {tokens} tokens: {forward} bytes, bound {bound}");
            let back = alone(|| op.apply_transpose_into(&into.slice(s![..;3, ..;2]), &mut wide.slice_mut(s![..;2, ..;3])));
            assert!(back <= bound_back, "{format} of {values}, {tokens} tokens back: {back} bytes, bound {bound_back}");
        }
    }
}
