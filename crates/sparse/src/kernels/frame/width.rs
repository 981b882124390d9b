//! How tokens are cut into strips.

/// Some tokens that share a strip.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Strip {
    pub(crate) first: usize,
    pub(crate) tokens: usize,
    pub(crate) width: usize,
}

/// Cuts tokens into strips of a power of two from 4 to `widest` tokens, or of 48 where that is the widest, none wider than one before it;
/// the last may be padded, where that is cheaper than another strip.
pub(crate) fn strips(tokens: usize, widest: usize) -> Vec<Strip> {
    let (mut strips, mut first, mut limit) = (Vec::new(), 0, widest);
    while first < tokens {
        let rest = tokens - first;
        let below = if limit == 48 { 32 } else { limit };
        let above = rest.next_power_of_two().clamp(4, below);
        let width = match () {
            // What is left is enough for another wide strip, or nothing.
            () if limit == 48 && (rest >= 80 || (37..=48).contains(&rest)) => 48,
            () if rest >= above || 4 * rest > 3 * above || above == 4 => above,
            () => above / 2,
        };
        strips.push(Strip { first, tokens: rest.min(width), width });
        (first, limit) = (first + width, width);
    }
    strips
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_follow_one_another_and_leave_no_token_out() {
        for widest in [4, 8, 16, 32, 48, 64, 128] {
            for tokens in 0..400 {
                let (mut first, mut limit) = (0, widest);
                for strip in strips(tokens, widest) {
                    let Strip { width, .. } = strip;
                    assert!(width <= limit && (width == 48 || width.is_power_of_two() && width >= 4), "{strip:?} after {limit}");
                    assert!(strip.first == first && (1..=width).contains(&strip.tokens), "{strip:?} at {first}");
                    (first, limit) = (first + strip.tokens, width);
                }
                assert_eq!(first, tokens, "strips of {widest}");
            }
        }
        let widths = |tokens| strips(tokens, 48).iter().map(|s| s.width).collect::<Vec<_>>();
        assert_eq!(widths(128), [48, 48, 32]);
        assert_eq!(widths(64), [32, 32]);
        assert_eq!(widths(40), [48]);
    }
}
