//! Dense products through the [`gemm`](https://docs.rs/gemm) crates (AVX-512, AVX2 + FMA, NEON), with any strides.

use gemm_common::Parallelism;
use ndarray::{ArrayRef2, Axis};

/// Who may work on one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Threads {
    /// The calling thread alone: right inside a parallel loop.
    One,
    /// The current rayon pool, when the product is large enough to gain by it.
    #[default]
    Pool,
}

impl Threads {
    /// How many they are.
    pub(crate) fn count(self) -> usize {
        match self {
            Threads::One => 1,
            Threads::Pool => rayon::current_num_threads(),
        }
    }
}

/// `c <- alpha * a * b + beta * c` in f32, where `a` is `(m, k)`, `b` is `(k, n)` and `c` is `(m, n)`, each with any strides.
///
/// If `beta` is 0, `c` is not read: it may hold anything. The result does not depend on the number of threads: work is
/// split over the entries of `c`, never over `k`.
///
/// # Panics
/// If the shapes do not agree.
pub fn gemm(alpha: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, beta: f32, c: &mut ArrayRef2<f32>, threads: Threads) {
    let ((m, k), (k2, n)) = (a.dim(), b.dim());
    assert!(k == k2 && c.dim() == (m, n), "gemm: {:?} <- {:?} x {:?}", c.dim(), a.dim(), b.dim());
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        c.map_inplace(|c| *c = if beta == 0.0 { 0.0 } else { beta * *c });
        return;
    }
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::Pool => Parallelism::Rayon(0),
    };
    // The kernel is made for outputs whose rows are neighbours, and no stride may be negative.
    let (mut c, mut a, mut b) = (c.view_mut(), a.view(), b.view());
    if c.strides()[1].abs() < c.strides()[0].abs() {
        (c, a, b) = (c.reversed_axes(), b.reversed_axes(), a.reversed_axes());
    }
    if c.strides()[0] < 0 {
        c.invert_axis(Axis(0));
        a.invert_axis(Axis(0));
    }
    if c.strides()[1] < 0 {
        c.invert_axis(Axis(1));
        b.invert_axis(Axis(1));
    }
    if a.strides()[1] < 0 {
        a.invert_axis(Axis(1));
        b.invert_axis(Axis(0));
    }
    let ((m, n), k) = (c.dim(), a.ncols());
    let (cs, a_s, bs) = (c.strides().to_vec(), a.strides(), b.strides());
    let product = gemm_f32::gemm::f32::get_gemm_fn();
    // SAFETY: the kernel is one that runs here; the pointers and strides come from ndarray references, which reach exactly the entries of the
    // shapes that were checked above; `c` is borrowed mutably, so it overlaps neither `a` nor `b`, and no two of its entries coincide.
    unsafe {
        product(
            m,
            n,
            k,
            c.as_mut_ptr(),
            cs[1],
            cs[0],
            beta != 0.0,
            a.as_ptr(),
            a_s[1],
            a_s[0],
            b.as_ptr(),
            bs[1],
            bs[0],
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
