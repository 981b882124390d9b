//! Numbers of any type as zeros and ones, and how many are not zero.

use super::checkpoint::Tensor;
use super::dtype::Dtype;
use crate::io::safetensors::Element;
use ndarray::{ArrayD, IxDyn};

/// The bytes of a one, little endian; `None` for types that hold no such thing in whole bytes.
fn one(element: Element) -> Option<Vec<u8>> {
    Some(match element {
        Element::BOOL | Element::U8 | Element::I8 => vec![1],
        Element::I16 | Element::U16 => vec![1, 0],
        Element::I32 | Element::U32 => vec![1, 0, 0, 0],
        Element::I64 | Element::U64 => 1u64.to_le_bytes().to_vec(),
        Element::F64 => 1f64.to_le_bytes().to_vec(),
        Element::F8_E4M3 => vec![0x38],
        Element::F8_E5M2 => vec![0x3c],
        _ => return None,
    })
}

/// Numbers that are all 0 or 1, as truths in order; `None` if another is among them.
pub(super) fn truths(tensor: &Tensor) -> Option<Vec<bool>> {
    match tensor {
        Tensor::Weight(values, _) => values.iter().map(|v| truth(*v)).collect(),
        Tensor::Opaque { element, bytes, .. } => {
            let one = one(*element)?;
            let each = |b: &[u8]| if b == one { Some(true) } else { b.iter().all(|b| *b == 0).then_some(false) };
            bytes.chunks_exact(one.len()).map(each).collect()
        }
    }
}

fn truth(value: f32) -> Option<bool> {
    if value == 1.0 { Some(true) } else { (value == 0.0).then_some(false) }
}

/// A tensor as another of its type and shape, with these zeros and ones; `None` if the type holds none.
pub(super) fn with_truths(like: &Tensor, truths: &[bool]) -> Option<Tensor> {
    match like {
        Tensor::Weight(values, dtype) => {
            let numbers = truths.iter().map(|t| f32::from(u8::from(*t))).collect();
            Some(Tensor::Weight(ArrayD::from_shape_vec(IxDyn(values.shape()), numbers).ok()?, *dtype))
        }
        Tensor::Opaque { element, shape, .. } => {
            let one = one(*element)?;
            let bytes = truths.iter().flat_map(|t| one.iter().map(move |b| if *t { *b } else { 0 })).collect();
            Some(Tensor::Opaque { element: *element, shape: shape.clone(), bytes })
        }
    }
}

/// Whether numbers of this type may be those of a model: floating point of any width.
pub(crate) fn is_float(element: Element) -> bool {
    Dtype::of(element).is_some()
        || matches!(
            element,
            Element::F64
                | Element::F8_E4M3
                | Element::F8_E5M2
                | Element::F8_E4M3FNUZ
                | Element::F8_E5M2FNUZ
                | Element::F8_E8M0
                | Element::F6_E2M3
                | Element::F6_E3M2
                | Element::F4
        )
}

/// Numbers in these bytes that are not 0, for floating-point types of whole bytes; -0 is 0. Of other types nothing is said.
pub(crate) fn filled(element: Element, bytes: &[u8]) -> Option<usize> {
    // All but the sign are 0; a type without a sign has no zero or one only.
    let (width, top) = match element {
        Element::F64 => (8, 0x7f),
        Element::F32 => (4, 0x7f),
        Element::F16 | Element::BF16 => (2, 0x7f),
        Element::F8_E4M3 | Element::F8_E5M2 => (1, 0x7f),
        Element::F8_E4M3FNUZ | Element::F8_E5M2FNUZ => (1, 0xff),
        Element::F8_E8M0 => return Some(bytes.len()), // powers of two: none is 0
        _ => return None,
    };
    let is_filled = |b: &&[u8]| b[width - 1] & top != 0 || b[..width - 1].iter().any(|b| *b != 0);
    Some(bytes.chunks_exact(width).filter(is_filled).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_zero_are_counted_in_every_type_and_minus_zero_is_zero() {
        let f64s: Vec<u8> = [0.0f64, -0.0, 1e-300, f64::NAN].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(filled(Element::F64, &f64s), Some(2));
        let f32s: Vec<u8> = [0.0f32, -0.0, f32::MIN_POSITIVE / 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(filled(Element::F32, &f32s), Some(1));
        assert_eq!(filled(Element::BF16, &[0, 0, 0, 0x80, 1, 0]), Some(1));
        assert_eq!(filled(Element::F8_E4M3, &[0, 0x80, 1, 0x81]), Some(2));
        assert_eq!(filled(Element::F8_E4M3FNUZ, &[0, 0x80, 1]), Some(2), "0x80 is its NaN");
        assert_eq!(filled(Element::F8_E8M0, &[0, 127]), Some(2));
        assert_eq!(filled(Element::I64, &[0; 8]), None);
    }

    #[test]
    fn zeros_and_ones_of_every_type_are_read_and_written_back() {
        let truth = [true, false, false, true];
        let elements = [
            (Element::BOOL, 1),
            (Element::U8, 1),
            (Element::I8, 1),
            (Element::I16, 2),
            (Element::U16, 2),
            (Element::I32, 4),
            (Element::U32, 4),
            (Element::I64, 8),
            (Element::U64, 8),
            (Element::F64, 8),
            (Element::F8_E4M3, 1),
            (Element::F8_E5M2, 1),
        ];
        for (element, width) in elements {
            let zeros = Tensor::Opaque { element, shape: vec![2, 2], bytes: vec![0; 4 * width] };
            assert_eq!(truths(&zeros), Some(vec![false; 4]), "{element}");
            let written = with_truths(&zeros, &truth).unwrap();
            assert_eq!((truths(&written).as_deref(), written.shape()), (Some(&truth[..]), &[2, 2][..]), "{element}");
            let Tensor::Opaque { mut bytes, .. } = written else { panic!("{element}") };
            bytes[width - 1] ^= 2;
            assert_eq!(truths(&Tensor::Opaque { element, shape: vec![2, 2], bytes }), None, "{element}");
        }
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let zeros = Tensor::Weight(ArrayD::zeros(IxDyn(&[4])), dtype);
            assert_eq!(truths(&with_truths(&zeros, &truth).unwrap()).as_deref(), Some(&truth[..]));
            assert_eq!(truths(&Tensor::Weight(ArrayD::from_elem(IxDyn(&[4]), 0.5), dtype)), None);
        }
        assert!(truths(&Tensor::Opaque { element: Element::F4, shape: vec![2], bytes: vec![0] }).is_none());
    }
}
