//! Rotary positions by a config, in both layouts that the reference library has written.
//!
//! ```text
//! older   at the top rope_theta, partial_rotary_factor and rope_scaling: null or { rope_type (or type), factor, … }
//! newer   rope_parameters: { rope_type, rope_theta, partial_rotary_factor, factor, … }, or one such object a kind of layer
//! ```
//!
//! What is said twice must agree, and a key that is not known is refused: it may change the numbers.

use super::defaults::Defaults;
use super::keys::{Keys, setting};
use crate::Result;
use crate::io::quoted;
use crate::nn::{RopeScaling, Rotary};
use serde_json::{Map, Value};

const SCALING: &str = "rope_scaling";
const PARAMETERS: &str = "rope_parameters";
const THETA: &str = "rope_theta";
const PART: &str = "partial_rotary_factor";
const ORIGINAL: &str = "original_max_position_embeddings";
const LONGEST: &str = "max_position_embeddings";

/// Every key that such an object may have. One that its type does not ask for is passed over, as the reference library does.
const KNOWN: [&str; 16] = [
    "rope_type",
    "type",
    THETA,
    PART,
    ORIGINAL,
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
];

/// Rotary positions of heads of `dim` features.
///
/// # Errors
/// If keys contradict each other, are of another type or not known, or the type of the positions is not.
pub fn rotary(keys: Keys<'_>, dim: usize, defaults: &Defaults) -> Result<Rotary> {
    of_said(keys, said(keys, None)?, dim, defaults)
}

/// As [`rotary`], of one kind of layers, where the config has an object of `rope_parameters` for each; none where it has not.
///
/// # Errors
/// As [`rotary`], and if there are such objects, but none of this kind.
pub fn rotary_of(keys: Keys<'_>, kind: &str, dim: usize, defaults: &Defaults) -> Result<Option<Rotary>> {
    let Some(object) = keys.get(PARAMETERS).and_then(Value::as_object).filter(|o| o.values().any(Value::is_object)) else {
        return Ok(None);
    };
    if !object.get(kind).is_some_and(Value::is_object) {
        return Err(setting(PARAMETERS, format!("has no object {}", quoted(kind))));
    }
    of_said(keys, said(keys, Some(kind))?, dim, defaults).map(Some)
}

fn of_said(keys: Keys<'_>, (place, said): (&'static str, Map<String, Value>), dim: usize, defaults: &Defaults) -> Result<Rotary> {
    let said = Keys(&said);
    let part = said.number(PART, defaults.rotary.unwrap_or(1.0))?;
    let turned = (dim as f64 * part) as usize;
    if turned % 2 != 0 || turned > dim || turned > 1 << 16 {
        let reason =
            format!("{turned} of {dim} features of a head would be turned; an even number not above {dim} and 65536 can be");
        return Err(setting(PART, reason));
    }
    if defaults.rotary.is_none() && turned != dim {
        return Err(setting(PART, format!("{part} would turn {turned} of {dim} features; this family turns whole heads")));
    }
    let theta = said.positive(THETA, defaults.theta)?;
    Ok(Rotary::new(turned, theta, stretch((keys, said, place), turned, defaults)?))
}

/// What the config says, in one object, and the key under which most of it stood. Of one kind of layers its object alone holds.
fn said(keys: Keys<'_>, kind_of_layers: Option<&str>) -> Result<(&'static str, Map<String, Value>)> {
    let (mut all, mut place) = (Map::new(), SCALING);
    for key in [SCALING, PARAMETERS] {
        let Some(value) = keys.get(key).filter(|_| key == PARAMETERS || kind_of_layers.is_none()) else { continue };
        let object = value.as_object().ok_or_else(|| setting(key, "is not an object"))?;
        for (name, value) in one_of(key, object, kind_of_layers)?.iter().filter(|(_, value)| !value.is_null()) {
            place = key;
            if !KNOWN.contains(&name.as_str()) {
                return Err(setting(key, format!("the key {} is not known here", quoted(name))));
            }
            let (name, value) = match name.as_str() {
                "type" | "rope_type" => ("rope_type", kind(value, object)),
                name => (name, value.clone()),
            };
            add(&mut all, name, value, key)?;
        }
    }
    // What stands outside is of all kinds.
    let outside: &[&str] = if kind_of_layers.is_none() { &[THETA, PART, ORIGINAL] } else { &[] };
    for &name in outside {
        if let Some(value) = keys.get(name) {
            add(&mut all, name, value.clone(), place)?;
        }
    }
    Ok((place, all))
}

/// The object itself, or what it says of one kind of layer, or of every kind.
fn one_of<'a>(key: &str, object: &'a Map<String, Value>, kind: Option<&str>) -> Result<&'a Map<String, Value>> {
    if let Some(of) = kind.and_then(|kind| object.get(kind)?.as_object()) {
        return Ok(of);
    }
    let mut kinds = object.iter().filter_map(|(name, value)| Some((name, value.as_object()?)));
    let Some((first, of_first)) = kinds.next() else { return Ok(object) };
    if let Some((other, _)) = kinds.find(|(_, of)| *of != of_first) {
        let (first, other) = (quoted(first), quoted(other));
        return Err(setting(key, format!("{first} and {other} differ; other positions in other layers are not known here")));
    }
    match object.iter().find(|(_, value)| !value.is_object() && !value.is_null()) {
        Some((name, _)) => Err(setting(key, format!("{} stands beside objects of kinds of layers", quoted(name)))),
        None => Ok(of_first),
    }
}

/// The type of the positions by its name of today: the first files of Phi-3 call it otherwise.
fn kind(value: &Value, object: &Map<String, Value>) -> Value {
    match value.as_str() {
        Some("su") => "longrope".into(),
        Some("yarn") if object.contains_key("short_factor") => "longrope".into(),
        _ => value.clone(),
    }
}

fn add(all: &mut Map<String, Value>, name: &str, value: Value, place: &str) -> Result<()> {
    let same = |a: &Value, b: &Value| a == b || a.as_f64().is_some_and(|a| Some(a) == b.as_f64());
    match all.get(name) {
        Some(other) if !same(other, &value) => {
            let [a, b] = [other, &value].map(|v| crate::io::one_line(&v.to_string(), 40));
            Err(setting(name, format!("is said twice: {a} and {b} (see {place})")))
        }
        _ => {
            all.insert(name.to_string(), value);
            Ok(())
        }
    }
}

/// The stretch by its type. Lengths that it does not give stand beside it.
fn stretch((keys, said, place): (Keys<'_>, Keys<'_>, &str), turned: usize, defaults: &Defaults) -> Result<RopeScaling> {
    let kind = said.text("rope_type", "default")?;
    let needed = |key: &str| -> Result<f32> {
        if said.get(key).is_none() {
            return Err(setting(place, format!("{kind} needs {key}")));
        }
        said.positive(key, 0.0)
    };
    let original = || said.size_if(ORIGINAL).map(|n| n.or(defaults.original));
    // The newer library takes the longest context where no first one is given.
    let first = || original()?.map_or_else(|| keys.size(LONGEST), Ok);
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear(needed("factor")?),
        "llama3" => RopeScaling::Llama3 {
            factor: needed("factor")?,
            low: needed("low_freq_factor")?,
            high: needed("high_freq_factor")?,
            length: first()? as f32,
        },
        "yarn" => {
            let factor = needed("factor")?;
            // Equation 22, with the factor before the logarithm that later models write down.
            let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * f64::from(factor).ln() + 1.0 };
            let amplitude = match (said.number_if("mscale")?, said.number_if("mscale_all_dim")?) {
                (Some(m), Some(all)) if m != 0.0 && all != 0.0 => scale(m) / scale(all),
                _ => scale(1.0),
            };
            RopeScaling::Yarn {
                factor,
                fast: said.positive("beta_fast", 32.0)?,
                slow: said.positive("beta_slow", 1.0)?,
                length: first()? as f32,
                whole: said.flag("truncate", true)?,
                amplitude: said.positive("attention_factor", amplitude)?,
            }
        }
        "longrope" => {
            let factors = |key: &str| -> Result<Vec<f32>> {
                let reason = || setting(place, format!("{key} is not a list of {} numbers above 0", turned / 2));
                let list = said.get(key).and_then(|v| v.as_array()).filter(|l| l.len() == turned / 2).ok_or_else(reason)?;
                let number = |v: &Value| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite() && *x > 0.0);
                list.iter().map(|v| number(v).ok_or_else(reason)).collect()
            };
            let longest = keys.size(LONGEST)?;
            let original = original()?;
            let length = original.unwrap_or(longest);
            if length < 2 {
                return Err(setting(ORIGINAL, format!("longrope needs 2 positions or more, not {length}")));
            }
            let ratio = longest as f64 / length as f64;
            let amplitude = match (said.get("attention_factor"), original) {
                (Some(_), _) => 1.0,
                (None, Some(_)) => {
                    // One generation of the library takes the ratio, the other the factor.
                    let factor = said.number("factor", ratio)?;
                    if (factor - ratio).abs() > 1e-6 * ratio {
                        return Err(setting(place, format!("factor {factor} is not {LONGEST} / {ORIGINAL}, {ratio}")));
                    }
                    long_amplitude(ratio, length)
                }
                (None, None) => long_amplitude(f64::from(needed("factor")?), length),
            };
            let amplitude = said.positive("attention_factor", amplitude)?;
            RopeScaling::Long { short: factors("short_factor")?, long: factors("long_factor")?, length, amplitude }
        }
        other => {
            let reason = format!("type {} is none of default, linear, llama3, yarn, longrope", quoted(other));
            return Err(setting(place, reason));
        }
    })
}

/// How much LongRoPE lengthens queries and keys: `√(1 + ln factor / ln length)`.
fn long_amplitude(factor: f64, length: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (length as f64).ln()).sqrt() }
}
