//! Typed reading of a `config.json`: absent keys and `null` are a family's own default, anything of another type is an error
//! that names the key.

use crate::{Error, Result};
use serde_json::{Map, Value};

/// The keys of a config.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a>(
    /// The object of the config.
    pub &'a Map<String, Value>,
);

/// No size in a config may be larger: what stands above is a damaged file.
const LARGEST: u64 = 1 << 28;
/// No model may have more blocks.
const MOST_BLOCKS: usize = 10_000;

impl<'a> Keys<'a> {
    /// What stands under a key, if it is not `null`.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A size that may be absent.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn size_if(self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_u64().filter(|&n| n <= LARGEST).map(|n| Some(n as usize)).ok_or_else(|| wrong(key, value, "a size"))
    }

    /// A size above 0.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn size(self, key: &str) -> Result<usize> {
        match self.size_if(key)? {
            Some(n) if n > 0 => Ok(n),
            Some(_) => Err(wrong(key, &Value::from(0), "a size above 0")),
            None => Err(setting(key, "is missing")),
        }
    }

    /// A size above 0, or a default.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn size_or(self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    /// Positions that a token sees; none are as many as there are. The reference library knows no window of 0.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn window(self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|_| self.size(key)).transpose()
    }

    /// A number of blocks.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn blocks(self, key: &str) -> Result<usize> {
        match self.size(key)? {
            n if n > MOST_BLOCKS => Err(setting(key, format!("{n} blocks; at most {MOST_BLOCKS} are read"))),
            n => Ok(n),
        }
    }

    /// A number that may be absent.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn number_if(self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().filter(|x| x.is_finite()).map(Some).ok_or_else(|| wrong(key, value, "a number"))
    }

    /// A number, or a default.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn number(self, key: &str, default: f64) -> Result<f64> {
        Ok(self.number_if(key)?.unwrap_or(default))
    }

    /// A number above 0, or a default, in 32 bits.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn positive(self, key: &str, default: f64) -> Result<f32> {
        let x = self.number(key, default)?;
        let narrow = x as f32;
        match narrow > 0.0 && narrow.is_finite() {
            true => Ok(narrow),
            false => Err(wrong(key, &Value::from(x), "a number above 0 in 32 bits")),
        }
    }

    /// What is added below a root, or a default, in 32 bits.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn epsilon(self, key: &str, default: f64) -> Result<f32> {
        let x = self.number(key, default)?;
        let narrow = x as f32;
        match narrow >= 0.0 && narrow.is_finite() {
            true => Ok(narrow),
            false => Err(wrong(key, &Value::from(x), "a number of at least 0 in 32 bits")),
        }
    }

    /// A truth value, or a default.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn flag(self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong(key, value, "true or false"))
    }

    /// A text, or a default.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn text(self, key: &str, default: &'a str) -> Result<&'a str> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| wrong(key, value, "a text"))
    }

    /// A list of so many entries that may be absent.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn list_if(self, key: &str, len: usize) -> Result<Option<&'a [Value]>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_array() {
            Some(list) if list.len() == len => Ok(Some(list)),
            Some(list) => Err(setting(key, format!("has {} entries for {len} layers", list.len()))),
            None => Err(wrong(key, value, "a list")),
        }
    }

    /// A number or a list of them, as ids of tokens; -1 is none.
    ///
    /// # Errors
    /// If what stands there is of another type or out of range; the error names the key.
    pub fn ids(self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let all = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| wrong(key, value, "ids of tokens"));
        all.iter().filter(|v| v.as_i64() != Some(-1)).map(id).collect()
    }
}

/// An error that names a key of the config.
pub fn setting(key: &str, reason: impl Into<String>) -> Error {
    Error::invalid_option(format!("config.json: {key}"), reason)
}

fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    let shown = crate::io::one_line(&value.to_string(), 60);
    setting(key, format!("{shown} is not {expected}"))
}
