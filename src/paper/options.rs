//! The options of a paper's program.

use crate::data::Dataset;
use crate::rng::Seed;
use crate::{Error, Result};
use std::path::PathBuf;

/// `--quick`, `--held-out`, `--seeds 0,1,2`, `--out FOLDER`, `--redraw`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Small data and short training.
    pub quick: bool,
    /// Judged on training samples that are held out, and not on the test samples.
    pub held_out: bool,
    /// One run for each.
    pub seeds: Vec<Seed>,
    /// Where files go, if said.
    pub out: Option<PathBuf>,
    /// Nothing is run: the figures and the README are made anew from the tables that lie in the folder.
    pub redraw: bool,
}

impl Default for Options {
    /// A full run with seeds 0, 1 and 2.
    fn default() -> Self {
        Options { quick: false, held_out: false, seeds: vec![Seed(0), Seed(1), Seed(2)], out: None, redraw: false }
    }
}

impl Options {
    /// A quick run with seeds 0, 1 and 2.
    pub fn quick() -> Self {
        Options { quick: true, ..Options::default() }
    }

    /// Reads the arguments after the program's name; nothing if help is asked for.
    ///
    /// ```
    /// use lacuna::paper::Options;
    /// let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    /// let options = Options::parse(words("--quick --seeds 3,5"))?.unwrap_or_default();
    /// assert!(options.quick && options.seeds.len() == 2);
    /// let error = Options::parse(words("--seeds 3,x")).unwrap_err();
    /// assert_eq!(error.to_string(), "--seeds: '3,x' is not a list of whole numbers such as 0,1,2");
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// An unknown option, one without its value or with a value that it does not take; seeds that are no numbers, too large, given twice or none;
    /// seeds for `--redraw`, which runs nothing.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Options::default();
        let (mut words, mut seeded) = (words.into_iter(), false);
        while let Some(word) = words.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name.to_string(), Some(value.to_string())),
                None => (word, None),
            };
            if let (Some(value), "--quick" | "--held-out" | "--redraw" | "--help") = (&given, name.as_str()) {
                return Err(Error::setting(&name, format!("takes no value, and '{value}' was given")));
            }
            let mut value = || given.clone().or_else(|| words.next()).ok_or_else(|| Error::setting(&name, "needs a value"));
            match name.as_str() {
                "--quick" => options.quick = true,
                "--held-out" => options.held_out = true,
                "--seeds" => (options.seeds, seeded) = (seeds(&value()?)?, true),
                "--out" => options.out = Some(PathBuf::from(value()?)),
                "--redraw" => options.redraw = true,
                "--help" | "-h" => return Ok(None),
                _ => {
                    let known = "unknown; there are --quick, --held-out, --seeds 0,1,2, --out FOLDER, --redraw and --help";
                    return Err(Error::setting(&name, known));
                }
            }
        }
        if options.redraw && seeded {
            return Err(Error::setting("--redraw", "runs nothing, so there is no seed to give it"));
        }
        Ok(Some(options))
    }

    /// What `--help` prints.
    pub fn help(slug: &str) -> String {
        format!(
            "Usage: cargo run --release --example {slug} -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER] [--redraw]\n\n\
             --quick    small data and short training\n\
             --held-out judged on the last sixth of the training samples, from which nothing is then learnt\n\
             --seeds    one run for each; 0,1,2 if not given\n\
             --out      folder of results.csv, tables and figures; papers/{slug} if not given, lacuna-papers/{slug} with --quick or --held-out\n\
             --redraw   runs nothing: figures and README anew from the tables that lie in that folder"
        )
    }

    /// Where files go.
    pub fn folder(&self, slug: &str) -> PathBuf {
        let usual = if self.quick || self.held_out { "lacuna-papers" } else { "papers" };
        self.out.clone().unwrap_or_else(|| PathBuf::from(usual).join(slug))
    }

    /// What is learnt from and what is judged on: the training and the test samples, or with `--held-out` the first five sixths of the
    /// training samples and their last sixth. What a study chooses it chooses so: the test samples choose nothing.
    pub fn samples(&self, train: Dataset, test: Dataset) -> (Dataset, Dataset) {
        if !self.held_out {
            return (train, test);
        }
        let last: Vec<usize> = (train.len() * 5 / 6..train.len()).collect();
        train.split(&last)
    }

    /// For a study that has no samples to hold out.
    ///
    /// # Errors
    /// If `--held-out` was given.
    pub fn refuse_held_out(&self) -> Result<()> {
        let refused = || Err(Error::setting("--held-out", "this study holds no samples out"));
        if self.held_out { refused() } else { Ok(()) }
    }

    /// One of two settings: the quick one or the full one.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The largest seed.
const LARGEST: u64 = u64::MAX / 1000 - 1;

fn seeds(text: &str) -> Result<Vec<Seed>> {
    let wrong = |reason: &str| Error::setting("--seeds", format!("'{text}' {reason}"));
    let seeds: Vec<Seed> = text
        .split(',')
        .map(|word| word.trim().parse().map(Seed))
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| wrong("is not a list of whole numbers such as 0,1,2"))?;
    // Programs that need several networks of a seed number them 1000 times the seed and on.
    if seeds.iter().any(|seed| seed.0 > LARGEST) {
        return Err(wrong(&format!("holds a seed above {LARGEST}")));
    }
    let twice = seeds.iter().enumerate().any(|(i, seed)| seeds[..i].contains(seed));
    if twice { Err(wrong("names a seed twice")) } else { Ok(seeds) }
}
