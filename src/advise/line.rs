//! Straight lines between measured points.

/// Numbers that are interpolated together: logarithms of a median and its quartiles.
pub(super) type Triple = [f64; 3];

/// What a line says at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Read {
    pub y: Triple,
    /// Whether the place is a measured one.
    pub on_point: bool,
    /// Whether it lies before the first or behind the last.
    pub outside: bool,
}

/// The straight line through the two points around `x`, or the first or last point where it lies beyond; none if there is no point. Points rise.
pub(super) fn read(points: &[(f64, Triple)], x: f64) -> Option<Read> {
    let after = points.partition_point(|(at, _)| *at < x - NEAR);
    let Some(&(right, y)) = points.get(after) else {
        return points.last().map(|(_, y)| Read { y: *y, on_point: false, outside: true });
    };
    if (right - x).abs() <= NEAR {
        return Some(Read { y, on_point: true, outside: false });
    }
    let Some(&(left, before)) = after.checked_sub(1).and_then(|i| points.get(i)) else {
        return Some(Read { y, on_point: false, outside: true });
    };
    let part = (x - left) / (right - left);
    let between = std::array::from_fn(|i| before[i] + part * (y[i] - before[i]));
    Some(Read { y: between, on_point: false, outside: false })
}

/// Places that are as near as this are one.
const NEAR: f64 = 5e-4;

/// How far the inner points lie from the line between their neighbours, the first of each three numbers: what interpolation may be off by, and
/// more, as the gaps are twice as wide.
pub(super) fn bends(points: &[(f64, Triple)]) -> impl Iterator<Item = f64> {
    points.windows(3).map(|w| {
        let part = (w[1].0 - w[0].0) / (w[2].0 - w[0].0);
        (w[0].1[0] + part * (w[2].1[0] - w[0].1[0]) - w[1].1[0]).abs()
    })
}

/// How far neighbours lie apart, the first of each three numbers.
pub(super) fn steps(points: &[(f64, Triple)]) -> impl Iterator<Item = f64> {
    points.windows(2).map(|w| (w[1].1[0] - w[0].1[0]).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [(f64, Triple); 3] = [(0.0, [1.0, 0.0, 2.0]), (2.0, [3.0, 2.0, 4.0]), (3.0, [3.0, 1.0, 9.0])];

    #[test]
    fn points_are_read_as_they_are_and_between_them_by_straight_lines() {
        for (x, y) in POINTS {
            assert_eq!(read(&POINTS, x), Some(Read { y, on_point: true, outside: false }));
        }
        assert_eq!(read(&POINTS, 0.5), Some(Read { y: [1.5, 0.5, 2.5], on_point: false, outside: false }));
        for (x, y) in [(-1.0, POINTS[0].1), (3.5, POINTS[2].1)] {
            assert_eq!(read(&POINTS, x), Some(Read { y, on_point: false, outside: true }));
        }
        assert_eq!(read(&[], 1.0), None);
        assert_eq!(read(&POINTS[..1], 1.0).map(|r| r.outside), Some(true));
    }

    #[test]
    fn a_bend_is_the_distance_from_the_line_between_the_neighbours() {
        // At 2 the line from 1 to 3 over a length of 3 is at 1 + 4/3.
        let found: Vec<f64> = bends(&POINTS).collect();
        assert!(found.len() == 1 && (found[0] - (3.0 - 7.0 / 3.0)).abs() < 1e-12, "{found:?}");
        assert_eq!(bends(&POINTS[..2]).count(), 0);
        assert_eq!(steps(&POINTS).collect::<Vec<_>>(), [2.0, 0.0]);
    }
}
