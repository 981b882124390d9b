//! Images cut, framed and scaled.

use crate::data::Dataset;
use crate::{Error, Result};
use ndarray::Array2;

impl Dataset {
    /// The images with their middle in the middle of `height x width` pixels: cut where that is smaller, framed by `fill` where it is
    /// larger. Where an odd number is cut or added, the lower and right side get one more.
    ///
    /// # Errors
    /// If a side is 0.
    pub fn centred(&self, height: usize, width: usize, fill: f32) -> Result<Dataset> {
        let (c, h, w) = self.shape();
        check(height, width)?;
        // Where row i of the new image lies in the old one.
        let from = |i: usize, new: usize, old: usize| {
            if new >= old { i.checked_sub((new - old) / 2).filter(|&i| i < old) } else { Some(i + (old - new) / 2) }
        };
        let x = Array2::from_shape_fn((self.len(), c * height * width), |(n, at)| {
            let (channel, i, j) = (at / (height * width), at / width % height, at % width);
            match (from(i, height, h), from(j, width, w)) {
                (Some(i), Some(j)) => self.x()[[n, (channel * h + i) * w + j]],
                _ => fill,
            }
        });
        Dataset::new(x, self.labels().to_vec(), self.classes(), (c, height, width))
    }

    /// The images scaled to `height x width` pixels, each the mean over the part of the old image that it covers.
    ///
    /// ```
    /// use lacuna::data::Dataset;
    /// use ndarray::array;
    /// let set = Dataset::new(array![[0., 3., 6.]], vec![0], 1, (1, 1, 3))?;
    /// assert_eq!(set.resized(1, 2)?.x(), array![[1., 5.]]); // (0 + ½ · 3) / 1½ and (½ · 3 + 6) / 1½
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a side is 0.
    pub fn resized(&self, height: usize, width: usize) -> Result<Dataset> {
        let (c, h, w) = self.shape();
        check(height, width)?;
        let (rows, cols) = (cover(h, height), cover(w, width));
        let mut x = Array2::zeros((self.len(), c * height * width));
        for (mut new, old) in x.rows_mut().into_iter().zip(self.x().rows()) {
            for channel in 0..c {
                for (i, rows) in rows.iter().enumerate() {
                    for (j, cols) in cols.iter().enumerate() {
                        let sum: f64 = rows
                            .iter()
                            .flat_map(|(r, a)| cols.iter().map(move |(s, b)| (r, s, a * b)))
                            .map(|(r, s, share)| share * f64::from(old[(channel * h + r) * w + s]))
                            .sum();
                        new[(channel * height + i) * width + j] = sum as f32;
                    }
                }
            }
        }
        Dataset::new(x, self.labels().to_vec(), self.classes(), (c, height, width))
    }
}

fn check(height: usize, width: usize) -> Result<()> {
    let reason = || format!("{height} x {width} pixels: an image has rows and columns");
    if height * width == 0 { Err(Error::invalid_option("size of images", reason())) } else { Ok(()) }
}

/// Of each of `new` pixels, which of `old` it covers, and their shares of it.
fn cover(old: usize, new: usize) -> Vec<Vec<(usize, f64)>> {
    let size = old as f64 / new as f64;
    let part = |i: usize| {
        let (from, to) = (i as f64 * size, (i + 1) as f64 * size);
        let share = move |k: usize| ((k + 1) as f64).min(to) - (k as f64).max(from);
        (0..old).map(move |k| (k, share(k) / size)).filter(|(_, s)| *s > 1e-12).collect()
    };
    (0..new).map(part).collect()
}
