//! Networks in safetensors files.
//!
//! Every parameter is a tensor under its name (`fc1.weight`, in the shape of the field: a convolution is
//! `[out, in, height, width]`), every mask a tensor beside it, batch norm's averages are `bn1.running_mean` and
//! `bn1.running_var`. The chain of layers is JSON under the metadata key `lacuna.network`.

use crate::io::{Checkpoint, Dtype, one_line, quoted};
use crate::nn::{Activation, Affine, BatchNorm, Conv2d, Layer, Map, Network, Pact, Pool};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayD};
use serde::{Deserialize, Serialize};
use std::path::Path;

const KEY: &str = "lacuna.network";

/// The most features that a layer's input or output may have, and weights that a layer may have, in a file.
const LARGEST: usize = u32::MAX as usize;

/// The chain of layers without their numbers.
#[derive(Serialize, Deserialize)]
struct Chain {
    inputs: usize,
    layers: Vec<(String, Kind)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Linear { inputs: usize, outputs: usize, bias: bool },
    Conv2d { conv: Conv2d, bias: bool },
    BatchNorm { channels: usize, positions: usize, epsilon: f32, momentum: f32 },
    Activation(Activation),
    Pool(Pool),
    Pact { bits: Option<u32> },
}

impl Kind {
    /// Whether the numbers of features and weights that the geometry asks for are at most [`LARGEST`].
    fn is_small(&self) -> bool {
        let product = |sizes: &[usize]| {
            let product = sizes.iter().try_fold(1usize, |p, &s| p.checked_mul(s));
            sizes.iter().all(|&s| s <= LARGEST) && product.is_some_and(|p| p <= LARGEST)
        };
        match self {
            Kind::Linear { inputs, outputs, .. } => product(&[*inputs, *outputs]),
            Kind::Conv2d { conv: Conv2d { input: (c, h, w), out_channels, kernel: (kh, kw), stride, padding }, .. } => {
                let after = |side: &usize| side.saturating_add(padding.saturating_mul(2)) / (*stride).max(1) + 1;
                product(&[*stride])
                    && product(&[*padding])
                    && product(&[*c, *h, *w])
                    && product(&[*out_channels, *c, *kh, *kw])
                    && product(&[*out_channels, after(h), after(w)])
            }
            Kind::BatchNorm { channels, positions, .. } => product(&[*channels, *positions]),
            Kind::Activation(_) | Kind::Pact { .. } => true,
            Kind::Pool(p) => product(&[p.input.0, p.input.1, p.input.2]),
        }
    }
}

/// The network as a checkpoint in f32, masks beside the weights.
///
/// # Errors
/// If a name cannot be stored.
pub fn to_checkpoint(network: &Network) -> Result<Checkpoint> {
    let mut file = Checkpoint::new();
    for (name, param) in network.params() {
        let tensor = ArrayD::from_shape_vec(param.shape(), param.as_slice().to_vec());
        file.insert(&name, tensor.map_err(|e| Error::invalid_option(&name, e.to_string()))?, Dtype::F32)?;
        if let Some(mask) = param.mask() {
            file.insert_mask(&name, mask)?;
        }
    }
    let mut chain = Chain { inputs: network.inputs(), layers: Vec::new() };
    for (name, layer) in network.layers() {
        let kind = match layer {
            Layer::Affine(a) => match &a.map {
                Map::Linear { inputs, outputs } => Kind::Linear { inputs: *inputs, outputs: *outputs, bias: a.bias.is_some() },
                Map::Conv2d(conv) => Kind::Conv2d { conv: *conv, bias: a.bias.is_some() },
            },
            Layer::BatchNorm(b) => {
                file.insert(&format!("{name}.running_mean"), Array1::from(b.mean.clone()), Dtype::F32)?;
                file.insert(&format!("{name}.running_var"), Array1::from(b.variance.clone()), Dtype::F32)?;
                Kind::BatchNorm { channels: b.channels(), positions: b.positions, epsilon: b.epsilon, momentum: b.momentum }
            }
            Layer::Activation(f) => Kind::Activation(*f),
            Layer::Pact(p) => Kind::Pact { bits: p.bits },
            Layer::Pool(p) => Kind::Pool(*p),
        };
        chain.layers.push((name.clone(), kind));
    }
    let json = serde_json::to_string(&chain).map_err(|e| Error::invalid_option(KEY, e.to_string()))?;
    file.insert_metadata(KEY, json);
    Ok(file)
}

/// The network of a checkpoint that [`to_checkpoint`] made.
///
/// # Errors
/// If the metadata names no network or one that cannot be, a tensor is missing or of another shape, or a weight is not
/// finite.
pub fn from_checkpoint(file: &Checkpoint) -> Result<Network> {
    let malformed = |reason: String| Error::malformed(file.path(), one_line(&reason, 500));
    let json =
        file.metadata().get(KEY).ok_or_else(|| malformed(format!("has no '{KEY}' in its metadata: no network is described")))?;
    let chain: Chain = serde_json::from_str(json).map_err(|e| malformed(format!("'{KEY}': {e}")))?;
    let matrix = |name: &str, rows: usize, cols: usize| -> Result<Array2<f32>> {
        let m = vector_or_matrix(file, name)?;
        crate::io::check_finite(name, &m)?;
        if m.dim() != (rows, cols) {
            return Err(malformed(format!("tensor {} is {:?}, the network needs {:?}", quoted(name), m.dim(), (rows, cols))));
        }
        Ok(m)
    };
    let affine = |name: &str, map: Map, bias: bool| -> Result<Layer> {
        let (rows, cols) = map.weight_dim();
        let bias = if bias { Some(matrix(&format!("{name}.bias"), rows, 1)?) } else { None };
        Ok(Layer::Affine(Affine::new(map, matrix(&format!("{name}.weight"), rows, cols)?, bias)))
    };
    let mut layers = Vec::new();
    for (name, kind) in chain.layers {
        // Nothing below multiplies before it is known that the products are small.
        if !kind.is_small() {
            return Err(malformed(format!("layer {}: {kind:?} has sizes beyond {LARGEST}", quoted(&name))));
        }
        let layer = match kind {
            Kind::Linear { inputs, outputs, bias } => affine(&name, Map::Linear { inputs, outputs }, bias)?,
            Kind::Conv2d { conv, bias } => {
                let (_, h, w) = conv.input;
                let fits = conv.kernel.0 > 0 && conv.kernel.1 > 0 && conv.stride > 0;
                if !fits || h + 2 * conv.padding < conv.kernel.0 || w + 2 * conv.padding < conv.kernel.1 {
                    return Err(malformed(format!("layer {}: {conv:?} has no position", quoted(&name))));
                }
                affine(&name, Map::Conv2d(conv), bias)?
            }
            Kind::BatchNorm { channels, positions, epsilon, momentum } => {
                let column = |what: &str| matrix(&format!("{name}.{what}"), channels, 1);
                let mut norm = BatchNorm { epsilon, momentum, ..BatchNorm::new(0, positions) };
                norm.gamma = crate::nn::Param::new(column("weight")?, vec![channels]);
                norm.beta = crate::nn::Param::new(column("bias")?, vec![channels]);
                norm.mean = column("running_mean")?.into_iter().collect();
                norm.variance = column("running_var")?.into_iter().collect();
                let sound = |v: f32| v >= 0.0 && v + epsilon > 0.0 && epsilon.is_finite() && momentum.is_finite();
                if let Some(v) = norm.variance.iter().find(|v| !sound(**v)) {
                    let reason = format!("a variance of {v} with epsilon {epsilon} and momentum {momentum} cannot be");
                    return Err(malformed(format!("layer {}: {reason}", quoted(&name))));
                }
                Layer::BatchNorm(norm)
            }
            Kind::Activation(f) => Layer::Activation(f),
            Kind::Pact { bits } => {
                let alpha = matrix(&format!("{name}.alpha"), 1, 1)?[[0, 0]];
                if alpha <= 0.0 || bits.is_some_and(|bits| !(1..=16).contains(&bits)) {
                    return Err(malformed(format!("layer {}: cut off at {alpha}, {bits:?} bits, cannot be", quoted(&name))));
                }
                Layer::Pact(Pact::new(alpha, bits))
            }
            Kind::Pool(p) => {
                if p.size == 0 || p.stride == 0 || p.input.1 < p.size || p.input.2 < p.size {
                    return Err(malformed(format!("layer {}: {p:?} has no whole window", quoted(&name))));
                }
                Layer::Pool(p)
            }
        };
        layers.push((name, layer));
    }
    let mut network = Network::new(chain.inputs, layers).map_err(|e| malformed(e.to_string()))?;
    for (name, mask) in file.masks()? {
        network.param_mut(&name)?.set_mask(mask)?;
    }
    Ok(network)
}

/// A tensor as a matrix; one of one dimension as a column.
fn vector_or_matrix(file: &Checkpoint, name: &str) -> Result<Array2<f32>> {
    let tensor = file.get(name)?;
    if tensor.ndim() == 1 {
        return Ok(Array2::from_shape_fn((tensor.len(), 1), |(i, _)| tensor[[i]]));
    }
    file.matrix(name)
}

/// Writes a network; the file appears whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn save(network: &Network, path: impl AsRef<Path>) -> Result<()> {
    to_checkpoint(network)?.write(path)
}

/// Reads a network that [`save`] wrote.
///
/// # Errors
/// As [`from_checkpoint`], and if the file cannot be read.
pub fn load(path: impl AsRef<Path>) -> Result<Network> {
    from_checkpoint(&Checkpoint::read(path)?)
}
