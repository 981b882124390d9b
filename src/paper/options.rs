//! The options of a paper's program.

use crate::data::Dataset;
use crate::rng::Seed;
use crate::{Error, Result};
use std::path::PathBuf;

/// `--quick`, `--held-out`, `--seeds 0,1,2`, `--out FOLDER`, `--redraw`, `--verify [ROW]`. By default a full run with the usual seeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Small data and short training.
    pub quick: bool,
    /// Judged on training samples that are held out, and not on the test samples.
    pub held_out: bool,
    /// The seeds that were chosen, if some were; [`Options::seeds`] gives those that are run.
    pub seeds: Option<Vec<Seed>>,
    /// Where files go, if said.
    pub out: Option<PathBuf>,
    /// Nothing is run: the figures and the README are made anew from the tables that lie in the folder.
    pub redraw: bool,
    /// Nothing is written: the program runs, and these rows, claims by name or by number from 1, are compared; all of them if it names none.
    pub verify: Option<Vec<String>>,
    /// A model's folder in the place of one that the program trains, and a text to measure and to judge on; of [`Options::OF_MODELS`] alone.
    pub model: Option<(PathBuf, PathBuf)>,
    /// The seeds of the rows that are verified, where none were chosen.
    pub of_rows: Option<Vec<Seed>>,
}

/// The seeds where nothing else is said.
const USUAL: [Seed; 3] = [Seed(0), Seed(1), Seed(2)];

impl Options {
    /// The programs that work on a model's folder too.
    pub const OF_MODELS: [&str; 1] = ["structured_pruning"];

    /// A quick run with the usual seeds.
    pub fn quick() -> Self {
        Options { quick: true, ..Options::default() }
    }

    /// The seeds, one run for each: those chosen, or else those of the rows that are verified, or else 0, 1 and 2.
    pub fn seeds(&self) -> &[Seed] {
        self.seeds.as_deref().or(self.of_rows.as_deref()).unwrap_or(&USUAL)
    }

    /// Reads the arguments after the program's name; nothing if help is asked for.
    ///
    /// ```
    /// use lacuna::paper::Options;
    /// let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    /// let options = Options::parse(words("--quick --seeds 3,5"))?.unwrap_or_default();
    /// assert!(options.quick && options.seeds().len() == 2);
    /// let error = Options::parse(words("--seeds 3,x")).unwrap_err();
    /// assert_eq!(error.to_string(), "--seeds: '3,x' is not a list of whole numbers such as 0,1,2");
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// An unknown option, one without its value or with a value that it does not take; seeds that are no numbers, too large, given twice or none;
    /// seeds for `--redraw`, which runs nothing; `--verify` with `--redraw` or `--held-out`.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Options::default();
        let (mut model, mut text) = (None, None);
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name.to_string(), Some(value.to_string())),
                None => (word, None),
            };
            if let (Some(value), "--quick" | "--held-out" | "--redraw" | "--help") = (&given, name.as_str()) {
                return Err(Error::invalid_option(&name, format!("takes no value, and '{value}' was given")));
            }
            if name == "--verify" {
                let row = given.or_else(|| words.next_if(|next| !next.starts_with('-')));
                options.verify.get_or_insert_default().extend(row);
                continue;
            }
            let mut value =
                || given.clone().or_else(|| words.next()).ok_or_else(|| Error::invalid_option(&name, "needs a value"));
            match name.as_str() {
                "--quick" => options.quick = true,
                "--held-out" => options.held_out = true,
                "--seeds" | "--seed" => options.seeds = Some(seeds(&name, &value()?)?),
                "--out" => options.out = Some(PathBuf::from(value()?)),
                "--model" => model = Some(PathBuf::from(value()?)),
                "--text" => text = Some(PathBuf::from(value()?)),
                "--redraw" => options.redraw = true,
                "--help" | "-h" => return Ok(None),
                _ => {
                    let known = "unknown; there are --quick, --held-out, --seeds 0,1,2, --seed 0, --out FOLDER, --redraw, --verify ROW and --help";
                    return Err(Error::invalid_option(&name, known));
                }
            }
        }
        options.model = match (model, text) {
            (Some(model), Some(text)) if !options.quick => Some((model, text)),
            (None, None) => None,
            _ => return Err(Error::invalid_option("--model", "goes with --text FILE and without --quick")),
        };
        if options.redraw && options.seeds.is_some() {
            return Err(Error::invalid_option("--redraw", "runs nothing, so there is no seed to give it"));
        }
        if options.verify.is_some() && (options.redraw || options.held_out) {
            let other =
                if options.redraw { "--redraw writes files" } else { "--held-out is judged on other samples than the rows" };
            return Err(Error::invalid_option("--verify", format!("runs again, compares and writes nothing, and {other}")));
        }
        Ok(Some(options))
    }

    /// What `--help` prints.
    pub fn help(slug: &str) -> String {
        format!(
            "Usage: cargo run --release --example {slug} -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER] [--redraw | --verify [ROW]]\n\n\
             --quick    small data and short training\n\
             --held-out judged on the last sixth of the training samples, from which nothing is then learnt\n\
             --seeds    one run for each; 0,1,2 if not given; --seed S for one alone\n\
             --out      folder of results.csv, tables and figures; papers/{slug} if not given, lacuna-papers/{slug} with --quick or --held-out\n\
             --model    a model's folder in the place of one that is trained, with --text FILE to measure and judge on ({})\n\
             --redraw   runs nothing: figures and README anew from the tables that lie in that folder\n\
             --verify   writes nothing: runs again, whole, and compares with results.csv in that folder. ROW is a claim, or its number in the README's\n\
            \x20          table from 1; all rows if not given. With --quick the claims' rules alone, or the results.csv in --out.\n\
            \x20          Exit code 0 if every number lies within its tolerance, 1 if one does not or is not there",
            Options::OF_MODELS.join(", ")
        )
    }

    /// Where files go.
    pub fn folder(&self, slug: &str) -> PathBuf {
        let usual = if self.quick || self.held_out || self.model.is_some() { "lacuna-papers" } else { "papers" };
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
        let refused = || Err(Error::invalid_option("--held-out", "this study holds no samples out"));
        if self.held_out { refused() } else { Ok(()) }
    }

    /// For a study whose seeds share something, so that one seed alone would give other numbers than among all.
    ///
    /// # Errors
    /// If rows are to be verified with chosen seeds; the reason is part of the message.
    pub fn refuse_chosen_seeds(&self, reason: &str) -> Result<()> {
        let refused = || Err(Error::invalid_option("--verify", format!("with all seeds alone: {reason}")));
        if self.verify.is_some() && self.seeds.is_some() { refused() } else { Ok(()) }
    }

    /// One of two settings: the quick one or the full one.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The largest seed.
const LARGEST: u64 = u64::MAX / 1000 - 1;

fn seeds(option: &str, text: &str) -> Result<Vec<Seed>> {
    let wrong = |reason: &str| Error::invalid_option(option, format!("'{text}' {reason}"));
    let seeds: Vec<Seed> = text
        .split(',')
        .map(|word| word.trim().parse().map(Seed))
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| wrong("is not a list of whole numbers such as 0,1,2"))?;
    // Programs that need several networks of a seed number them 1000 times the seed and on.
    if option == "--seed" && seeds.len() > 1 {
        return Err(wrong("is more than one seed; --seeds takes a list"));
    }
    if seeds.iter().any(|seed| seed.0 > LARGEST) {
        return Err(wrong(&format!("holds a seed above {LARGEST}")));
    }
    let twice = seeds.iter().enumerate().any(|(i, seed)| seeds[..i].contains(seed));
    if twice { Err(wrong("names a seed twice")) } else { Ok(seeds) }
}
