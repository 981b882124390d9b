//! Functions of whole slices: exponentials, activations, softmax, sums.
//!
//! Each is one loop of plain arithmetic, compiled once for every instruction set; the compiler makes the vectors. No step
//! contracts a product and a sum, and sums run in sixteen lanes that are added in a fixed order, so every instruction set gives
//! the same bits.

use super::isa::Isa;
use ndarray::ArrayView2;

/// Compiles a function for each instruction set and calls the one that may run.
macro_rules! by_isa {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            match Isa::current() {
                // SAFETY: `Isa::current` names only what this machine has.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}

const LANES: usize = 16;
/// What rows that are given here have to be.
const GAPLESS: &str = "rows without gaps";
/// Numbers summed in `f32` before the sum goes on in `f64`.
const PART: usize = 1 << 10;

/// eˣ to 2 units in the last place; 0 below -87.3, the largest finite power of 2 times it above 88.3.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: what is added to it is rounded to an integer
    let clamped = x.clamp(-87.3, 88.3);
    let turned = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = turned - ROUND;
    // ln 2 in two parts, the first of 9 bits, so that n times it is exact.
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let power = turned.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let value = (p * r * r + r + 1.0) * f32::from_bits(power);
    if x < -87.3 { 0.0 } else { value }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x, to 2 units in the last place of it: by its series where x is small, elsewhere from the exponential.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3 * z + 2.063_908_8e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 0.333_332_83;
    let near = p * z * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// The argument of the logistic function in `gelu(x) ≈ x · σ(2 √(2/π) (x + 0.044715 x³))`, and its derivative.
#[inline(always)]
fn gelu_inner(x: f32) -> (f32, f32) {
    const TWICE: f32 = 1.595_769_2;
    (TWICE * (x + 0.044_715 * x * x * x), TWICE * (1.0 + 3.0 * 0.044_715 * x * x))
}

/// The sum of a power of two of numbers: halves are added until one number is left.
#[inline(always)]
pub(crate) fn add_up<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut n = N;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
    }
    lanes[0]
}

/// `Σ f(x, y)` over at most [`PART`] numbers.
#[inline(always)]
fn lane_sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    for (i, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[i] += f(x, y);
    }
    add_up(lanes)
}

by_isa! {
    /// Whether no number is infinite or NaN.
    fn all_finite(x: &[f32]) -> bool {
        x.iter().fold(0, |largest, x| largest.max(x.to_bits() as i32 & i32::MAX)) < f32::INFINITY.to_bits() as i32
    }
}

by_isa! {
    /// `Σ x y`, in parts of `f32` that are summed in `f64`.
    fn dot(x: &[f32], y: &[f32]) -> f64 {
        x.chunks(PART).zip(y.chunks(PART)).map(|(x, y)| f64::from(lane_sum(x, y, |x, y| x * y))).sum()
    }
}

by_isa! {
    /// `out_j = x · rows_j` for rows of at most 1024 numbers without gaps.
    fn row_dots(x: &[f32], rows: ArrayView2<'_, f32>, out: &mut [f32]) {
        for (row, out) in rows.rows().into_iter().zip(out) {
            *out = lane_sum(x, row.to_slice().expect(GAPLESS), |x, y| x * y);
        }
    }
}

by_isa! {
    /// `out = Σ_j weights_j rows_j` for rows without gaps.
    fn mix_rows(weights: &[f32], rows: ArrayView2<'_, f32>, out: &mut [f32]) {
        out.fill(0.0);
        let n = out.len();
        let row = |j: usize| &rows.row(j).to_slice().expect(GAPLESS)[..n];
        let (fours, last) = weights.as_chunks::<4>();
        // Four rows at a time, so that sums go through memory less often.
        for (i, w) in fours.iter().enumerate() {
            let [a, b, c, d] = [row(4 * i), row(4 * i + 1), row(4 * i + 2), row(4 * i + 3)];
            for (k, out) in out.iter_mut().enumerate() {
                *out += (w[0] * a[k] + w[1] * b[k]) + (w[2] * c[k] + w[3] * d[k]);
            }
        }
        for (i, w) in last.iter().enumerate() {
            let row = row(4 * fours.len() + i);
            out.iter_mut().zip(row).for_each(|(out, x)| *out += w * x);
        }
    }
}

by_isa! {
    /// `Σ x`, in parts of `f32` that are summed in `f64`.
    fn sum(x: &[f32]) -> f64 {
        x.chunks(PART).map(|x| f64::from(lane_sum(x, x, |x, _| x))).sum()
    }
}

by_isa! {
    /// `x <- e^(factor · x - shift)` and the sum of that.
    fn exp_sum(x: &mut [f32], factor: f32, shift: f32) -> f64 {
        let mut sum = 0.0;
        for x in x.chunks_mut(PART) {
            x.iter_mut().for_each(|x| *x = exp(factor * *x - shift));
            sum += f64::from(lane_sum(x, x, |x, _| x));
        }
        sum
    }
}

by_isa! {
    /// The largest number; -∞ of none. A NaN may be passed over.
    fn max(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for x in chunks {
            for i in 0..LANES {
                lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
            }
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }
}

by_isa! {
    /// `x <- factor · x`.
    fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

by_isa! {
    /// `x <- cap · tanh(factor · x / cap)`.
    fn soft_cap(x: &mut [f32], factor: f32, cap: f32) {
        x.iter_mut().for_each(|x| *x = cap * tanh(factor * *x / cap));
    }
}

by_isa! {
    /// `x <- x σ(x)`.
    fn silu(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x *= sigmoid(*x));
    }
}

by_isa! {
    /// `slope <- the derivative of x σ(x)`.
    fn silu_slope(x: &[f32], slope: &mut [f32]) {
        for (&x, slope) in x.iter().zip(slope) {
            let s = sigmoid(x);
            *slope = s * (1.0 + x * (1.0 - s));
        }
    }
}

by_isa! {
    /// `x <- gelu(x)` by its approximation with tanh.
    fn gelu_tanh(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x *= sigmoid(gelu_inner(*x).0));
    }
}

by_isa! {
    /// `slope <- the derivative of the approximated gelu`.
    fn gelu_tanh_slope(x: &[f32], slope: &mut [f32]) {
        for (&x, slope) in x.iter().zip(slope) {
            let (inner, d) = gelu_inner(x);
            let s = sigmoid(inner);
            *slope = s + x * s * (1.0 - s) * d;
        }
    }
}

by_isa! {
    /// `x <- x y`.
    fn times(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x *= y);
    }
}

by_isa! {
    /// `x <- x + factor · y`.
    fn add_scaled(x: &mut [f32], factor: f32, y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += factor * y);
    }
}

by_isa! {
    /// `p <- p (d - shift)`.
    fn softmax_back(p: &mut [f32], d: &[f32], shift: f32) {
        p.iter_mut().zip(d).for_each(|(p, d)| *p *= d - shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place_and_ends_where_floats_do() {
        for i in 0..200_000 {
            let x = -87.0 + 175.0 * i as f32 / 200_000.0;
            let (found, right) = (exp(x), f64::from(x).exp());
            let error = (f64::from(found) - right).abs() / right;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}) = {found}, {right}: {error:e}");
        }
        assert_eq!((exp(f32::NEG_INFINITY), exp(-100.0), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan() && exp(100.0) > 1e38);
    }

    #[test]
    fn slices_of_every_length_agree_with_plain_formulas() {
        for n in [0, 1, 15, 16, 17, 33, 1023, 1024, 2500] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 9.0).collect();
            let y: Vec<f32> = (0..n).map(|i| ((i * 53 % 89) as f32 - 44.0) / 7.0).collect();
            let wide = |x: f32| f64::from(x);
            let near = |a: f64, b: f64, what: &str| assert!((a - b).abs() <= 2e-6 * (1.0 + b.abs()), "{what} of {n}: {a} {b}");
            near(dot(&x, &y) / 1e3, x.iter().zip(&y).map(|(&x, &y)| wide(x) * wide(y)).sum::<f64>() / 1e3, "dot");
            near(sum(&x) / 1e2, x.iter().map(|&x| wide(x)).sum::<f64>() / 1e2, "sum");
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut e = x.clone();
            let total = exp_sum(&mut e, 0.5, 1.0);
            near(total, x.iter().map(|&x| (0.5 * wide(x) - 1.0).exp()).sum(), "exp_sum");
            let each = |f: &dyn Fn(&mut [f32]), g: &dyn Fn(f64) -> f64, what: &str| {
                let mut found = x.clone();
                f(&mut found);
                found.iter().zip(&x).for_each(|(&a, &x)| near(wide(a), g(wide(x)), what));
            };
            let silu_of = |x: f64| x / (1.0 + (-x).exp());
            let gelu_of = |x: f64| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            };
            let slope = |f: &dyn Fn(f64) -> f64, x: f64| (f(x + 1e-6) - f(x - 1e-6)) / 2e-6;
            each(&silu, &silu_of, "silu");
            each(&gelu_tanh, &gelu_of, "gelu");
            each(&|slope| silu_slope(&x, slope), &|x| slope(&silu_of, x), "slope of silu");
            each(&|slope| gelu_tanh_slope(&x, slope), &|x| slope(&gelu_of, x), "slope of gelu");
            each(&|x| soft_cap(x, 0.7, 3.0), &|x| 3.0 * (0.7 * x / 3.0).tanh(), "soft cap");
        }
    }

    #[test]
    fn tanh_is_right_to_three_units_in_the_last_place_near_zero_too() {
        for i in 1..100_000 {
            let x = (i as f32 / 100_000.0).powi(4) * if i % 2 == 0 { 12.0 } else { -12.0 };
            let (found, right) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((found - right).abs() < 3.0 * f64::from(f32::EPSILON) * right.abs(), "tanh({x}) = {found}, {right}");
        }
        assert_eq!((tanh(0.0), tanh(200.0), tanh(-200.0)), (0.0, 1.0, -1.0));
    }
}
