//! Whole weights in 16 bits give the very bits of the `f32` weight, whichever kernels run; in 4 and 8 bits what it gives within the error of `f32`.

use crate::close::assert_close;
use lacuna::mask::Mask;
use lacuna::nn::Linear;
use lacuna::rng::Seed;
use lacuna::sparse::{ActivationBits, Hint, Plan};
use ndarray::{Array1, Array2, ArrayRef2, Axis, s};

fn bits(a: &ArrayRef2<f32>) -> Vec<u32> {
    a.iter().map(|v| v.to_bits()).collect()
}

/// A weight whose numbers `to` has rounded, as a layer of 32 bits and one of fewer.
fn layers(rows: usize, cols: usize, to: fn(Array2<f32>) -> Array2<f32>) -> (Linear, Linear, Array2<f32>) {
    let weight = to(Seed(3).stream("weight").normal_array(rows, cols, 1.0));
    let bias = Array1::from_iter((0..rows).map(|i| i as f32 - 2.0));
    let wide = Linear::new("wide", weight.clone(), Some(bias.clone()));
    let mut narrow = Linear::new("narrow", weight.clone(), Some(bias));
    narrow.narrow(ActivationBits::Full);
    (wide, narrow, weight)
}

/// Rounded to bytes with a scale of 11 bits for each 32 along a row, as Q8_0 is; one group is all zeros.
fn in_bytes(mut weight: Array2<f32>) -> Array2<f32> {
    weight.row_mut(0).slice_mut(s![..32]).fill(0.0);
    for mut row in weight.rows_mut() {
        for mut group in row.axis_chunks_iter_mut(Axis(0), 32) {
            let scale = half::f16::from_f32(group.fold(0.0f32, |m, w| m.max(w.abs())) / 127.0).to_f32();
            // No zero has a sign.
            group.mapv_inplace(|w| if scale > 0.0 { (w / scale).round() as i8 as f32 * scale } else { 0.0 });
        }
    }
    weight
}

/// Rounded to half bytes with a scale and an offset of 11 bits for each 32 along a row, as Q4_1 is; one group is all the same.
fn in_half_bytes(mut weight: Array2<f32>) -> Array2<f32> {
    let f16 = |w: f32| half::f16::from_f32(w).to_f32();
    for mut row in weight.rows_mut() {
        for mut group in row.axis_chunks_iter_mut(Axis(0), 32) {
            let (least, most) = group.fold((f32::MAX, f32::MIN), |(l, m), &w| (l.min(w), m.max(w)));
            let (scale, offset) = (f16((most - least) / 15.0), f16(least));
            group.mapv_inplace(|w| scale * ((w - least) / (most - least) * 15.0).round() + offset);
        }
    }
    weight.row_mut(0).slice_mut(s![..32]).fill(-0.37);
    weight
}

#[test]
fn few_and_many_tokens_of_any_strides_give_the_same_bits_in_fewer_bits() {
    let bf16 = |w: Array2<f32>| w.mapv(|w| half::bf16::from_f32(w).to_f32());
    let f16 = |w: Array2<f32>| w.mapv(|w| half::f16::from_f32(w).to_f32());
    let plain = [(1, 1), (3, 7), (33, 65), (131, 600), (700, 576)];
    let whole_groups = [(2, 32), (3, 64), (33, 96), (131, 608), (700, 576)];
    for (name, to, shapes) in [
        ("bf16", bf16 as fn(Array2<f32>) -> Array2<f32>, plain),
        ("f16", f16, plain),
        ("i8", in_bytes, whole_groups),
        ("u4", in_half_bytes, whole_groups),
    ] {
        for (rows, cols) in shapes {
            let (wide, narrow, weight) = layers(rows, cols, to);
            assert_eq!(narrow.op().format(), name, "{rows} x {cols}");
            // Of codes, scales and offsets have 16 bits, and rows lie side by side.
            let codes = name == "u4" || name == "i8";
            let cells = if codes { rows.next_multiple_of(16) * cols } else { rows * cols };
            let bytes = match name {
                // The least numbers of some groups need 32.
                "u4" => cells / 2 + cells / 16 + cells / 8,
                "i8" => cells + cells / 16,
                _ => 2 * cells,
            };
            assert!(
                narrow.op().bytes() <= bytes && 2 * bytes < 3 * narrow.op().bytes() || rows < 16,
                "{name}: {} bytes",
                narrow.op().bytes()
            );
            assert_eq!(narrow.op().to_dense(), weight);
            let same = |found: &Array2<f32>, right: &Array2<f32>, case: String| {
                if codes {
                    assert_close(found, right, 2e-5 * (cols as f32).sqrt(), case);
                } else {
                    assert_eq!(bits(found), bits(right), "{case}");
                }
            };
            for tokens in [0, 1, 2, 3, 5, 8, 9, 40] {
                let x = Seed(4).stream("x").normal_array(tokens, cols, 1.0);
                same(&narrow.apply(&x), &wide.apply(&x), format!("{name}, {rows} x {cols}, {tokens} tokens"));
                let apart = Seed(4).stream("x").normal_array(tokens, 2 * cols, 1.0);
                let apart = apart.slice(s![.., ..;2]);
                same(&narrow.apply(&apart), &wide.apply(&apart), format!("{name}, {rows} x {cols}, strides"));
                let [mut a, mut b] = [(); 2].map(|()| Seed(5).stream("y").normal_array(tokens, rows, 1.0));
                wide.add_to(&x, &mut a);
                narrow.add_to(&x, &mut b);
                same(&b, &a, format!("{name}, {rows} x {cols}, {tokens} tokens, accumulated"));
                let dy = Seed(6).stream("dy").normal_array(tokens, rows, 1.0);
                let [mut a, mut b] = [(); 2].map(|()| Array2::zeros((tokens, cols)));
                wide.op().apply_transpose_into(&dy, &mut a);
                narrow.op().apply_transpose_into(&dy, &mut b);
                // The sum over outputs is cut into runs of rows.
                assert_close(&b, &a, 1e-3f32.next_down(), format!("{name}, {rows} x {cols}, {tokens} tokens, back"));
            }
            let mut row = vec![0.0; cols];
            narrow.row_into(rows - 1, &mut row);
            assert_eq!(row, weight.row(rows - 1).to_vec());
        }
    }
}

#[test]
fn numbers_that_fewer_bits_do_not_hold_stay_in_32() {
    for to in [in_bytes, in_half_bytes] {
        let mut weight = to(Seed(3).stream("weight").normal_array(4, 64, 1.0));
        weight[[3, 60]] = f32::from_bits(weight[[3, 60]].to_bits() + 1);
        let mut layer = Linear::new("odd", weight, None);
        layer.narrow(ActivationBits::Full);
        assert_eq!(layer.op().format(), "dense", "one number off its group's scale");
    }
    for odd in [0.1, f32::from_bits(0x7f80_0001), 1e-30, 3.0e38] {
        let mut weight = Array2::<f32>::ones((4, 5));
        weight[[3, 4]] = odd;
        let mut layer = Linear::new("odd", weight, None);
        layer.narrow(ActivationBits::Full);
        assert_eq!(layer.op().format(), "dense", "{odd}");
    }
    let mut layer = Linear::new("zeros", ndarray::array![[0.0, -0.0, f32::INFINITY, 65280.0]], None);
    layer.narrow(ActivationBits::Full);
    assert_eq!(layer.op().format(), "bf16", "signs, infinities and what eight bits of fraction hold");
    assert_eq!(bits(&layer.op().to_dense()), bits(&ndarray::array![[0.0, -0.0, f32::INFINITY, 65280.0]]));
}

#[test]
fn a_layer_reads_rows_of_whatever_it_is_stored_as() {
    let mut stream = Seed(3).stream("embedding");
    let w = stream.normal_array(70, 64, 1.0);
    let mask = Mask::from_fn(70, 64, |_, _| stream.uniform() < 0.4);
    let mut layer = Linear::new("embedding", mask.applied(&w), None);
    let read = |layer: &Linear| {
        let mut row = vec![f32::NAN; 64];
        layer.row_into(69, &mut row);
        row
    };
    let dense = read(&layer);
    assert_eq!(dense, mask.applied(&w).row(69).to_vec());
    layer.set_op(Box::new(Plan::new(&w, &mask, Hint::tokens(1)).unwrap())).unwrap();
    assert_eq!(read(&layer), dense);
}
