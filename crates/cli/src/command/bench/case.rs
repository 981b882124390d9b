//! One case of a benchmark: a weight, a mask, a number of tokens.

use super::measure::{Measured, SPARSE, SPRS, check, sparse as contender, sprs, times};
use super::room::check_threads;
use lacuna::advise::{Contender, Timed};
use lacuna::criteria::{Evidence, Magnitude, Saliency};
use lacuna::io::{Checkpoint, Folder, MaskFile};
use lacuna::kernels::Isa;
use lacuna::lm::{Config, Outline};
use lacuna::mask::{Mask, Pattern, Scope, select};
use lacuna::rng::Seed;
use lacuna::sparse::{ActivationBits, Compress, Csr, Dense, Format, Hint, LinearOp, Machine, Plan, Precision};
use lacuna::{Error, Result};
use ndarray::Array2;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

/// A weight to prune, and the mask that a file holds beside it.
pub struct Weights {
    name: String,
    pub weight: Array2<f32>,
    stored: Option<Mask>,
}

impl Weights {
    /// Normal weights; skewed ones have rows and columns of very different scales, so that pruning leaves some dense and many empty.
    pub fn random((out, inputs): (usize, usize), seed: Seed, skewed: bool) -> Weights {
        let mut weight = seed.stream("bench/weight").normal_array(out, inputs, 1.0);
        if skewed {
            let rows = seed.stream("bench/rows").normal_array(1, out, 1.5).mapv(f32::exp);
            let cols = seed.stream("bench/columns").normal_array(1, inputs, 1.0).mapv(f32::exp);
            weight.indexed_iter_mut().for_each(|((r, c), w)| *w *= rows[[0, r]] * cols[[0, c]]);
        }
        Weights { name: format!("{out}x{inputs}"), weight, stored: None }
    }

    /// A matrix of a safetensors file or of a model's folder, whole or packed, with its mask: out of the file, out of
    /// `masks.safetensors` beside it, or out of its layout.
    pub fn open(path: &Path, tensor: &str) -> Result<Weights> {
        let (weight, stored) = if path.is_dir() { of_folder(path, tensor)? } else { of_file(path, tensor)? };
        if weight.is_empty() {
            return Err(Error::invalid_option("tensor", format!("{tensor} has no weights")));
        }
        Ok(Weights { name: tensor.to_string(), weight, stored })
    }

    /// The mask that pruning by magnitude leaves; the stored one if no sparsity is asked for.
    pub fn mask(&self, pattern: Pattern, sparsity: Option<f64>) -> Result<Mask> {
        let (out, inputs) = self.weight.dim();
        let sparsity = match (sparsity, pattern, &self.stored) {
            (None, Pattern::Unstructured, Some(mask)) => return Ok(mask.clone()),
            (None, Pattern::Nm { .. }, _) => 0.0,
            (None, ..) => {
                let reason = format!("{} has no mask of that pattern stored; give --sparsity", self.name);
                return Err(Error::invalid_option("sparsity", reason));
            }
            (Some(s), ..) => s,
        };
        let scores = Magnitude::default().score(&Evidence::weight_only(&self.name, &self.weight))?;
        select(&scores, pattern, Scope::Layer, pattern.budget(out, inputs, sparsity)?)
    }
}

/// A weight `(out, in)` with its mask.
type Masked = (Array2<f32>, Option<Mask>);

fn of_folder(path: &Path, tensor: &str) -> Result<Masked> {
    let folder = Folder::open(path)?;
    let shape = folder.shape(tensor)?;
    let &[rows, cols] = shape else {
        let reason = format!("{tensor} has shape {shape:?}; a weight of a folder is a matrix");
        return Err(Error::malformed(path, reason));
    };
    let (weight, mask) = (folder.matrix(tensor, (rows, cols))?, folder.mask(tensor)?);
    // Some models keep (in, out). What is no model that is known keeps what it keeps.
    let outline = Config::of(&folder).and_then(|config| Outline::of(&folder, &config)).ok();
    let turned = outline.is_some_and(|o| o.layers.iter().any(|l| l.transposed && l.tensor() == tensor));
    if !turned {
        return Ok((weight, mask));
    }
    let mask = mask.map(|mask| mask.transpose());
    Ok((weight.reversed_axes().as_standard_layout().into_owned(), mask))
}

fn of_file(file: &Path, tensor: &str) -> Result<Masked> {
    let checkpoint = Checkpoint::read(file)?;
    if checkpoint.storages().any(|name| name == tensor) {
        let storage = checkpoint.storage(tensor)?;
        let (weight, (rows, cols)) = (storage.to_dense(), storage.shape());
        let mask = beside(file, tensor, (rows, cols))?;
        let kept = mask.unwrap_or_else(|| storage.mask());
        return Ok((weight, Some(kept)));
    }
    if checkpoint.published_names().iter().any(|name| name == tensor) {
        return checkpoint.published(tensor).map(|(weight, mask)| (weight, Some(mask)));
    }
    let name = checkpoint.tensor_of(tensor)?;
    let weight = checkpoint.matrix(name)?;
    if let Some(mask) = checkpoint.mask(name)? {
        return Ok((weight, Some(mask)));
    }
    let mask = beside(file, name, weight.dim())?;
    Ok((weight, mask))
}

/// The mask of a weight of this shape from the file of masks beside.
fn beside(file: &Path, name: &str, dim: (usize, usize)) -> Result<Option<Mask>> {
    match MaskFile::beside(file)?.map(|masks| masks.read(name)).transpose()?.flatten() {
        Some(mask) if mask.dim() != dim => {
            Err(Error::malformed(file, format!("the mask of {name} beside it is {:?}, the weight {dim:?}", mask.dim())))
        }
        mask => Ok(mask),
    }
}

/// What `--format` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatArg {
    /// The plan, tuned.
    Auto,
    /// The plan as its model says.
    Model,
    Named(Format),
}

impl FromStr for FormatArg {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(FormatArg::Auto),
            "model" => Ok(FormatArg::Model),
            _ => Ok(FormatArg::Named(s.parse()?)),
        }
    }
}

/// A case.
pub struct Case<'a> {
    pub weight: &'a Array2<f32>,
    pub mask: &'a Mask,
    pub pattern: Pattern,
    pub tokens: usize,
    pub threads: usize,
    pub format: FormatArg,
    pub values: Precision,
    pub activation_bits: ActivationBits,
    pub cold: bool,
    /// Whether `sprs` is timed too.
    pub peers: bool,
    pub seconds: f64,
    pub seed: Seed,
}

/// Bytes that the caches of this machine do not hold, up to a gigabyte.
pub fn beyond_caches() -> usize {
    (Machine::here().l3 / 4 * 5).clamp(96 << 20, 1 << 30)
}

/// Runs on so many threads.
pub fn in_pool<T: Send>(threads: usize, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    check_threads(&[threads])?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::invalid_option("threads", e.to_string()))?.install(run)
}

impl Case<'_> {
    /// Checks the answers, then times all contenders in turn.
    pub fn run(&self) -> Result<Measured> {
        in_pool(self.threads, || self.run_here())
    }

    /// The storage that the case asks for.
    fn build(&self) -> Result<(Box<dyn LinearOp>, Format)> {
        let (values, activation_bits) = (self.values, self.activation_bits);
        let hint = Hint { from_memory: self.cold, values, activation_bits, ..Hint::tokens(self.tokens) };
        if let FormatArg::Named(format) = self.format {
            return Ok((self.in_format(format, values)?, format));
        }
        let mut plan = Plan::new(self.weight, self.mask, hint)?;
        if self.format == FormatArg::Auto {
            plan.tune()?;
        }
        let format = plan.chosen(self.tokens);
        Ok((Box::new(plan), format))
    }

    /// One storage.
    fn in_format(&self, format: Format, values: Precision) -> Result<Box<dyn LinearOp>> {
        format.build_with(self.weight, self.mask, values, self.activation_bits)
    }

    fn run_here(&self) -> Result<Measured> {
        let (out, inputs) = self.weight.dim();
        let x = self.seed.stream("bench/x").normal_array(self.tokens, inputs, 1.0);
        let mut before = Instant::now();
        let (op, format) = self.build()?;
        let hint = Hint::tokens(self.tokens).with_values(self.values);
        let values = if matches!(self.format, FormatArg::Named(_)) { self.values } else { hint.values_in(format, inputs) };
        if !matches!(self.format, FormatArg::Named(_)) {
            // A plan has tried several storages; the one that it took is timed by itself.
            before = Instant::now();
            std::hint::black_box(self.in_format(format, values)?);
        }
        let pack_us = before.elapsed().as_secs_f64() * 1e6;
        // The bound on the error is that of the numbers kept, not of those given.
        let error = check(op.as_ref(), &x, self.activation_bits)?;
        let pruned = Dense::compress(self.weight, self.mask)?;
        let (bytes, dense_bytes) = (op.bytes(), pruned.bytes());
        let copies = |bytes: usize| if self.cold { beyond_caches().div_ceil(bytes.max(1)).clamp(2, 4096) } else { 1 };
        let mut sparse = vec![op];
        for _ in 1..copies(bytes) {
            sparse.push(self.in_format(format, values)?);
        }
        let dense = vec![pruned; copies(dense_bytes)];
        // Dense in as many bits, where there is such a storage.
        let mut same = Vec::new();
        if self.values != Precision::F32 && hint.values_in(Format::Dense, inputs) == self.values {
            let build = || self.in_format(Format::Dense, self.values);
            same.push(build()?);
            for _ in 1..copies(same[0].bytes()) {
                same.push(build()?);
            }
        }
        let csr = if self.peers && !self.cold { Some(Csr::compress(self.weight, self.mask)?.into_sprs()?) } else { None };
        let turned = x.t().as_standard_layout().into_owned();
        let mut contenders = vec![contender(&sparse)];
        contenders.extend(Contender::dense(&dense));
        if !same.is_empty() {
            contenders.push(Contender::storages("same-bits", &same));
        }
        contenders.extend(csr.iter().map(|csr| sprs(csr, &turned)));
        let times = times(&mut contenders, &x, out, self.seconds)?;
        let of = |name: &str| times.iter().find(|t| t.name == name);
        let dense = times.iter().filter(|t| t.name != SPARSE && t.name != SPRS).min_by(|a, b| a.us.total_cmp(&b.us));
        let (Some(sparse), Some(dense)) = (of(SPARSE), dense) else {
            return Err(Error::invalid_option("format", "nothing was timed"));
        };
        let &Timed { name: dense_kernel, us: dense_us, .. } = dense;
        Ok(Measured {
            shape: format!("{out}x{inputs}"),
            tokens: self.tokens,
            sparsity: 1.0 - self.mask.kept() as f64 / self.weight.len() as f64,
            threads: self.threads,
            isa: Isa::chosen()?.name(),
            format: format.to_string(),
            kernel: format.kernel(self.tokens),
            dense_us,
            dense_kernel,
            sparse_us: sparse.us,
            sprs_us: of(SPRS).map(|t| t.us),
            speedup: dense_us / sparse.us,
            pack_us,
            bytes,
            dense_bytes,
            max_error: error.largest,
            max_error_of_sizes: error.of_sizes,
            dense_quartiles_us: dense.quartiles_us,
            dense_timed: dense.timed,
            sparse_quartiles_us: sparse.quartiles_us,
            sparse_timed: sparse.timed,
            pattern: self.pattern.to_string(),
            values: values.to_string(),
            activation_bits: self.activation_bits.to_string(),
            cold: self.cold,
        })
    }
}
