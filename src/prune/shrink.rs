//! Removing dead units for real: a network that is smaller and computes the same.

use crate::mask::Mask;
use crate::nn::{Affine, BatchNorm, Conv2d, Group, Layer, Map, Network, Param, Pool};
use crate::structure::{Coupling, UnitCut};
use crate::{Error, Result};
use ndarray::{Array2, Axis, Ix2, s};

/// A network without its dead units: `forward` gives the same outputs up to rounding (1e-5), with fewer and smaller
/// matrices.
///
/// A unit of a group is dead if the masks drop all its inputs, or all its outputs:
/// - a unit that nobody reads is left out;
/// - a unit that reads nothing has one constant output, worked out through bias, batch normalisation (running statistics),
///   activation and pooling. If the constant is 0 the unit is left out; otherwise its share is added to the next layer's bias.
///   A constant other than 0 before a convolution with padding is not constant at the border, so that unit stays.
///
/// Of a group whose units are all dead one stays. Masks of what is left are kept where they still drop something.
///
/// # Errors
/// Never for a network whose parameters keep their invariants.
pub fn shrink(network: &Network) -> Result<Network> {
    let mut small = network.clone();
    loop {
        let before = small.parameters();
        for (i, group) in small.groups().iter().enumerate() {
            small = shrink_group(&small, group, &small.couplings()[i])?;
        }
        if small.parameters() == before {
            return Ok(small);
        }
    }
}

fn shrink_group(network: &Network, group: &Group, coupling: &Coupling) -> Result<Network> {
    let layers = network.layers();
    let (Layer::Affine(producer), Layer::Affine(consumer)) = (&layers[group.producer].1, &layers[group.consumer].1) else {
        return Err(Error::invalid_option("group", "its producer and consumer are linear or convolutional layers"));
    };
    let padded = matches!(&consumer.map, Map::Conv2d(c) if c.padding > 0);
    let rows = producer.weight.mask().map(Mask::row_counts);
    let read = consumer.weight.mask().map(|m| m.block_counts(m.rows().max(1), group.width));
    let bias = |u: usize| producer.bias.as_ref().map_or(0.0, |b| b.value()[[u, 0]]);
    let between = &layers[group.producer + 1..group.consumer];

    // For each unit: Some(constant) if it goes.
    let mut gone: Vec<Option<f32>> = (0..group.units)
        .map(|u| {
            if read.as_ref().is_some_and(|r| r[[0, u]] == 0) {
                return Some(0.0);
            }
            let dead = rows.as_ref().is_some_and(|r| r[u] == 0);
            let constant = between.iter().fold(bias(u), |x, (_, layer)| through(layer, u, x));
            (dead && (constant == 0.0 || !padded)).then_some(constant)
        })
        .collect();
    if gone.iter().all(Option::is_some) {
        gone[0] = None;
    }
    let keep: Vec<usize> = (0..group.units).filter(|&u| gone[u].is_none()).collect();
    if keep.len() == group.units {
        return Ok(network.clone());
    }
    let mut cut = UnitCut::default();
    cut.keep(coupling, &keep);

    // The constants of what goes, into the consumer's bias.
    let mut folded = consumer.bias.as_ref().map(|b| b.value().clone());
    for (u, constant) in gone.iter().enumerate().filter_map(|(u, c)| c.filter(|&c| c != 0.0).map(|c| (u, c))) {
        let share = consumer.weight.value().slice(s![.., u * group.width..(u + 1) * group.width]).sum_axis(Axis(1)) * constant;
        *folded.get_or_insert_with(|| Array2::zeros((share.len(), 1))) += &share.insert_axis(Axis(1));
    }

    let mut next = layers.to_vec();
    for (name, layer) in &mut next[group.producer + 1..group.consumer] {
        match layer {
            Layer::BatchNorm(b) => *b = norm(name, b, &cut)?,
            Layer::Pool(p) => *p = Pool { input: (keep.len(), p.input.1, p.input.2), ..*p },
            Layer::Activation(_) | Layer::Pact(_) | Layer::Affine(_) => {}
        }
    }
    next[group.producer].1 =
        Layer::Affine(smaller(&layers[group.producer].0, producer, &cut, fewer_outputs(&producer.map, keep.len()))?);
    let map = fewer_inputs(&consumer.map, keep.len() * group.width, keep.len());
    let mut reader = smaller(&layers[group.consumer].0, consumer, &cut, map)?;
    if folded.as_ref() != consumer.bias.as_ref().map(Param::value) {
        // A bias that took up constants is no longer what its mask was made for.
        let weight = reader.weight;
        reader = Affine { weight: weight.clone(), ..Affine::new(reader.map, weight.value().clone(), folded) };
    }
    next[group.consumer].1 = Layer::Affine(reader);
    Network::new(network.inputs(), next)
}

/// A constant of unit `u` after one layer.
fn through(layer: &Layer, u: usize, x: f32) -> f32 {
    match layer {
        Layer::Activation(f) => f.value(x),
        Layer::Pact(p) => p.value(x),
        Layer::BatchNorm(b) => {
            b.gamma.as_slice()[u] * (x - b.mean[u]) / (b.variance[u] + b.epsilon).sqrt() + b.beta.as_slice()[u]
        }
        Layer::Pool(_) | Layer::Affine(_) => x,
    }
}

fn fewer_outputs(map: &Map, units: usize) -> Map {
    match map {
        Map::Linear { inputs, .. } => Map::Linear { inputs: *inputs, outputs: units },
        Map::Conv2d(c) => Map::Conv2d(Conv2d { out_channels: units, ..*c }),
    }
}

/// As many columns for a linear layer, or channels for a convolution.
fn fewer_inputs(map: &Map, columns: usize, channels: usize) -> Map {
    match map {
        Map::Linear { outputs, .. } => Map::Linear { inputs: columns, outputs: *outputs },
        Map::Conv2d(c) => Map::Conv2d(Conv2d { input: (channels, c.input.1, c.input.2), ..*c }),
    }
}

/// What is left of a layer.
fn smaller(name: &str, a: &Affine, cut: &UnitCut, map: Map) -> Result<Affine> {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    let values = a.bias.as_ref().map(|b| part(&bias, b, cut)).transpose()?;
    let mut small = Affine::new(map, part(&weight, &a.weight, cut)?, values);
    hold(&weight, &mut small.weight, &a.weight, cut)?;
    if let (Some(new), Some(old)) = (&mut small.bias, &a.bias) {
        hold(&bias, new, old, cut)?;
    }
    Ok(small)
}

fn norm(name: &str, b: &BatchNorm, cut: &UnitCut) -> Result<BatchNorm> {
    let (gamma, beta) = (format!("{name}.weight"), format!("{name}.bias"));
    let keep = cut.kept(&gamma, 0, b.mean.len()).unwrap_or_else(|| (0..b.mean.len()).collect());
    let mut small = BatchNorm { epsilon: b.epsilon, momentum: b.momentum, ..BatchNorm::new(keep.len(), b.positions) };
    small.mean = keep.iter().map(|&u| b.mean[u]).collect();
    small.variance = keep.iter().map(|&u| b.variance[u]).collect();
    for (param, new, old) in [(gamma, &mut small.gamma, &b.gamma), (beta, &mut small.beta, &b.beta)] {
        new.set_value(part(&param, old, cut)?)?;
        hold(&param, new, old, cut)?;
    }
    Ok(small)
}

/// What is left of a parameter's numbers.
fn part(name: &str, old: &Param, cut: &UnitCut) -> Result<Array2<f32>> {
    let left = cut.apply(name, old.value().clone().into_dyn()).into_dimensionality::<Ix2>();
    left.map_err(|e| Error::invalid_option(name, e.to_string()))
}

/// Holds on `new` what is left of the mask of `old`, if it still drops something.
fn hold(name: &str, new: &mut Param, old: &Param, cut: &UnitCut) -> Result<()> {
    let Some(mask) = old.mask() else { return Ok(()) };
    let left = |axis: usize, len: usize| cut.kept(name, axis, len).unwrap_or_else(|| (0..len).collect());
    let (rows, cols) = (left(0, mask.rows()), left(1, mask.cols()));
    let part = Mask::from_fn(rows.len(), cols.len(), |r, c| mask.get(rows[r], cols[c]));
    if part.kept() == part.len() { Ok(()) } else { new.set_mask(part) }
}
