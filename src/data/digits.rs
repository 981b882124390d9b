//! [`digits`]: real data inside the crate.

use crate::data::Dataset;
use flate2::read::GzDecoder;
use ndarray::Array2;
use std::io::Read;

/// 65 bytes a sample: 64 pixels from 0 to 16, then the digit. Made by `scripts/embed_digits.py`.
const PACKED: &[u8] = include_bytes!("digits.bin.gz");
const SAMPLES: usize = 1797;
const PIXELS: usize = 64;

/// 1797 handwritten digits, scanned and reduced to 8 x 8 pixels: the test half of "Optical Recognition of Handwritten Digits"
/// by E. Alpaydin and C. Kaynak (UCI Machine Learning Repository, 1998, CC BY 4.0), in the copy and the order of
/// `sklearn.datasets.load_digits` (scikit-learn, BSD-3-Clause). Both notices stand in `src/data/LICENSE-digits`.
///
/// `x` is `(1797, 64)`; each pixel counts the black ones of a 4 x 4 block and is divided by 16, so it lies in [0, 1]. The
/// writers follow one another, so rows are not in random order.
///
/// ```
/// let digits = lacuna::data::digits();
/// assert_eq!((digits.len(), digits.classes(), digits.shape()), (1797, 10, (1, 8, 8)));
/// assert_eq!(digits.labels()[..4], [0, 1, 2, 3]);
/// ```
///
/// # Panics
/// If the crate was built with a damaged copy of the data.
pub fn digits() -> Dataset {
    let mut bytes = Vec::with_capacity(SAMPLES * (PIXELS + 1));
    let unpacked = GzDecoder::new(PACKED).read_to_end(&mut bytes);
    assert!(unpacked.is_ok() && bytes.len() == SAMPLES * (PIXELS + 1), "the embedded digits are damaged: {unpacked:?}");
    let x = Array2::from_shape_fn((SAMPLES, PIXELS), |(row, col)| f32::from(bytes[row * (PIXELS + 1) + col]) / 16.0);
    let labels = bytes.chunks_exact(PIXELS + 1).map(|sample| usize::from(sample[PIXELS])).collect();
    match Dataset::new(x, labels, 10, (1, 8, 8)) {
        Ok(digits) => digits,
        Err(e) => panic!("the embedded digits are damaged: {e}"),
    }
}
