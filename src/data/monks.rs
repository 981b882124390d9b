//! The three MONK's problems: a small world of six attributes, and a rule in each.
//!
//! Thrun et al. *The MONK's problems: a performance comparison of different learning algorithms.* CMU-CS-91-197, 1991. UCI Machine
//! Learning Repository, CC BY 4.0.
//!
//! | attribute | values | |
//! |---|---|---|
//! | 1 head shape | 3 | round, square, octagon |
//! | 2 body shape | 3 | the same |
//! | 3 is smiling | 2 | yes, no |
//! | 4 holding | 3 | sword, balloon, flag |
//! | 5 jacket colour | 4 | red, yellow, green, blue |
//! | 6 has tie | 2 | yes, no |

use crate::data::{Dataset, data_dir};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::Array2;
use std::path::Path;

/// How many values each attribute has: 17 inputs, one for each value.
const VALUES: [usize; 6] = [3, 3, 2, 3, 4, 2];

/// One of the problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monk {
    /// Head and body have one shape, or the jacket is red. 124 training samples.
    One,
    /// Exactly two attributes have their first value. 169 training samples.
    Two,
    /// A green jacket and a sword, or neither a blue jacket nor an octagonal body. 122 training samples, 6 of them labelled wrongly.
    Three,
}

/// Training samples, all 432 samples with their true labels, and where the training samples are from.
#[derive(Debug, Clone)]
pub struct Monks {
    /// `x (samples, 17)` of 0 and 1, classes 0 and 1.
    pub train: Dataset,
    /// `x (432, 17)`.
    pub test: Dataset,
    /// Whether these are the files of the repository, and not a sample drawn here.
    pub from_files: bool,
}

impl Monk {
    /// All three.
    pub const ALL: [Monk; 3] = [Monk::One, Monk::Two, Monk::Three];

    /// 1, 2 or 3.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// The rule, for attributes that count from 1.
    pub fn rule(self, a: [usize; 6]) -> bool {
        match self {
            Monk::One => a[0] == a[1] || a[4] == 1,
            Monk::Two => a.iter().filter(|&&v| v == 1).count() == 2,
            Monk::Three => a[4] == 3 && a[3] == 1 || a[4] != 4 && a[1] != 3,
        }
    }

    /// Training samples, and how many of them have the wrong label.
    fn size(self) -> (usize, usize) {
        [(124, 0), (169, 0), (122, 6)][self as usize]
    }

    /// The problem's data: `monks/monks-N.train` and `monks/monks-N.test` in [`data_dir`] where both are there, otherwise as
    /// many training samples drawn from the 432 by `seed`, with as many wrong labels.
    ///
    /// # Errors
    /// If a file cannot be read or is not what it should be.
    pub fn load(self, seed: Seed) -> Result<Monks> {
        let folder = data_dir().join("monks");
        let paths = ["train", "test"].map(|part| folder.join(format!("monks-{}.{part}", self.number())));
        if !paths.iter().all(|p| p.exists()) {
            return self.sample(seed);
        }
        let [train, test] = [self.read(&paths[0])?, self.read(&paths[1])?];
        Ok(Monks { train, test, from_files: true })
    }

    /// The whole world with its true labels, and a training sample drawn from it by `seed`.
    ///
    /// # Errors
    /// Never.
    pub fn sample(self, seed: Seed) -> Result<Monks> {
        let world: Vec<[usize; 6]> = (0..VALUES.iter().product()).map(attributes).collect();
        let mut random = seed.stream(&format!("monks-{}", self.number()));
        let (samples, wrong) = self.size();
        let chosen = &random.permutation(world.len())[..samples];
        let train = chosen.iter().enumerate().map(|(i, &at)| (world[at], self.rule(world[at]) != (i < wrong)));
        let test = world.iter().map(|&a| (a, self.rule(a)));
        Ok(Monks { train: dataset(train.collect())?, test: dataset(test.collect())?, from_files: false })
    }

    fn read(self, path: &Path) -> Result<Dataset> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let mut rows = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let numbers: Vec<usize> = line.split_whitespace().map_while(|w| w.parse().ok()).take(7).collect();
            let sound = numbers.len() == 7 && numbers[0] < 2 && numbers[1..].iter().zip(VALUES).all(|(&v, n)| v >= 1 && v <= n);
            if !sound {
                let reason = format!("line {}: '{}' is not a class and six attributes", i + 1, crate::io::one_line(line, 60));
                return Err(Error::malformed(path, reason));
            }
            rows.push((std::array::from_fn(|k| numbers[k + 1]), numbers[0] == 1));
        }
        if rows.is_empty() {
            return Err(Error::malformed(path, "holds no sample"));
        }
        dataset(rows)
    }
}

/// The attributes of sample `index` of the 432, the last running fastest.
fn attributes(mut index: usize) -> [usize; 6] {
    let mut a = [0; 6];
    for k in (0..6).rev() {
        a[k] = index % VALUES[k] + 1;
        index /= VALUES[k];
    }
    a
}

/// One input for each value of each attribute.
fn dataset(rows: Vec<([usize; 6], bool)>) -> Result<Dataset> {
    let mut x = Array2::zeros((rows.len(), VALUES.iter().sum()));
    for (mut row, (a, _)) in x.rows_mut().into_iter().zip(&rows) {
        let mut from = 0;
        for (v, n) in a.iter().zip(VALUES) {
            row[from + v - 1] = 1.0;
            from += n;
        }
    }
    let labels = rows.iter().map(|(_, class)| usize::from(*class)).collect();
    Dataset::new(x, labels, 2, (1, 1, 17))
}
