//! Whole numbers that sum to a whole, by largest remainder.

/// Counts as near as possible to `ideal` that sum to `total`, none above its cap: the whole parts first, then one more to
/// those with the largest fraction left, of equals the first.
///
/// `total` must not exceed the sum of the caps.
pub(crate) fn apportion(total: usize, ideal: &[f64], caps: &[usize]) -> Vec<usize> {
    assert!(total <= caps.iter().sum(), "a total of {total} does not fit under the caps");
    let mut parts: Vec<usize> = ideal.iter().zip(caps).map(|(i, &cap)| (i.max(0.0).floor() as usize).min(cap)).collect();
    // Rounding in f64 can leave the whole parts one too many.
    while parts.iter().sum::<usize>() > total {
        let largest = (0..parts.len())
            .max_by(|&a, &b| (parts[a] as f64 - ideal[a]).total_cmp(&(parts[b] as f64 - ideal[b])).then(parts[a].cmp(&parts[b])));
        let Some(i) = largest.filter(|&i| parts[i] > 0).or_else(|| (0..parts.len()).find(|&i| parts[i] > 0)) else { break };
        parts[i] -= 1;
    }
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|&a, &b| (ideal[b] - parts[b] as f64).total_cmp(&(ideal[a] - parts[a] as f64)).then(a.cmp(&b)));
    let mut left = total - parts.iter().sum::<usize>();
    while left > 0 {
        for &i in &order {
            if left > 0 && parts[i] < caps[i] {
                parts[i] += 1;
                left -= 1;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::apportion;

    #[test]
    fn gives_the_rest_to_the_largest_fractions_and_of_equals_to_the_first() {
        assert_eq!(apportion(10, &[3.3, 3.3, 3.4], &[9, 9, 9]), [3, 3, 4]);
        assert_eq!(apportion(11, &[3.5, 3.5, 3.5], &[9, 9, 9]), [4, 4, 3]);
    }

    #[test]
    fn never_passes_a_cap_and_always_sums_to_the_total() {
        for total in 0..=17 {
            let parts = apportion(total, &[100.0, 0.0, 0.5], &[4, 3, 10]);
            assert_eq!(parts.iter().sum::<usize>(), total);
            assert!(parts[0] <= 4 && parts[1] <= 3 && parts[2] <= 10, "{parts:?}");
        }
        assert_eq!(apportion(3, &[2.0, 2.0], &[2, 2]).iter().sum::<usize>(), 3);
    }
}
