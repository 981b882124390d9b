//! The way back through attention. Probabilities are made again, block by block, from queries and keys.
//!
//! ```text
//! dv_j = Σ_i p_ij dy_i      dp_ij = dy_i · v_j      ds_ij = p_ij (dp_ij - Σ_l p_il dp_il) cap'(s_ij)
//! dq_i = scale Σ_j ds_ij k_j      dk_j = scale Σ_i ds_ij q_i      dbias(j - i) = Σ ds_ij
//! ```

use super::attend::{BLOCK, weigh};
use super::{AttentionRule, Distances, Heads, Seen};
use crate::kernels::vector;
use crate::linalg::{Threads, gemm};
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

/// Gradients of queries, keys and values, shaped as they are.
#[derive(Debug)]
pub struct Back {
    /// Of the queries.
    pub q: Array2<f32>,
    /// Of the keys.
    pub k: Array2<f32>,
    /// Of the values.
    pub v: Array2<f32>,
}

/// Gradients of what one sequence's attention read, where `dy` is that of its output; that of the bias is added to `d_bias`,
/// shaped as its values. The bits do not depend on the number of threads.
///
/// # Panics
/// If shapes do not fit.
pub fn attend_back(
    seen: &Seen<'_>,
    heads: Heads,
    rule: &AttentionRule,
    bias: Option<&Distances>,
    dy: ArrayView2<'_, f32>,
    d_bias: Option<&mut Array2<f32>>,
) -> Back {
    seen.check(heads, dy.dim());
    let d = heads.dim;
    let parts: Vec<Head> = (0..heads.queries)
        .into_par_iter()
        .with_max_len(1)
        .map(|head| head_back(seen, heads, head, rule, bias, dy.slice(s![.., head * d..(head + 1) * d])))
        .collect();
    let mut back = Back { q: Array2::zeros(seen.q.dim()), k: Array2::zeros(seen.k.dim()), v: Array2::zeros(seen.v.dim()) };
    for (head, part) in parts.iter().enumerate() {
        let kv = head / heads.share();
        back.q.slice_mut(s![.., head * d..(head + 1) * d]).assign(&part.q);
        let mut dk = back.k.slice_mut(s![.., kv * d..(kv + 1) * d]);
        dk += &part.k;
        let mut dv = back.v.slice_mut(s![.., kv * d..(kv + 1) * d]);
        dv += &part.v;
    }
    if let Some(d_bias) = d_bias {
        for (mut row, part) in d_bias.rows_mut().into_iter().zip(&parts) {
            row.iter_mut().zip(&part.bias).for_each(|(d, p)| *d += *p as f32);
        }
    }
    back
}

struct Head {
    q: Array2<f32>,
    k: Array2<f32>,
    v: Array2<f32>,
    bias: Vec<f64>,
}

/// Rows of arrays that were made here.
const NEW: &str = "a new array is in standard layout";

fn head_back(
    seen: &Seen<'_>,
    heads: Heads,
    head: usize,
    rule: &AttentionRule,
    bias: Option<&Distances>,
    dy: ArrayView2<'_, f32>,
) -> Head {
    let [q, k, v] = seen.head(heads, head);
    let mut back = Head {
        q: Array2::zeros(q.dim()),
        k: Array2::zeros(k.dim()),
        v: Array2::zeros(v.dim()),
        bias: vec![0.0; bias.map_or(0, |b| b.values.ncols())],
    };
    for start in (0..q.nrows()).step_by(BLOCK) {
        let n = BLOCK.min(q.nrows() - start);
        let first = seen.first + start;
        let keys = rule.seen(first..first + n, k.nrows());
        let (q, dy) = (q.slice(s![start..start + n, ..]), dy.slice(s![start..start + n, ..]));
        let (k, v) = (k.slice(s![keys.clone(), ..]), v.slice(s![keys.clone(), ..]));
        // (queries of the block, keys that one of them sees)
        let mut p = Array2::zeros((n, keys.len()));
        gemm(1.0, &q, &k.t(), 0.0, &mut p, Threads::One);
        let products = rule.cap.map(|_| p.clone());
        for (i, mut row) in p.rows_mut().into_iter().enumerate() {
            let row = row.as_slice_mut().expect(NEW);
            let sum = weigh(row, &keys, first + i, rule, bias.map(|b| b.row(head, first + i, &keys)));
            vector::scale(row, (1.0 / sum) as f32);
        }
        let mut dv = back.v.slice_mut(s![keys.clone(), ..]);
        gemm(1.0, &p.t(), &dy, 1.0, &mut dv, Threads::One);
        let mut dp = Array2::zeros(p.dim());
        gemm(1.0, &dy, &v.t(), 0.0, &mut dp, Threads::One);
        for (i, (mut p, dp)) in p.rows_mut().into_iter().zip(dp.rows()).enumerate() {
            let (p, dp) = (p.as_slice_mut().expect(NEW), dp.to_slice().expect(NEW));
            let mean = vector::dot(p, dp) as f32;
            vector::softmax_back(p, dp, mean);
            if let Some(b) = bias {
                let at = b.zero + keys.start - (first + i);
                back.bias[at..at + p.len()].iter_mut().zip(&*p).for_each(|(d, p)| *d += f64::from(*p));
            }
            if let (Some(cap), Some(products)) = (rule.cap, &products) {
                for (p, s) in p.iter_mut().zip(products.row(i)) {
                    let t = (rule.scale * s / cap).tanh();
                    *p *= 1.0 - t * t;
                }
            }
        }
        let mut dq = back.q.slice_mut(s![start..start + n, ..]);
        gemm(rule.scale, &p, &k, 0.0, &mut dq, Threads::One);
        let mut dk = back.k.slice_mut(s![keys, ..]);
        gemm(rule.scale, &p.t(), &q, 1.0, &mut dk, Threads::One);
    }
    back
}
