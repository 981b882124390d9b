//! What `quantization_config` says.

use crate::io::one_line;
use crate::quantize::{CodeGrid, Granularity};
use crate::sparse::ActivationBits;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt;
use std::str::FromStr;

/// How codes lie in a folder; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuantLayout {
    /// `pack-quantized` of compressed-tensors: 2 to 8 bits, groups of any size, rows, or one scale for all.
    #[default]
    CompressedTensors,
    /// `int-quantized` of compressed-tensors: a byte a code, 8 bits.
    IntQuantized,
    /// That of GPTQ, its second version: 2, 3, 4 and 8 bits, groups or rows.
    Gptq,
    /// That of AWQ (GEMM): 4 bits, groups or rows.
    Awq,
}

impl QuantLayout {
    /// All of them.
    pub const ALL: [QuantLayout; 4] =
        [QuantLayout::CompressedTensors, QuantLayout::IntQuantized, QuantLayout::Gptq, QuantLayout::Awq];

    /// Its name in commands and recipes.
    pub fn name(self) -> &'static str {
        match self {
            QuantLayout::CompressedTensors => "compressed-tensors",
            QuantLayout::IntQuantized => "int-quantized",
            QuantLayout::Gptq => "gptq",
            QuantLayout::Awq => "awq",
        }
    }

    /// What files call it.
    pub(in crate::io::folder) fn format(self) -> &'static str {
        if self == QuantLayout::CompressedTensors { "pack-quantized" } else { self.name() }
    }

    /// Refuses a grid that the layout has not.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the layout, the bits or the granularity, and those that it has.
    pub fn check(self, grid: CodeGrid) -> Result<()> {
        let refuse = |option: &str, reason: String| Err(Error::invalid_option(option, reason));
        let bits: &[u32] = match self {
            QuantLayout::CompressedTensors | QuantLayout::Gptq => &[2, 3, 4, 8],
            QuantLayout::IntQuantized => &[8],
            QuantLayout::Awq => &[4],
        };
        if !bits.contains(&grid.bits) {
            let has = bits.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            return refuse("bits", format!("{} is none that the layout {self} has: {has}", grid.bits));
        }
        let of_all = matches!(self, QuantLayout::CompressedTensors | QuantLayout::IntQuantized);
        if grid.granularity == Granularity::Tensor && !of_all {
            return refuse("group", format!("tensor: the layout {self} has scales of rows or of groups of inputs"));
        }
        if !of_all && grid.scales != crate::quantize::ScaleType::F16 {
            return refuse("scale-type", format!("the layout {self} has scales of f16"));
        }
        Ok(())
    }

    /// Refuses activations of bits that the layout says nothing of.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the layout that has them.
    pub fn check_activations(self, bits: ActivationBits) -> Result<()> {
        if bits == ActivationBits::Eight && self != QuantLayout::IntQuantized {
            let reason = format!("8: the layout {self} is of weights alone; int-quantized has activations of 8 bits");
            return Err(Error::invalid_option("activation-bits", reason));
        }
        Ok(())
    }

    /// Refuses a matrix that the layout cannot hold.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the numbers.
    pub fn check_shape(self, (rows, cols): (usize, usize), grid: CodeGrid) -> Result<()> {
        self.check(grid)?;
        grid.check(cols)?;
        let refuse = |what: &str, n: usize, of: usize| {
            Err(Error::invalid_option("layout", format!("{self} has {what} in multiples of {of}, and this weight {n}")))
        };
        match self {
            QuantLayout::Gptq if (cols * grid.bits as usize) % 32 != 0 => {
                refuse("inputs", cols, 32 / gcd(grid.bits as usize, 32))
            }
            QuantLayout::Gptq if (rows * grid.bits as usize) % 32 != 0 => {
                refuse("outputs", rows, 32 / gcd(grid.bits as usize, 32))
            }
            QuantLayout::Awq if rows % 8 != 0 => refuse("outputs", rows, 8),
            _ => Ok(()),
        }
    }

    /// What `config.json` says of weights in this layout. `whole` are the names of layers that are not in codes. Activations of
    /// 8 bits have a scale a token, found as they come.
    pub(crate) fn config(self, grid: CodeGrid, whole: &[String], damping: Option<f64>, activations: ActivationBits) -> Value {
        let CodeGrid { bits, symmetric, granularity, .. } = grid;
        let size = if let Granularity::Group(n) = granularity { json!(n) } else { json!(-1) };
        match self {
            QuantLayout::CompressedTensors | QuantLayout::IntQuantized => {
                let (strategy, group) = match granularity {
                    Granularity::Tensor => ("tensor", Value::Null),
                    Granularity::Row => ("channel", Value::Null),
                    Granularity::Group(n) => ("group", json!(n)),
                };
                let inputs = match activations {
                    ActivationBits::Full => Value::Null,
                    ActivationBits::Eight => json!({
                        "num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "group_size": null, "dynamic": true,
                        "actorder": null, "block_structure": null, "observer": null, "observer_kwargs": {},
                    }),
                };
                json!({
                    "quant_method": "compressed-tensors", "format": self.format(), "quantization_status": "compressed",
                    "config_groups": {"group_0": {
                        "targets": ["Linear"], "input_activations": inputs, "output_activations": null, "format": self.format(),
                        "weights": {
                            "num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy, "group_size": group,
                            "dynamic": false, "actorder": null, "block_structure": null, "observer": "minmax", "observer_kwargs": {},
                        },
                    }},
                    "ignore": whole, "kv_cache_scheme": null, "global_compression_ratio": null,
                })
            }
            QuantLayout::Gptq => {
                let dynamic: Map<String, Value> = whole
                    .iter()
                    .filter(|n| *n != "lm_head")
                    .map(|n| (format!("-:^{}$", n.replace('.', "\\.")), json!({})))
                    .collect();
                json!({
                    "quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": bits, "group_size": size, "sym": symmetric,
                    "desc_act": false, "static_groups": false, "true_sequential": true, "lm_head": false, "damp_percent": damping,
                    "dynamic": dynamic,
                })
            }
            QuantLayout::Awq => json!({
                "quant_method": "awq", "version": "gemm", "bits": bits, "group_size": size, "zero_point": !symmetric,
                "modules_to_not_convert": whole,
            }),
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for QuantLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for QuantLayout {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    fn from_str(s: &str) -> Result<Self> {
        let found = QuantLayout::ALL.into_iter().find(|l| l.name() == s || l.format() == s);
        found.ok_or_else(|| Error::unknown_name("layout", s, QuantLayout::ALL.into_iter().map(QuantLayout::name)))
    }
}

/// `quant_method`, and the `format` of the files' metadata, where weights are kept as storages of this library. Readers that know
/// neither name it, and do not take what they find for a model with missing weights.
pub(in crate::io::folder) const OWN: &str = "lacuna";

/// Refuses a config that says its weights are in a layout that is not read. Plain weights beside such a key would be opened by other
/// programs as what the key says.
///
/// # Errors
/// [`Error::InvalidOption`] with the `quant_method` and those that are read.
pub(crate) fn check_quant_method(config: &Map<String, Value>) -> Result<()> {
    const READ: [&str; 4] = ["compressed-tensors", "gptq", "awq", OWN];
    let said = match config.get("quantization_config") {
        None | Some(Value::Null) => return Ok(()),
        Some(said) => said.get("quant_method").unwrap_or(&Value::Null),
    };
    if said.as_str().is_some_and(|method| READ.contains(&method)) {
        return Ok(());
    }
    let shown = one_line(&said.to_string(), 60);
    let reason = format!("quant_method {shown} is not read; {} are; plain weights go without the key", READ.join(", "));
    Err(Error::invalid_option("config.json: quantization_config", reason))
}

/// What a folder's config says of weights in codes, as far as reading needs it.
pub(in crate::io::folder) struct Scheme {
    /// The first for files of compressed-tensors, whose tensors say which of the two it is.
    pub layout: QuantLayout,
    /// The bits of codes that are named, in order.
    pub bits: Vec<u32>,
    /// Whether zero points are stored less one.
    pub less_one: bool,
}

impl Scheme {
    /// Of `config.json`; none where it speaks of no layout that is read. Weights in such are then tensors like others, and refused by their types.
    pub fn of(config: &Map<String, Value>) -> Option<Scheme> {
        let said = config.get("quantization_config")?;
        let bits = |value: &Value| value.as_u64().and_then(|b| u32::try_from(b).ok()).filter(|b| (2..=8).contains(b));
        let text = |key: &str| said[key].as_str().unwrap_or_default();
        match text("quant_method") {
            "compressed-tensors" => {
                let groups = said["config_groups"].as_object()?;
                let mut all: Vec<u32> = groups.values().filter_map(|g| bits(&g["weights"]["num_bits"])).collect();
                all.dedup();
                (!all.is_empty()).then_some(Scheme { layout: QuantLayout::CompressedTensors, bits: all, less_one: false })
            }
            "gptq" => {
                let less_one = text("checkpoint_format") != "gptq_v2";
                bits(&said["bits"]).map(|b| Scheme { layout: QuantLayout::Gptq, bits: vec![b], less_one })
            }
            "awq" if text("version").is_empty() || text("version").eq_ignore_ascii_case("gemm") => {
                let four = bits(&said["bits"]).filter(|b| *b == 4)?;
                Some(Scheme { layout: QuantLayout::Awq, bits: vec![four], less_one: false })
            }
            _ => None,
        }
    }
}
