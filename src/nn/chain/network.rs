//! A chain of layers: its parameters, its masks, and the way forward. The passes back are in `passes`.

use super::{Affine, Layer, Param, Saved};
use crate::mask::Mask;
use crate::nn::Mode;
use crate::nn::parameters::{Change, Gradients, Parameters, See, check_mask};
use crate::structure::{Coupling, Extent, Member, Side, UnitKind};
use crate::{Error, Result};
use ndarray::Array2;

/// A chain of named layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(super) layers: Vec<(String, Layer)>,
    pub(super) inputs: usize,
}

/// What a forward pass keeps for the passes back: the input, and the output of every layer.
#[derive(Debug, Clone)]
pub struct Tape {
    pub(super) values: Vec<Array2<f32>>,
    pub(super) saved: Vec<Saved>,
    /// Of each value, what dropout multiplied it by; empty without dropout.
    pub(super) drops: Vec<Option<Array2<f32>>>,
}

impl Tape {
    /// The network's output, `(batch, outputs)`.
    pub fn output(&self) -> &Array2<f32> {
        &self.values[self.values.len() - 1]
    }

    /// The input of the layer of this index, `(batch, features)`.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn input(&self, layer: usize) -> &Array2<f32> {
        &self.values[..self.saved.len()][layer]
    }
}

/// Units that go together: one output unit (or channel) of `producer` with its batch normalisation and with the inputs of
/// `consumer` that read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Index of the layer whose rows are the units.
    pub producer: usize,
    /// Indices of the batch-norm layers between.
    pub norms: Vec<usize>,
    /// Index of the layer whose columns read the units.
    pub consumer: usize,
    /// Number of units.
    pub units: usize,
    /// Columns of the consumer that read one unit; unit `u` is read by columns `u * width .. (u + 1) * width`.
    pub width: usize,
}

impl Network {
    /// A chain of named layers over `inputs` features.
    ///
    /// # Errors
    /// If two layers that have parameters share a name, or a layer's input does not fit the output before it.
    pub fn new(inputs: usize, layers: Vec<(String, Layer)>) -> Result<Self> {
        let mut features = inputs;
        for (i, (name, layer)) in layers.iter().enumerate() {
            if layers[..i].iter().any(|(n, l)| n == name && !l.params().is_empty()) && !layer.params().is_empty() {
                return Err(Error::invalid_option("layer name", format!("'{name}' is given twice")));
            }
            if let Some(expected) = layer.inputs().filter(|&e| e != features) {
                return Err(Error::shape(format!("input of layer {name}"), &[expected], &[features]));
            }
            features = layer.outputs(features);
            if features == 0 {
                return Err(Error::shape(format!("output of layer {name}"), &[1], &[0]));
            }
        }
        Ok(Network { layers, inputs })
    }

    /// Features of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The layers in order, with their names.
    pub fn layers(&self) -> &[(String, Layer)] {
        &self.layers
    }

    /// The linear and convolutional layers: index, name, layer.
    pub fn affines(&self) -> impl Iterator<Item = (usize, &str, &Affine)> {
        self.layers.iter().enumerate().filter_map(|(i, (name, layer))| match layer {
            Layer::Affine(a) => Some((i, name.as_str(), a)),
            _ => None,
        })
    }

    /// All parameters in order, named `layer.weight`, `layer.bias`.
    pub fn params(&self) -> Vec<(String, &Param)> {
        self.layers.iter().flat_map(|(n, l)| l.params().into_iter().map(move |(p, v)| (format!("{n}.{p}"), v))).collect()
    }

    /// As [`Network::params`].
    pub fn params_mut(&mut self) -> Vec<(String, &mut Param)> {
        self.layers
            .iter_mut()
            .flat_map(|(n, l)| l.params_mut().into_iter().map(|(p, v)| (format!("{n}.{p}"), v)).collect::<Vec<_>>())
            .collect()
    }

    /// The parameter of this name, for example `fc1.weight`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name.
    pub fn param(&self, name: &str) -> Result<&Param> {
        let params = self.params();
        match params.iter().find(|(n, _)| n == name) {
            Some((_, p)) => Ok(p),
            None => Err(Error::unknown_layer(name, params.iter().map(|(n, _)| n.as_str()))),
        }
    }

    /// As [`Network::param`].
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name.
    pub fn param_mut(&mut self, name: &str) -> Result<&mut Param> {
        self.param(name)?;
        self.params_mut()
            .into_iter()
            .find(|(n, _)| n == name)
            .map(|(_, p)| p)
            .ok_or_else(|| Error::unknown_layer(name, std::iter::empty()))
    }

    /// Number of parameters that are not masked.
    pub fn kept_parameters(&self) -> usize {
        self.params().iter().map(|(_, p)| p.kept()).sum()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.params().iter().map(|(_, p)| p.value().len()).sum()
    }

    /// Multiplications and additions of one sample with the kept weights: twice the products of the linear and
    /// convolutional layers.
    pub fn flops(&self) -> usize {
        self.affines().map(|(_, _, a)| 2 * a.weight.kept() * a.map.positions()).sum()
    }

    /// The masks of the linear and convolutional layers' weights: name of the layer, mask (full where none is held).
    pub fn masks(&self) -> Vec<(String, Mask)> {
        let mask = |a: &Affine| {
            a.weight.mask().cloned().unwrap_or_else(|| Mask::full(a.weight.value().nrows(), a.weight.value().ncols()))
        };
        self.affines().map(|(_, name, a)| (name.to_string(), mask(a))).collect()
    }

    /// Units that may be removed together, declared along the chain: each linear or convolutional layer with the next one.
    /// The last layer's outputs are nobody's to remove, nor are units that a layer between cuts up or takes together (an image
    /// made of a linear layer's outputs).
    pub fn groups(&self) -> Vec<Group> {
        let affines: Vec<(usize, &Affine)> = self.affines().map(|(i, _, a)| (i, a)).collect();
        let pair = |w: &[(usize, &Affine)]| {
            let ((producer, p), (consumer, c)) = (w[0], w[1]);
            let units = p.map.weight_dim().0;
            let alike = self.layers[producer + 1..=consumer].iter().all(|(_, layer)| layer.reads_units(units));
            let norms = (producer..consumer).filter(|&i| matches!(self.layers[i].1, Layer::BatchNorm(_))).collect();
            alike.then(|| Group { producer, norms, consumer, units, width: c.map.weight_dim().1 / units })
        };
        affines.windows(2).filter_map(pair).collect()
    }

    /// The groups as couplings of parameters: rows of the producer with bias and batch normalisation, columns of the consumer.
    pub fn couplings(&self) -> Vec<Coupling> {
        let member = |tensor: String, axis, width, side| Member { tensor, part: Extent::Slice { axis, offset: 0, width }, side };
        let coupling = |group: Group| {
            let (name, producer) = &self.layers[group.producer];
            let rows = producer.params().into_iter().map(|(p, _)| member(format!("{name}.{p}"), 0, 1, Side::Makes));
            let norms = group.norms.iter().flat_map(|&norm| {
                let (name, layer) = &self.layers[norm];
                let all = layer.params().into_iter().map(|(p, _)| (format!("{name}.{p}"), p)).collect::<Vec<_>>();
                all.into_iter().map(|(tensor, p)| member(tensor, 0, 1, if p == "weight" { Side::Scales } else { Side::Shifts }))
            });
            let columns = member(format!("{}.weight", self.layers[group.consumer].0), 1, group.width, Side::Reads);
            let members = rows.chain(norms).chain([columns]).collect();
            Coupling { name: name.clone(), kind: UnitKind::Channel, block: None, units: group.units, runs: 1, members }
        };
        self.groups().into_iter().map(coupling).collect()
    }

    /// The output `(batch, outputs)` of `x (batch, inputs)`, with running statistics.
    ///
    /// # Panics
    /// If `x` has not [`Network::inputs`] features.
    pub fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        assert_eq!(x.ncols(), self.inputs, "the network has another number of inputs");
        let mut layers = self.layers.iter();
        let Some((_, first)) = layers.next() else { return x.clone() };
        if !x.is_standard_layout() {
            return self.forward(&x.as_standard_layout().into_owned());
        }
        layers.fold(first.forward(x, Mode::Eval).0, |y, (_, layer)| layer.forward(&y, Mode::Eval).0)
    }

    /// A forward pass that keeps what the passes back need.
    ///
    /// # Panics
    /// If `x` has not [`Network::inputs`] features.
    pub fn run(&self, x: Array2<f32>, mode: Mode) -> Tape {
        assert_eq!(x.ncols(), self.inputs, "the network has another number of inputs");
        let mut tape = Tape { values: vec![x.as_standard_layout().into_owned()], saved: Vec::new(), drops: Vec::new() };
        for (_, layer) in &self.layers {
            let (y, saved) = layer.forward(tape.output(), mode);
            tape.values.push(y);
            tape.saved.push(saved);
        }
        tape
    }

    /// Moves batch-norm's running averages towards what a pass in [`Mode::Train`] saw.
    pub fn absorb_statistics(&mut self, tape: &Tape) {
        for ((_, layer), saved) in self.layers.iter_mut().zip(&tape.saved) {
            if let Layer::BatchNorm(b) = layer {
                b.absorb(saved);
            }
        }
    }
}

impl Parameters for Network {
    fn visit(&self, f: &mut See<'_>) {
        self.params().iter().for_each(|(name, p)| f(name, p.value().view().into_dyn(), p.mask()));
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.params_mut().into_iter().for_each(|(name, p)| p.update(|values, mask| f(&name, values, mask)));
        Ok(())
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        let param = self.param_mut(name)?;
        match mask {
            Some(mask) => check_mask(name, param.value().dim(), &mask).and_then(|()| param.set_mask(mask)),
            None => {
                param.clear_mask();
                Ok(())
            }
        }
    }
}

impl Network {
    /// Arrays in the order of [`Network::params`], as gradients by name.
    ///
    /// # Panics
    /// If there is not one a parameter.
    pub fn named(&self, arrays: Vec<Array2<f32>>) -> Gradients {
        let params = self.params();
        assert_eq!(params.len(), arrays.len(), "one gradient a parameter");
        params.into_iter().zip(arrays).map(|((name, _), array)| (name, array.into_dyn())).collect()
    }
}
