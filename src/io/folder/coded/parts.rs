//! A weight in codes as the tensors of a file, there and back.

use super::QuantLayout;
use super::bits::{AWQ_ORDER, pack, unpack, words};
use super::scheme::Scheme;
use crate::io::safetensors::{Dtype, Element};
use crate::quantize::{CodeGrid, Codes, Granularity, ScaleType, Step};
use crate::{Error, Result};
use ndarray::{Array2, Axis};
use rayon::prelude::*;

/// A tensor as it lies in a file.
#[derive(Debug, Clone)]
pub struct Raw {
    pub element: Element,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Raw {
    fn word(&self, at: usize) -> u32 {
        self.bytes.get(4 * at..4 * at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

/// The tensors of one weight in codes, by their shapes.
#[derive(Debug, Clone)]
pub struct CodedParts {
    pub layout: QuantLayout,
    pub bits: u32,
    pub rows: usize,
    pub cols: usize,
    less_one: bool,
    /// What stands behind the layer's name and a dot.
    pub suffixes: Vec<&'static str>,
}

/// A weight of a file: codes, steps, and of each input the number of its group.
pub struct Decoded {
    codes: Array2<u8>,
    steps: Array2<Step>,
    group_of: Vec<usize>,
    grid: CodeGrid,
}

/// All names of parts, those that a weight is known by first.
const PACKED: [&str; 5] = ["weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"];
const BYTES: [&str; 3] = ["weight", "weight_scale", "weight_zero_point"];
const GPTQ: [&str; 4] = ["qweight", "scales", "qzeros", "g_idx"];
const AWQ: [&str; 3] = ["qweight", "scales", "qzeros"];

fn scale_element(scales: ScaleType) -> Element {
    match scales {
        ScaleType::F32 => Element::F32,
        ScaleType::F16 => Element::F16,
        ScaleType::BF16 => Element::BF16,
    }
}

fn dtype_of(scales: ScaleType) -> Dtype {
    match scales {
        ScaleType::F32 => Dtype::F32,
        ScaleType::F16 => Dtype::F16,
        ScaleType::BF16 => Dtype::BF16,
    }
}

/// The tensors of a weight to be: what stands behind the layer's name, element and shape.
///
/// # Errors
/// As [`QuantLayout::check_shape`].
pub fn planned(
    layout: QuantLayout,
    (rows, cols): (usize, usize),
    grid: CodeGrid,
) -> Result<Vec<(&'static str, Element, Vec<usize>)>> {
    layout.check_shape((rows, cols), grid)?;
    let groups = cols / grid.check(cols)?.max(1);
    let scales = match grid.granularity {
        Granularity::Tensor => vec![1],
        _ => vec![rows, groups],
    };
    let (bits, scale) = (grid.bits, scale_element(grid.scales));
    Ok(match layout {
        QuantLayout::CompressedTensors => {
            let mut all = vec![
                (PACKED[0], Element::I32, vec![rows, words(cols, bits)]),
                (PACKED[1], scale, scales),
                (PACKED[2], Element::I64, vec![2]),
            ];
            if !grid.symmetric {
                // One zero point alone is not packed.
                all.push(match grid.granularity {
                    Granularity::Tensor => (PACKED[3], Element::I8, vec![1]),
                    _ => (PACKED[3], Element::I32, vec![words(rows, bits), groups]),
                });
            }
            all
        }
        QuantLayout::IntQuantized => {
            let mut all = vec![(BYTES[0], Element::I8, vec![rows, cols]), (BYTES[1], scale, scales.clone())];
            if !grid.symmetric {
                all.push((BYTES[2], Element::I8, scales));
            }
            all
        }
        QuantLayout::Gptq => vec![
            (GPTQ[0], Element::I32, vec![words(cols, bits), rows]),
            (GPTQ[1], scale, vec![groups, rows]),
            (GPTQ[2], Element::I32, vec![groups, words(rows, bits)]),
            (GPTQ[3], Element::I32, vec![cols]),
        ],
        QuantLayout::Awq => vec![
            (AWQ[0], Element::I32, vec![cols, rows / 8]),
            (AWQ[1], scale, vec![groups, rows]),
            (AWQ[2], Element::I32, vec![groups, rows / 8]),
        ],
    })
}

fn bytes_of(words: Vec<u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Rows of codes, each in whole words.
fn packed_rows(codes: ndarray::ArrayView2<'_, u8>, bits: u32) -> Vec<u32> {
    let width = words(codes.ncols(), bits);
    let mut all = vec![0; codes.nrows() * width];
    all.par_chunks_mut(width.max(1)).zip(codes.axis_iter(Axis(0))).for_each(|(to, row)| pack(row.iter().copied(), bits, to));
    all
}

/// As [`packed_rows`], word after word of all rows, `(words, rows)`.
fn packed_columns(codes: ndarray::ArrayView2<'_, u8>, bits: u32) -> Vec<u32> {
    let (rows, width) = (codes.nrows(), words(codes.ncols(), bits));
    let by_row = packed_rows(codes, bits);
    (0..width * rows).map(|at| by_row[at % rows * width + at / rows]).collect()
}

/// `(in, out / 8)`.
fn packed_awq(codes: ndarray::ArrayView2<'_, u8>) -> Vec<u32> {
    let of = |column: ndarray::ArrayView1<'_, u8>| -> Vec<u32> {
        let word = |w: usize| AWQ_ORDER.iter().enumerate().map(|(i, at)| u32::from(column[8 * w + at]) << (4 * i)).sum();
        (0..column.len() / 8).map(word).collect()
    };
    codes.columns().into_iter().flat_map(of).collect()
}

/// The bytes of each tensor of [`planned`], in its order.
///
/// # Errors
/// [`Error::InvalidOption`] if zero points are not whole numbers.
pub fn encoded(layout: QuantLayout, codes: &Codes, scales: ScaleType) -> Result<Vec<Vec<u8>>> {
    if let Some(zero) = codes.zeros.iter().find(|z| z.fract() != 0.0) {
        return Err(Error::invalid_option("zero point", format!("{zero} is no whole number, as the layout {layout} has them")));
    }
    let (rows, cols) = codes.dim();
    let (bits, of_all) = (codes.bits, codes.granularity == Granularity::Tensor);
    let zeros = codes.zeros.map(|z| *z as u8);
    let numbers = |transposed: bool| -> Vec<u8> {
        let numbers: Vec<f32> = match (of_all, transposed) {
            (true, _) => codes.scales.iter().take(1).copied().collect(),
            (false, true) => codes.scales.t().iter().copied().collect(),
            (false, false) => codes.scales.iter().copied().collect(),
        };
        dtype_of(scales).bytes_of(&numbers)
    };
    let index = || (0..cols).flat_map(|c| ((c / codes.group.max(1)) as i32).to_le_bytes()).collect();
    Ok(match layout {
        QuantLayout::CompressedTensors => {
            let shape = [rows as i64, cols as i64].into_iter().flat_map(i64::to_le_bytes).collect();
            let mut all = vec![bytes_of(packed_rows(codes.codes.view(), bits)), numbers(false), shape];
            if !codes.symmetric {
                // One behind the other along the outputs: a word of all groups after the other.
                let middle = 1u8 << (bits - 1);
                all.push(match of_all {
                    true => zeros.iter().take(1).map(|z| z.wrapping_sub(middle)).collect(),
                    false => bytes_of(packed_columns(zeros.t(), bits)),
                });
            }
            all
        }
        QuantLayout::IntQuantized => {
            let signed = |code: &u8| code.wrapping_sub(128);
            let mut all = vec![codes.codes.iter().map(signed).collect(), numbers(false)];
            if !codes.symmetric {
                all.push(zeros.iter().map(signed).take(if of_all { 1 } else { zeros.len() }).collect());
            }
            all
        }
        QuantLayout::Gptq => vec![
            bytes_of(packed_columns(codes.codes.view(), bits)),
            numbers(true),
            bytes_of(packed_rows(zeros.t(), bits)),
            index(),
        ],
        QuantLayout::Awq => vec![bytes_of(packed_awq(codes.codes.view())), numbers(true), bytes_of(packed_awq(zeros.view()))],
    })
}

/// Whether a scale's element is one that is read.
fn is_scale(element: Element) -> bool {
    Dtype::of(element).is_some()
}

/// What is said of a tensor by its name behind the layer's: its element and its shape.
type Info<'a> = dyn Fn(&str) -> Option<(Element, Vec<usize>)> + 'a;

impl CodedParts {
    /// The parts of a weight that was planned so.
    pub fn of(layout: QuantLayout, (rows, cols): (usize, usize), grid: CodeGrid) -> Result<CodedParts> {
        let suffixes = planned(layout, (rows, cols), grid)?.into_iter().map(|(suffix, ..)| suffix).collect();
        Ok(CodedParts { layout, bits: grid.bits, rows, cols, less_one: false, suffixes })
    }

    /// The parts of the weight of a layer, whose tensor of codes ends in `known`; `info` says of each name behind the layer's what it is. None if it is no
    /// such weight; an error if it is one that does not fit together.
    pub fn find(
        scheme: &Scheme,
        known: &str,
        info: &Info<'_>,
        numbers: &dyn Fn(&str) -> Result<Raw>,
    ) -> Result<Option<CodedParts>> {
        let (layout, names): (QuantLayout, &[&'static str]) = match (scheme.layout, known) {
            (QuantLayout::CompressedTensors, "weight_packed") => (QuantLayout::CompressedTensors, &PACKED),
            (QuantLayout::CompressedTensors, "weight") if info("weight").is_some_and(|(e, _)| e == Element::I8) => {
                (QuantLayout::IntQuantized, &BYTES)
            }
            (QuantLayout::Gptq, "qweight") => (QuantLayout::Gptq, &GPTQ),
            (QuantLayout::Awq, "qweight") => (QuantLayout::Awq, &AWQ),
            _ => return Ok(None),
        };
        let suffixes: Vec<&'static str> = names.iter().copied().filter(|name| info(name).is_some()).collect();
        let needed = if layout == QuantLayout::IntQuantized { 2 } else { 3 };
        if let Some(missing) = names[..needed].iter().find(|name| !suffixes.contains(name)) {
            return if *missing == names[1] { Ok(None) } else { Err(refuse(missing, "is missing")) };
        }
        let Some((_, shape)) = info(names[0]) else { return Ok(None) };
        let &[a, b] = shape.as_slice() else {
            return Err(refuse(names[0], &format!("has the shape {shape:?}, and codes two dimensions")));
        };
        let (bits, rows, cols) = match layout {
            QuantLayout::IntQuantized => (8, a, b),
            QuantLayout::Awq => (4, b.saturating_mul(8), a),
            QuantLayout::Gptq => (scheme.bits[0], b, a.saturating_mul(32) / scheme.bits[0] as usize),
            QuantLayout::CompressedTensors => {
                let raw = numbers(names[2])?;
                let wide = if raw.element == Element::I64 { 8 } else { 4 };
                let signed = |b: &[u8]| {
                    if wide == 8 {
                        i64::from_le_bytes(b.try_into().unwrap_or_default())
                    } else {
                        i64::from(i32::from_le_bytes(b.try_into().unwrap_or_default()))
                    }
                };
                let counts: Vec<usize> = raw.bytes.chunks_exact(wide).filter_map(|b| usize::try_from(signed(b)).ok()).collect();
                let &[rows, cols] = counts.as_slice() else {
                    return Err(refuse(names[2], "holds no two counts, as the shape of a weight"));
                };
                let fits = |bits: &&u32| rows == a && cols.checked_mul(**bits as usize).is_some_and(|n| n.div_ceil(32) == b);
                let Some(bits) = scheme.bits.iter().find(fits) else {
                    let reason = format!(
                        "says {rows} x {cols}, and {} holds {a} x {b} words of codes of {:?} bits",
                        names[0], scheme.bits
                    );
                    return Err(refuse(names[2], &reason));
                };
                (*bits, rows, cols)
            }
        };
        if rows == 0 || cols == 0 {
            return Err(refuse(names[0], &format!("is of a weight of {rows} x {cols}, which has no codes")));
        }
        Ok(Some(CodedParts { layout, bits, rows, cols, less_one: scheme.less_one, suffixes }))
    }

    /// Reads the weight; `read` gives each part by what stands behind the layer's name.
    ///
    /// # Errors
    /// [`Error::Malformed`], without a file, where parts do not fit.
    pub fn decode(&self, read: &dyn Fn(&str) -> Result<Raw>) -> Result<Decoded> {
        let CodedParts { layout, bits, rows, cols, .. } = *self;
        let part = |name: &'static str, element: Element, shape: &[usize]| -> Result<Raw> {
            let raw = read(name)?;
            if raw.element != element || raw.shape != shape {
                let found = format!("is {} of shape {:?}, where {element} of {shape:?} is expected", raw.element, raw.shape);
                return Err(refuse(name, &found));
            }
            Ok(raw)
        };
        let has = |name: &str| self.suffixes.contains(&name);
        // Scales first: they say how many groups there are.
        let name = if has("scales") { "scales" } else { "weight_scale" };
        let raw = read(name)?;
        let Some(dtype) = Dtype::of(raw.element).filter(|_| is_scale(raw.element)) else {
            return Err(refuse(name, &format!("is {}; scales of F32, F16 and BF16 are read", raw.element)));
        };
        let transposed = matches!(layout, QuantLayout::Gptq | QuantLayout::Awq);
        let (groups, granularity) = match (raw.shape.as_slice(), transposed) {
            ([1] | [], false) => (1, Granularity::Tensor),
            (&[r, 1], false) if r == rows => (1, Granularity::Row),
            (&[r], false) if r == rows => (1, Granularity::Row),
            (&[r, g], false) | (&[g, r], true) if r == rows && g > 0 && g <= cols => {
                (g, if g == 1 { Granularity::Row } else { Granularity::Group(cols / g) })
            }
            (shape, _) => return Err(refuse(name, &format!("has the shape {shape:?}, and the weight is {rows} x {cols}"))),
        };
        let of_all = granularity == Granularity::Tensor;
        let numbers = dtype.decode(&raw.bytes);
        let scale = |r: usize, g: usize| match (of_all, transposed) {
            (true, _) => numbers[0],
            (false, false) => numbers[r * groups + g],
            (false, true) => numbers[g * rows + r],
        };
        let middle = 1u8 << (bits - 1);
        let mut codes = Array2::<u8>::zeros((rows, cols));
        let fill = |codes: &mut Array2<u8>, of: &(dyn Fn(usize, usize) -> u8 + Sync)| {
            codes.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(r, mut row)| {
                row.indexed_iter_mut().for_each(|(c, code)| *code = of(r, c));
            });
        };
        let awq = |raw: &Raw, row: usize, out: usize| {
            let place = AWQ_ORDER.iter().position(|o| *o == out % 8).unwrap_or(0);
            (raw.word(row * (rows / 8) + out / 8) >> (4 * place) & 15) as u8
        };
        let mut zero: Box<dyn Fn(usize, usize) -> f32> = Box::new(|_, _| f32::from(middle));
        match layout {
            QuantLayout::CompressedTensors => {
                let width = words(cols, bits);
                let raw = part("weight_packed", Element::I32, &[rows, width])?;
                fill(&mut codes, &|r, c| unpack(|w| raw.word(r * width + w), bits, c));
                if has("weight_zero_point") {
                    let (element, shape) = match of_all {
                        true => (Element::I8, vec![1]),
                        false => (Element::I32, vec![words(rows, bits), groups]),
                    };
                    let raw = part("weight_zero_point", element, &shape)?;
                    zero = Box::new(move |r, g| match of_all {
                        true => f32::from(raw.bytes[0].wrapping_add(middle)),
                        false => f32::from(unpack(|w| raw.word(w * groups + g), bits, r)),
                    });
                }
            }
            QuantLayout::IntQuantized => {
                let raw = part("weight", Element::I8, &[rows, cols])?;
                fill(&mut codes, &|r, c| raw.bytes[r * cols + c].wrapping_add(128));
                if has("weight_zero_point") {
                    let shape = read("weight_scale")?.shape;
                    let raw = part("weight_zero_point", Element::I8, &shape)?;
                    zero = Box::new(move |r, g| f32::from(raw.bytes[if of_all { 0 } else { r * groups + g }].wrapping_add(128)));
                }
            }
            QuantLayout::Gptq => {
                let raw = part("qweight", Element::I32, &[words(cols, bits), rows])?;
                fill(&mut codes, &|r, c| unpack(|w| raw.word(w * rows + r), bits, c));
                let width = words(rows, bits);
                let raw = part("qzeros", Element::I32, &[groups, width])?;
                let more = f32::from(u8::from(self.less_one));
                zero = Box::new(move |r, g| more + f32::from(unpack(|w| raw.word(g * width + w), bits, r)));
            }
            QuantLayout::Awq => {
                let raw = part("qweight", Element::I32, &[cols, rows / 8])?;
                fill(&mut codes, &|r, c| awq(&raw, c, r));
                let raw = part("qzeros", Element::I32, &[groups, rows / 8])?;
                zero = Box::new(move |r, g| f32::from(awq(&raw, g, r)));
            }
        }
        let index = ["g_idx", "weight_g_idx"].into_iter().find(|name| has(name));
        let group_of: Vec<usize> = match index {
            None if cols % groups != 0 => {
                return Err(refuse(name, &format!("has {groups} groups, which do not divide {cols} inputs")));
            }
            None => (0..cols).map(|c| c / (cols / groups)).collect(),
            Some(index) => {
                let raw = part(index, Element::I32, &[cols])?;
                let all: Vec<usize> = (0..cols).map(|c| raw.word(c) as usize).collect();
                if let Some(c) = all.iter().position(|g| *g >= groups) {
                    return Err(refuse(index, &format!("puts input {c} in group {} of {groups}", all[c].cast_signed())));
                }
                all
            }
        };
        let steps = Array2::from_shape_fn((rows, groups), |(r, g)| Step { scale: scale(r, g), zero: zero(r, g) });
        if let Some(((r, g), step)) = steps.indexed_iter().find(|(_, s)| !s.scale.is_finite()) {
            return Err(refuse(name, &format!("holds {} for row {r}, group {g}", step.scale)));
        }
        let symmetric = steps.iter().all(|s| s.zero == f32::from(middle));
        let grid = CodeGrid { bits, symmetric, granularity, scales: ScaleType::F32 };
        Ok(Decoded { codes, steps, group_of, grid })
    }
}

impl Decoded {
    /// The weight `(out, in)`.
    pub fn to_dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.codes.dim());
        dense.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(r, mut row)| {
            for ((c, w), code) in row.indexed_iter_mut().zip(self.codes.row(r)) {
                *w = self.steps[[r, self.group_of[c]]].value(*code);
            }
        });
        dense
    }

    /// The codes, where groups are of consecutive inputs and steps are those of a grid.
    pub fn codes(self) -> Option<Codes> {
        let group = self.grid.check(self.codes.ncols()).ok()?.max(1);
        let regular = self.group_of.iter().enumerate().all(|(c, g)| *g == c / group);
        if regular { Codes::new(self.grid, self.codes, &self.steps).ok() } else { None }
    }
}

/// What is wrong with a part, to be completed with the file and the layer.
fn refuse(part: &str, reason: &str) -> Error {
    Error::invalid_option(part, reason)
}
