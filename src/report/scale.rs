//! One axis: which numbers it spans, where its ticks stand and how they are labelled.

use crate::{Error, Result};

/// Beyond this the ends of an axis may overflow; such numbers are left out of a figure as infinities are.
const LARGEST: f64 = 1e200;

/// Whether a number has a place on some axis.
pub(super) fn drawable(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// How the numbers of an axis are laid out, before any number is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct AxisKind {
    pub log: bool,
    pub percent: bool,
    /// The user's own range, instead of that of the data.
    pub range: Option<(f64, f64)>,
}

impl AxisKind {
    /// Whether the number has a place on this axis.
    pub fn holds(&self, value: f64) -> bool {
        drawable(value) && (!self.log || value >= 1.0 / LARGEST)
    }
}

/// One place of an axis; without a label it is a minor one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub value: f64,
    pub label: Option<String>,
}

/// An axis with its ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    kind: AxisKind,
    low: f64,
    high: f64,
}

impl Scale {
    /// The user's range, or one that holds every value with a little room around it. All values must be of
    /// [`AxisKind::holds`].
    pub fn fit(kind: AxisKind, name: &str, values: impl Iterator<Item = f64>) -> Result<Self> {
        if let Some((low, high)) = kind.range {
            if !(low < high && kind.holds(low) && kind.holds(high)) {
                let domain = if kind.log { "finite, increasing and above 0 on a log axis" } else { "finite and increasing" };
                return Err(Error::invalid_option(format!("{name}_range"), format!("{low} to {high}; it must be {domain}")));
            }
            return Ok(Scale { kind, low, high });
        }
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let ends = if kind.log { padded_log(low, high) } else { padded(low, high, kind.percent) };
        Ok(Scale { kind, low: ends.0, high: ends.1 })
    }

    /// Where the number stands: 0 at the low end, 1 at the high end, beyond them outside. Numbers that a log axis cannot
    /// hold stand below its low end.
    pub fn place(&self, value: f64) -> f64 {
        if !self.kind.log {
            return ((value - self.low) / (self.high - self.low)).clamp(-100.0, 100.0);
        }
        let (low, high) = (self.low.log10(), self.high.log10());
        if value <= 0.0 {
            return -0.05;
        }
        ((value.log10() - low) / (high - low)).clamp(-100.0, 100.0)
    }

    /// Round numbers within the ends, about `count` of them labelled.
    pub fn ticks(&self, count: usize) -> Vec<Tick> {
        let decades = self.high.log10() - self.low.log10();
        if self.kind.log && decades >= 0.8 { self.decade_ticks(decades, count) } else { self.even_ticks(count) }
    }

    fn even_ticks(&self, count: usize) -> Vec<Tick> {
        let step = nice_step((self.high - self.low) / count.max(2) as f64);
        let slack = step * 1e-6;
        let (first, last) = (((self.low - slack) / step).ceil(), ((self.high + slack) / step).floor());
        let values: Vec<f64> =
            (0..=100).map(|i| (first + f64::from(i)) * step).take_while(|v| *v <= last * step + slack).collect();
        let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        values.into_iter().map(|value| Tick { value, label: Some(self.even_label(value, step, largest)) }).collect()
    }

    fn even_label(&self, value: f64, step: f64, largest: f64) -> String {
        let factor = if self.kind.percent { 100.0 } else { 1.0 };
        let unit = if self.kind.percent { "%" } else { "" };
        let (value, step, largest) = (value * factor, step * factor, largest * factor);
        if value.abs() < step / 2.0 {
            return format!("0{unit}");
        }
        let finest = step.log10().floor() as i32 - i32::from((step / 10f64.powf(step.log10().floor()) - 2.5).abs() < 0.01);
        if !(1e-4..1e6).contains(&largest) {
            let digits = (value.abs().log10().floor() as i32 - finest).clamp(0, 15) as usize;
            return trim_exponent(&format!("{value:.digits$e}")) + unit;
        }
        format!("{value:.digits$}{unit}", digits = (-finest).clamp(0, 12) as usize)
    }

    /// Powers of ten; between them 2 and 5 labelled where there is room, and the others small.
    fn decade_ticks(&self, decades: f64, count: usize) -> Vec<Tick> {
        let labelled: &[i32] = if decades < 1.5 {
            &[1, 2, 3, 5]
        } else if decades < 2.5 {
            &[1, 2, 5]
        } else {
            &[1]
        };
        let every = (decades / (1.5 * count.max(2) as f64)).ceil().max(1.0) as i32;
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        // One way of writing for the whole axis: 10000 does not stand beside 1e5.
        let ends = [self.low, self.high].map(|end| end.log10().floor() as i32 + if self.kind.percent { 2 } else { 0 });
        let plain = ends[0] >= -4 && ends[1] <= 6;
        let mut ticks = Vec::new();
        for power in first..=last {
            for digit in 1..10 {
                let value = power_of_ten(power) * f64::from(digit);
                let on_grid = power.rem_euclid(every) == 0 && labelled.contains(&digit);
                let within = value >= self.low * (1.0 - 1e-9) && value <= self.high * (1.0 + 1e-9);
                if within && (on_grid || every == 1 || (digit == 1 && every <= 10)) {
                    ticks.push(Tick { value, label: on_grid.then(|| self.decade_label(digit, power, plain)) });
                }
            }
        }
        ticks
    }

    fn decade_label(&self, digit: i32, power: i32, plain: bool) -> String {
        let (power, unit) = if self.kind.percent { (power + 2, "%") } else { (power, "") };
        match power {
            -4..0 if plain || power == -1 => format!("0.{}{digit}{unit}", "0".repeat((-power - 1) as usize)),
            0..=6 if plain || power < 3 => format!("{digit}{}{unit}", "0".repeat(power as usize)),
            _ => format!("{digit}e{power}{unit}"),
        }
    }
}

/// The power of ten nearest to the true one, which `powi` is not always.
fn power_of_ten(power: i32) -> f64 {
    format!("1e{power}").parse().unwrap_or_else(|_| 10f64.powi(power))
}

/// 1, 2, 2.5 or 5 times a power of ten, not below `raw`.
fn nice_step(raw: f64) -> f64 {
    let power = raw.log10().floor() as i32;
    let unit = power_of_ten(power);
    let nice = [1.0, 2.0, 2.5, 5.0].into_iter().find(|nice| nice * unit >= raw * (1.0 - 1e-9));
    nice.map_or_else(|| power_of_ten(power + 1), |nice| nice * unit)
}

/// `2.50e6` as `2.5e6`.
fn trim_exponent(number: &str) -> String {
    match number.split_once('e') {
        Some((digits, power)) if digits.contains('.') => {
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => number.to_string(),
    }
}

/// Room of a twentieth at both ends, but not across 0, nor across 100 % on an axis of percentages.
fn padded(low: f64, high: f64, percent: bool) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    let room = match high - low {
        _ if size < 1.0 / LARGEST => 1.0,
        span if span <= size * 1e-9 => size * 0.1,
        span => span * 0.05,
    };
    let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
    let ceiling = if percent && high <= 1.0 { 1.0 } else { f64::INFINITY };
    ((low - room).max(floor), (high + room).min(ceiling))
}

fn padded_log(low: f64, high: f64) -> (f64, f64) {
    let factor = if high <= low * (1.0 + 1e-9) { 2.0 } else { 10f64.powf((high.log10() - low.log10()) * 0.05) };
    (low / factor, high * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(kind: AxisKind, values: &[f64]) -> Vec<String> {
        let scale = Scale::fit(kind, "x", values.iter().copied()).unwrap();
        scale.ticks(6).into_iter().filter_map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(AxisKind::default(), &[0.0, 1.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let percent = AxisKind { percent: true, ..Default::default() };
        assert_eq!(labels(percent, &[0.5, 0.95]), ["50%", "60%", "70%", "80%", "90%"]);
        assert_eq!(labels(AxisKind::default(), &[0.0, 7e9]), ["0", "2e9", "4e9", "6e9"]);
        let log = AxisKind { log: true, ..Default::default() };
        assert_eq!(labels(log, &[0.001, 1000.0]), ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]);
        // Whatever stands on one axis is written in one way.
        assert_eq!(labels(log, &[40000.0, 240000.0]), ["50000", "100000", "200000"]);
        assert_eq!(labels(log, &[0.1, 1e7]), ["0.1", "1", "10", "100", "1e3", "1e4", "1e5", "1e6", "1e7"]);
    }

    #[test]
    fn no_range_of_numbers_is_too_odd_for_ticks() {
        let odd = [0.0, 1.0, -LARGEST, LARGEST, 1e-310, 5e-324, 1.0 + f64::EPSILON, LARGEST * (1.0 - 1e-15), 1.0 / LARGEST];
        for log in [false, true] {
            for percent in [false, true] {
                for (a, b) in odd.iter().flat_map(|a| odd.iter().map(move |b| (*a, *b))) {
                    let kind = AxisKind { log, percent, range: None };
                    if kind.holds(a) && kind.holds(b) {
                        let scale = Scale::fit(kind, "x", [a, b].into_iter()).unwrap();
                        let places: Vec<f64> = [a, b].iter().map(|v| scale.place(*v)).collect();
                        assert!(places.iter().all(|p| (0.0..=1.0).contains(p)), "{a} and {b} at {places:?}");
                        assert!(scale.ticks(6).len() < 100, "{a} to {b}");
                    }
                }
            }
        }
    }
}
