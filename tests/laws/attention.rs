//! A query alone is attended to as it is among others.

use crate::close::{assert_close, assert_within};
use lacuna::nn::{AttentionRule, Distances, Heads, Seen, attend};
use lacuna::rng::Seed;
use ndarray::{Array2, s};

#[test]
fn a_single_query_gives_what_it_gives_among_others() {
    let rule = AttentionRule { scale: 0.2, cap: None, window: None, causal: true };
    for (heads, dims) in [((9, 3), 64), ((4, 4), 20), ((2, 1), 7), ((3, 1), 130)] {
        let heads = Heads { queries: heads.0, keys: heads.1, dim: dims };
        for keys in [1, 2, 5, 40, 700] {
            let mut stream = Seed(7).stream(&format!("{heads:?}/{keys}"));
            let q = stream.normal_array(keys, heads.queries * dims, 1.0);
            let (k, v) = (stream.normal_array(keys, heads.keys * dims, 1.0), stream.normal_array(keys, heads.keys * dims, 1.0));
            let far = Distances::new(stream.normal_array(heads.queries, 2 * keys, 1.0), keys);
            let rules = [
                (rule, None),
                (AttentionRule { cap: Some(3.0), ..rule }, None),
                (AttentionRule { window: Some(4), ..rule }, None),
                (AttentionRule { causal: false, ..rule }, None),
                (rule, Some(&far)),
            ];
            for (rule, bias) in rules {
                let mut all = Array2::zeros(q.dim());
                attend(&[Seen { q: q.view(), k: k.view(), v: v.view(), first: 0 }], heads, &rule, bias, all.view_mut());
                let last = keys - 1;
                let mut one = Array2::zeros((1, q.ncols()));
                let alone = Seen { q: q.slice(s![last.., ..]), k: k.view(), v: v.view(), first: last };
                attend(&[alone], heads, &rule, bias, one.view_mut());
                let case = format!("{heads:?}, {keys} keys, {rule:?}");
                assert_within(&one.row(0), &all.row(last), |_, a: f32| (1e-5 * (1.0 + a.abs())).next_down(), &case);
                // Nor does it matter whether keys lie side by side.
                let wide = |m: &Array2<f32>| {
                    let mut wide = Array2::from_elem((keys, 2 * m.ncols()), f32::NAN);
                    wide.slice_mut(s![.., ..m.ncols()]).assign(m);
                    wide
                };
                let (k_wide, v_wide, columns) = (wide(&k), wide(&v), ..k.ncols());
                let apart = Seen { k: k_wide.slice(s![.., columns]), v: v_wide.slice(s![.., columns]), ..alone };
                let mut other = Array2::zeros((1, q.ncols()));
                attend(&[apart], heads, &rule, bias, other.view_mut());
                assert_close(&other, &one, 1e-5f32.next_down(), case);
            }
        }
    }
}
