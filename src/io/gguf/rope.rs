//! The scaling of rotary frequencies, as `rope_scaling` of a `config.json`.
//!
//! llama.cpp takes a factor without a type for a linear one, by today's key or its older name, and applies three things at once: the
//! factor, the list of divisors `rope_freqs` and the length of queries and keys. What a `config.json` cannot say is refused.

use super::keys::{Keys, Model, neat};
use crate::io::quoted;
use crate::{Error, Result};
use serde_json::{Map, Value, json};

const ORIGINAL: &str = "rope.scaling.original_context_length";
const FREQS: &str = "rope_freqs.weight";
const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";

/// Whether a tensor is one of those that go to the configuration.
pub(super) fn is_factors(name: &str) -> bool {
    [FREQS, SHORT, LONG].contains(&name)
}

/// The scaling, `null` if there is none.
///
/// # Errors
/// [`Error::Malformed`] naming the key or tensor, if it is of a kind that is not read.
pub(super) fn scaling(keys: Keys<'_>, model: &Model, theta: f64) -> Result<Value> {
    let file = keys.file;
    let refuse = |reason: String| Error::malformed(file.path(), reason);
    let kind = file.text_or(&keys.key("rope.scaling.type"))?.unwrap_or("linear");
    let factor = match keys.number_or("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.number_or("rope.scale_linear")?,
    };
    let factor = factor.filter(|f| *f != 0.0).unwrap_or(1.0);
    if factor <= 0.0 {
        return Err(keys.refuse("rope.scaling.factor", format!("is {factor}")));
    }
    let attention = keys.number_or("rope.scaling.attn_factor")?;
    let divisors = Divisors::read(keys, model, kind)?;
    let plain = |kind: &str| match (attention.filter(|a| *a != 1.0), &divisors) {
        (Some(a), _) => Err(keys.refuse("rope.scaling.attn_factor", format!("is {a}, which goes with yarn and longrope alone"))),
        (None, Divisors::None) => Ok(()),
        (None, Divisors::Freqs(_)) => Err(refuse(format!("has both {kind} scaling and the tensor {}", quoted(FREQS)))),
        (None, Divisors::Long(..)) => Err(refuse(format!("has both {kind} scaling and the tensor {}", quoted(SHORT)))),
    };
    match kind {
        "linear" if factor != 1.0 => plain(kind).map(|()| json!({"rope_type": "linear", "factor": factor})),
        "yarn" if factor != 1.0 => yarn(keys, factor, attention, &divisors),
        // llama.cpp scales those blocks that see a window all the same.
        "none" if factor != 1.0 && keys.arch == "gemma2" => {
            Err(keys.refuse("rope.scaling.factor", format!("is {factor}, which does not go with the type none of a gemma2")))
        }
        "longrope" if factor != 1.0 => {
            Err(keys.refuse("rope.scaling.factor", format!("is {factor}, which does not go with longrope")))
        }
        "none" | "linear" | "yarn" | "longrope" => match &divisors {
            Divisors::Long(..) if original(keys, model) < 2 => Err(keys.refuse(ORIGINAL, "is below 2, too short for longrope")),
            Divisors::Long(short, long) => Ok(long_rope(keys, model, (short, long), attention.unwrap_or(1.0))),
            Divisors::None if kind == "longrope" => {
                Err(refuse(format!("states longrope and lacks the tensor {}", quoted(SHORT))))
            }
            Divisors::None => plain(kind).map(|()| Value::Null),
            Divisors::Freqs(_) if attention.is_some_and(|a| a != 1.0) => plain(kind).map(|()| Value::Null),
            Divisors::Freqs(stored) => {
                let stated = keys.count_or(ORIGINAL)?;
                llama3(stored, theta, model.turned, stated)
                    .ok_or_else(|| refuse(format!("tensor {} holds none of the factors of Llama 3.1 and 3.2", quoted(FREQS))))
            }
        },
        _ => {
            let reason =
                format!("rope.scaling.type is {}; none, linear and yarn are read, longrope with its tensors", quoted(kind));
            Err(refuse(reason))
        }
    }
}

/// Divisors of the frequencies of single pairs.
enum Divisors {
    None,
    Freqs(Vec<f64>),
    /// For short and for long texts.
    Long(Vec<f64>, Vec<f64>),
}

impl Divisors {
    fn read(keys: Keys<'_>, model: &Model, kind: &str) -> Result<Divisors> {
        let file = keys.file;
        let refuse = |reason: String| Error::malformed(file.path(), reason);
        // Those that llama.cpp reads; it does not open a file with others.
        let known: &[&str] = match keys.arch {
            "llama" if kind == "longrope" => &[SHORT, LONG],
            "llama" => &[FREQS],
            "phi3" => &[SHORT, LONG],
            _ => &[],
        };
        for name in [FREQS, SHORT, LONG] {
            if file.tensor(name).is_some() && !known.contains(&name) {
                return Err(refuse(format!("has the tensor {}, which is not known of a {}", quoted(name), keys.arch)));
            }
        }
        let list = |name: &str| -> Result<Option<Vec<f64>>> {
            if file.tensor(name).is_none() {
                return Ok(None);
            }
            let values: Vec<f64> = file.read(name)?.iter().map(|f| neat(f64::from(*f))).collect();
            if values.len() != model.turned / 2 || values.iter().any(|f| !(f.is_finite() && *f > 0.0)) {
                let reason = format!("tensor {} is no list of {} numbers above 0", quoted(name), model.turned / 2);
                return Err(refuse(reason));
            }
            Ok(Some(values))
        };
        Ok(match (list(FREQS)?, list(SHORT)?, list(LONG)?) {
            (Some(freqs), ..) if freqs.iter().any(|f| *f != 1.0) => Divisors::Freqs(freqs),
            (_, Some(short), Some(long)) => Divisors::Long(short, long),
            (_, Some(_), None) => return Err(refuse(format!("lacks the tensor {}", quoted(LONG)))),
            (_, None, Some(_)) => return Err(refuse(format!("lacks the tensor {}", quoted(SHORT)))),
            _ => Divisors::None,
        })
    }
}

fn yarn(keys: Keys<'_>, factor: f64, attention: Option<f64>, divisors: &Divisors) -> Result<Value> {
    if factor < 1.0 {
        return Err(keys.refuse("rope.scaling.factor", format!("is {factor}; yarn has one above 1")));
    }
    if !matches!(divisors, Divisors::None) {
        return Err(Error::malformed(keys.file.path(), "has both yarn scaling and a tensor of divisors"));
    }
    let mut scaling = Map::new();
    scaling.insert("rope_type".to_string(), json!("yarn"));
    scaling.insert("factor".to_string(), json!(factor));
    if let Some(original) = keys.count_or(ORIGINAL)?.filter(|n| *n > 0) {
        scaling.insert("original_max_position_embeddings".to_string(), json!(original));
    }
    for key in ["beta_fast", "beta_slow"] {
        if let Some(turns) = keys.number_or(&format!("rope.scaling.yarn_{key}"))? {
            scaling.insert(key.to_string(), json!(turns));
        }
    }
    // llama.cpp multiplies by the paper's own factor besides.
    if let Some(by) = attention {
        scaling.insert("attention_factor".to_string(), json!(by * (1.0 + 0.1 * factor.ln())));
    }
    Ok(Value::Object(scaling))
}

/// The two lists of factors. What queries and keys are multiplied by is written where it is not what follows from the lengths.
fn long_rope(keys: Keys<'_>, model: &Model, (short, long): (&[f64], &[f64]), attention: f64) -> Value {
    let mut scaling = json!({"type": "longrope", "short_factor": short, "long_factor": long});
    let original = original(keys, model) as f64;
    let ratio = model.sizes.context as f64 / original;
    let follows = if ratio <= 1.0 { 1.0 } else { (1.0 + ratio.ln() / original.ln()).sqrt() };
    if (attention - follows).abs() > 1e-6 {
        scaling["attention_factor"] = json!(attention);
    }
    scaling
}

/// The context of the first training.
pub(super) fn original(keys: Keys<'_>, model: &Model) -> usize {
    keys.count_or(ORIGINAL).ok().flatten().filter(|n| *n > 0).unwrap_or(model.sizes.context)
}

/// The scaling of Llama 3 that gives these divisors: `dim` features are turned.
///
/// The largest is the factor. The length of the first training is one of those that are in use, or what a wave between the short and
/// the long ones says.
fn llama3(stored: &[f64], theta: f64, dim: usize, stated: Option<usize>) -> Option<Value> {
    let (low, high) = (1.0, 4.0);
    let factor = stored.iter().copied().fold(1.0, f64::max);
    let wave = |i: usize| 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / dim as f64);
    let between = (0..stored.len()).find(|&i| stored[i] > 1.0 && stored[i] < factor);
    let solved = between.map(|i| {
        let smooth = (1.0 / stored[i] - 1.0 / factor) / (1.0 - 1.0 / factor);
        (wave(i) * (low + smooth * (high - low))).round()
    });
    let usual = (8..=20).map(|n| f64::from(1u32 << n));
    let lengths = [8192.0].into_iter().chain(stated.map(|n| n as f64)).chain(usual).chain(solved);
    let fits = |length: &f64| {
        (0..stored.len()).all(|i| (stored[i] - divisor(wave(i), factor, (low, high), *length)).abs() <= 2e-5 * stored[i])
    };
    lengths.filter(|length| *length >= 1.0).find(fits).map(|length| {
        json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": length as usize,
        })
    })
}

/// What Llama 3 divides the frequency of a wave of so many positions by, where the model was first trained on `length`.
pub(super) fn divisor(wave: f64, factor: f64, (low, high): (f64, f64), length: f64) -> f64 {
    if wave < length / high {
        1.0
    } else if wave > length / low {
        factor
    } else {
        let smooth = (length / wave - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_of_any_factor_and_length_are_known_and_others_are_not() {
        for (theta, factor, length, dim) in [
            (5e5f64, 8.0, 8192.0, 128),
            (5e5, 32.0, 8192.0, 64),
            (5e5, 16.0, 8192.0, 8),
            (1e4, 4.0, 2048.0, 64),
            (1e4, 5.5, 3000.0, 64),
        ] {
            // By frequencies and turns within the length, in f32 as the converter has them.
            let divisor = |i: i32| {
                let frequency = 1.0 / theta.powf(f64::from(2 * i) / f64::from(dim));
                let smooth: f64 = (length * frequency / (2.0 * std::f64::consts::PI) - 1.0) / 3.0;
                let smooth = smooth.clamp(0.0, 1.0);
                neat(f64::from((1.0 / (smooth + (1.0 - smooth) / factor)) as f32))
            };
            let stored: Vec<f64> = (0..dim / 2).map(divisor).collect();
            let found = llama3(&stored, theta, dim as usize, None).unwrap_or_else(|| panic!("{factor} {length} {dim}"));
            assert_eq!(found["factor"], factor, "{found}");
            // Where no wave is between, any length that parts them so is as good.
            if dim > 8 {
                assert_eq!(found["original_max_position_embeddings"], length as usize, "{found}");
            }
            let mut other = stored.clone();
            other[1] *= 1.01;
            assert!(llama3(&other, theta, dim as usize, None).is_none(), "{other:?}");
        }
    }
}
