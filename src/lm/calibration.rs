//! Calibration from several sources: `a.txt:0.5,b.jsonl:0.3,self:0.2`.
//!
//! What is measured on decides more than the method (Williams, Aletras 2024, arXiv:2311.09755; Ji et al. 2024, arXiv:2410.17711): texts of several
//! kinds, and texts of the model's own, carry over to text that is not of their kind.
//!
//! Of a source with many documents (`.jsonl`) whole documents are drawn by the seed and packed behind one another; of one long text sequences are
//! drawn, by chance or by a [`CalibrationSelection`]. Sources take turns, so that the first sequences have all of them.

#[cfg(feature = "text")]
use super::many::{TextGeneration, repeated};
use super::selection::{CalibrationSelection, POOL, SelectedSequences};
use super::{Config, LanguageModel};
use crate::allocate::apportion;
use crate::data::{Bos, Sequences};
use crate::io::Folder;
use crate::lm::documents::documents;
use crate::rng::Seed;
use crate::{Error, Result};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where tokens of calibration come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationSource {
    /// A text, lines of JSON, or a safetensors file with `input_ids`.
    File(PathBuf),
    /// Texts that the model writes: `self`.
    SelfGenerated,
}

/// Sources of calibration and the fraction of the tokens that each gives; they sum to 1.
///
/// ```
/// use lacuna::lm::CalibrationMix;
/// let mix: CalibrationMix = "a.txt:0.5,b.jsonl:0.3,self:0.2".parse()?;
/// assert_eq!(mix.counts(64), [32, 19, 13]);
/// assert_eq!("a.txt:0.5,b.txt:0.4".parse::<CalibrationMix>().unwrap_err().to_string(), "calibration: the shares 0.5, 0.4 sum to 0.9, not to 1");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationMix {
    sources: Vec<(CalibrationSource, f64)>,
    selection: CalibrationSelection,
}

/// What is calibrated on.
#[derive(Debug, Clone, PartialEq)]
pub struct MixedCalibration {
    /// The sequences, with the number of the source that each is of.
    pub sequences: Sequences,
    /// Where the token that begins a text stands among them, in words.
    pub bos: String,
    /// What was taken of each source that was selected from by what the model makes of it.
    pub selected: Vec<SelectedSequences>,
}

/// The name of what a model writes itself.
const SELF: &str = "self";

/// From which fraction of repeated runs on a model has nothing of its own to say.
#[cfg(feature = "text")]
const REPEATS: f64 = 0.5;

impl CalibrationMix {
    /// The sources of what was given as a path, if it names several, or what a model writes; `None` of one file.
    ///
    /// # Errors
    /// As [`CalibrationMix::from_str`].
    pub fn of_path(path: &Path) -> Result<Option<CalibrationMix>> {
        let text = path.to_string_lossy();
        let several =
            || text.contains(',') || text == SELF || text.rsplit_once(':').is_some_and(|(_, x)| x.parse::<f64>().is_ok());
        if path.exists() || !several() {
            return Ok(None);
        }
        text.parse().map(Some)
    }

    /// Sequences of one file.
    pub fn of_file(path: &Path) -> CalibrationMix {
        CalibrationMix {
            sources: vec![(CalibrationSource::File(path.to_path_buf()), 1.0)],
            selection: CalibrationSelection::Random,
        }
    }

    /// The same, with the sequences of files taken by this rule instead of by chance.
    #[must_use]
    pub fn select(self, selection: CalibrationSelection) -> CalibrationMix {
        CalibrationMix { selection, ..self }
    }

    /// Which source has this name: as it was given, or the first whose file's name it is.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    pub fn source(&self, name: &str) -> Result<usize> {
        let of = |source: &CalibrationSource| match source {
            CalibrationSource::File(path) => path.display().to_string(),
            CalibrationSource::SelfGenerated => SELF.to_string(),
        };
        let names: Vec<String> = self.sources.iter().map(|(source, _)| of(source)).collect();
        let file = |given: &&String| Path::new(given).file_name().is_some_and(|file| file == name);
        let found = names.iter().position(|given| given == name).or_else(|| names.iter().position(|given| file(&given)));
        let last =
            |given: &String| Path::new(given).file_name().map_or(given.clone(), |file| file.to_string_lossy().into_owned());
        let files: Vec<String> = names.iter().map(last).collect();
        found.ok_or_else(|| Error::unknown_name("source of the calibration", name, files.iter().map(String::as_str)))
    }

    /// Whether what was given names several sources, of which sequences are drawn.
    pub(crate) fn draws(given: Option<&Path>) -> bool {
        given.is_some_and(|given| matches!(CalibrationMix::of_path(given), Ok(Some(_))))
    }

    /// The sources and their fractions.
    pub fn sources(&self) -> &[(CalibrationSource, f64)] {
        &self.sources
    }

    /// The files among them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(|(source, _)| match source {
            CalibrationSource::File(path) => Some(path.as_path()),
            CalibrationSource::SelfGenerated => None,
        })
    }

    /// How many of `samples` sequences each source gives.
    pub fn counts(&self, samples: usize) -> Vec<usize> {
        let ideal: Vec<f64> = self.sources.iter().map(|(_, share)| share * samples as f64).collect();
        apportion(samples, &ideal, &vec![samples; ideal.len()])
    }

    /// The sequences, `samples` of `context` tokens. With `self`, and with a selection other than by chance, the model is loaded whole; `self` is not
    /// selected from.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a source has fewer tokens than its share, or the model writes nothing but repeats; what is wrong with a file;
    /// as [`CalibrationSelection::of`]; [`Error::Interrupted`] if `see`, which is told of the tokens that the model has written or the sequences that it has
    /// read, stops.
    pub fn read(
        &self,
        folder: &Folder,
        config: &Config,
        (samples, context, bos): (usize, usize, Bos),
        seed: Seed,
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<MixedCalibration> {
        if samples == 0 || context < 2 {
            return Err(Error::invalid_option("calibration", format!("{samples} sequences of {context} tokens")));
        }
        let mut all: Vec<(f64, usize, Vec<u32>)> = Vec::new();
        let (mut selected, mut model) = (Vec::new(), None);
        let mut begins = String::from("none");
        for (number, ((source, share), count)) in self.sources.iter().zip(self.counts(samples)).enumerate() {
            if count == 0 {
                let reason = format!("a share of {share} is no sequence of {samples}; raise --samples");
                return Err(Error::invalid_option("calibration", reason));
            }
            let (documents, first) = match source {
                CalibrationSource::File(path) => {
                    let (mut found, mut end) = (Vec::new(), None);
                    let first = documents(path, folder, config, bos, &mut |ids, between| {
                        end = between;
                        found.push(ids.to_vec());
                        Ok(())
                    })?;
                    (Documents { name: path.display().to_string(), all: found, between: end }, first)
                }
                CalibrationSource::SelfGenerated => own(folder, config, (count, context), bos, seed, see)?,
            };
            if let Some(id) = first {
                begins = format!("token {id} begins every window");
            }
            let by_chance = self.selection == CalibrationSelection::Random || *source == CalibrationSource::SelfGenerated;
            let drawn = match by_chance {
                true => documents.draw(count, context, first, seed)?,
                false => {
                    let most = documents.sequences(context - usize::from(first.is_some()));
                    let pool = documents.draw(most.min(POOL * count).max(count), context, first, seed)?;
                    if model.is_none() {
                        let loaded = LanguageModel::load(folder, config.clone());
                        model = Some(loaded.map_err(|e| Error::malformed(folder.path(), e.to_string()))?);
                    }
                    let Some(model) = &model else { continue };
                    let found = self.selection.of(model, &pool, count, seed, see)?;
                    let taken = found.taken.iter().map(|n| pool[*n].clone()).collect();
                    selected.push(found);
                    taken
                }
            };
            all.extend(drawn.into_iter().enumerate().map(|(k, ids)| ((k as f64 + 0.5) / count as f64, number, ids)));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let texts = all.iter().map(|(_, number, _)| *number).collect();
        let sequences = Sequences::new(all.into_iter().flat_map(|(.., ids)| ids).collect(), context)?.of_texts(texts)?;
        Ok(MixedCalibration { sequences, bos: begins, selected })
    }
}

/// The documents of one source.
struct Documents {
    name: String,
    all: Vec<Vec<u32>>,
    /// The token between two of them.
    between: Option<u32>,
}

impl Documents {
    /// Tokens of all documents and of what stands between them.
    fn tokens(&self) -> usize {
        let between = self.all.len().saturating_sub(1) * usize::from(self.between.is_some());
        self.all.iter().map(Vec::len).sum::<usize>() + between
    }

    /// How many sequences of so many of their tokens they fill.
    fn sequences(&self, fill: usize) -> usize {
        self.tokens() / fill
    }

    /// So many sequences of `context` tokens, drawn by the seed.
    fn draw(&self, count: usize, context: usize, first: Option<u32>, seed: Seed) -> Result<Vec<Vec<u32>>> {
        let fill = context - usize::from(first.is_some());
        let tokens = self.tokens();
        if tokens < fill * count {
            let reason = format!(
                "{} has {tokens} tokens, fewer than the {count} x {context} of its share; lower its share, --samples or --context",
                self.name
            );
            return Err(Error::invalid_option("calibration", reason));
        }
        let mut random = seed.stream(&format!("calibration {}", self.name));
        let begun = |part: &[u32]| first.iter().chain(part).copied().collect::<Vec<u32>>();
        if let [one] = &self.all[..] {
            let parts: Vec<&[u32]> = one.chunks_exact(fill).collect();
            let mut chosen = random.permutation(parts.len());
            chosen.truncate(count);
            chosen.sort_unstable();
            return Ok(chosen.into_iter().map(|n| begun(parts[n])).collect());
        }
        let mut packed: Vec<u32> = Vec::new();
        for n in random.permutation(self.all.len()) {
            packed.extend(self.between.filter(|_| !packed.is_empty()));
            packed.extend(&self.all[n]);
            if packed.len() >= fill * count {
                break;
            }
        }
        Ok(packed.chunks_exact(fill).take(count).map(begun).collect())
    }
}

/// Texts that the model writes, enough for so many sequences.
#[cfg(feature = "text")]
fn own(
    folder: &Folder,
    config: &Config,
    (count, context): (usize, usize),
    bos: Bos,
    seed: Seed,
    see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<(Documents, Option<u32>)> {
    let tokenizer = crate::text::Tokenizer::open(folder.path())?;
    let start = tokenizer.between(folder.config()).ok_or_else(|| {
        Error::malformed(folder.path(), "names no token that begins a text or stands between two, so that it could write one")
    })?;
    tokenizer.fits(&[start], config.vocab())?;
    let mut stops: Vec<u32> = config.eos().into_iter().chain([start]).collect();
    stops.dedup();
    let model = LanguageModel::load(folder, config.clone()).map_err(|e| Error::malformed(folder.path(), e.to_string()))?;
    let first = super::tokens::first_of_numbers(folder, config, bos)?;
    let (mut written, mut tokens, mut drawn) = (Vec::new(), 0usize, seed.0);
    // Texts end where the model ends them, so that more are written until there is enough.
    while tokens < count * context {
        let missing = (count * context - tokens).div_ceil(context);
        let more = TextGeneration::new(missing.max(2), context).seed(Seed(drawn));
        let found = more.run(&model, (start, &stops), see)?;
        drawn = drawn.wrapping_add(more.written() as u64);
        let new: usize = found.iter().map(|text| text.ids.len() + 1).sum();
        let mean = |of: &[super::many::GeneratedText]| of.iter().map(|t| t.nll).sum::<f64>() / of.len().max(1) as f64;
        let again = repeated(&found);
        if new <= 2 * found.len() || again > REPEATS {
            let reason = format!(
                "self: the model writes nothing to calibrate on: {} texts of {new} tokens, {:.0} % of runs of 8 tokens repeated, perplexity {:.2}",
                found.len(),
                100.0 * again,
                mean(&found).exp()
            );
            return Err(Error::invalid_option("calibration", reason));
        }
        tokens += new;
        written.extend(found.into_iter().map(|text| text.ids));
    }
    Ok((Documents { name: SELF.into(), all: written, between: Some(start) }, first))
}

#[cfg(not(feature = "text"))]
fn own(
    _: &Folder,
    _: &Config,
    _: (usize, usize),
    _: Bos,
    _: Seed,
    _: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<(Documents, Option<u32>)> {
    Err(Error::invalid_option("calibration", "self needs tokenizers: build with the feature 'text'"))
}

impl FromStr for CalibrationMix {
    type Err = Error;

    /// Reads `SOURCE:SHARE,SOURCE:SHARE`; without shares all are alike.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a share is no number in (0, 1], only some have one, they do not sum to 1, or a source is named twice.
    fn from_str(s: &str) -> Result<CalibrationMix> {
        let wrong = |reason: String| Error::invalid_option("calibration", reason);
        let mut parts: Vec<(&str, Option<f64>)> = Vec::new();
        for part in s.split(',') {
            let shared = part.rsplit_once(':').and_then(|(name, share)| share.trim().parse::<f64>().ok().map(|x| (name, x)));
            let (name, share) = shared.map_or((part, None), |(name, share)| (name, Some(share)));
            if name.is_empty() {
                return Err(wrong(format!("'{part}' of '{s}' names no source")));
            }
            if let Some(share) = share.filter(|x| !(*x > 0.0 && *x <= 1.0)) {
                return Err(wrong(format!("the share {share} of {name} is not in (0, 1]")));
            }
            if parts.iter().any(|(other, _)| *other == name) {
                return Err(wrong(format!("{name} is named twice")));
            }
            parts.push((name, share));
        }
        let given: Vec<f64> = parts.iter().filter_map(|(_, share)| *share).collect();
        if let Some((name, _)) = parts.iter().find(|(_, share)| share.is_none()).filter(|_| !given.is_empty()) {
            return Err(wrong(format!("{name} has no share, where others have one")));
        }
        let sum: f64 = given.iter().sum();
        if !given.is_empty() && (sum - 1.0).abs() > 1e-6 {
            let shown: Vec<String> = given.iter().map(f64::to_string).collect();
            return Err(wrong(format!("the shares {} sum to {}, not to 1", shown.join(", "), (sum * 1e6).round() / 1e6)));
        }
        let each = 1.0 / parts.len() as f64;
        let source = |name: &str| match name {
            SELF => CalibrationSource::SelfGenerated,
            _ => CalibrationSource::File(PathBuf::from(name)),
        };
        let sources = parts.into_iter().map(|(name, share)| (source(name), share.unwrap_or(each))).collect();
        Ok(CalibrationMix { sources, selection: CalibrationSelection::Random })
    }
}

impl fmt::Display for CalibrationMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (source, share)) in self.sources.iter().enumerate() {
            let name = match source {
                CalibrationSource::File(path) => path.display().to_string(),
                CalibrationSource::SelfGenerated => SELF.to_string(),
            };
            write!(f, "{}{name}:{share}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CalibrationMix, Documents};
    use crate::rng::Seed;

    #[test]
    fn shares_are_read_and_refused() {
        let line = |text: &str| text.parse::<CalibrationMix>().unwrap_err().to_string();
        assert_eq!(line("a:0.5,b:0.6"), "calibration: the shares 0.5, 0.6 sum to 1.1, not to 1");
        assert_eq!(line("a:0.5,b"), "calibration: b has no share, where others have one");
        assert_eq!(line("a:1.5,b:-0.5"), "calibration: the share 1.5 of a is not in (0, 1]");
        assert_eq!(line("a:0.5,a:0.5"), "calibration: a is named twice");
        assert_eq!(line("a:0.5,,b:0.5"), "calibration: '' of 'a:0.5,,b:0.5' names no source");
        let mix: CalibrationMix = "C:\\x.txt,self".parse().unwrap();
        assert_eq!(mix.to_string(), "C:\\x.txt:0.5,self:0.5");
        assert_eq!(mix.to_string().parse::<CalibrationMix>().unwrap(), mix);
        assert_eq!(mix.files().count(), 1);
        let mix: CalibrationMix = "a/x.txt,b/y.txt,self".parse().unwrap();
        assert_eq!(["b/y.txt", "y.txt", "self"].map(|name| mix.source(name).unwrap()), [1, 1, 2]);
        assert!(mix.source("yz.txt").unwrap_err().to_string().contains("y.txt"));
    }

    #[test]
    fn documents_are_drawn_whole_and_long_texts_by_sequences() {
        let long = Documents { name: "a".into(), all: vec![(0..100).collect()], between: Some(999) };
        let drawn = long.draw(3, 10, None, Seed(1)).unwrap();
        assert!(drawn.iter().all(|part| part[0] % 10 == 0 && part.windows(2).all(|p| p[1] == p[0] + 1)), "{drawn:?}");
        assert_ne!(drawn, long.draw(3, 10, None, Seed(2)).unwrap());
        assert_eq!(long.draw(10, 10, None, Seed(2)).unwrap().concat(), (0..100).collect::<Vec<u32>>());
        let many = Documents { name: "b".into(), all: (0..20u32).map(|d| vec![d; 5]).collect(), between: Some(999) };
        let drawn = many.draw(2, 12, Some(7), Seed(1)).unwrap();
        assert!(drawn.iter().all(|part| part.len() == 12 && part[0] == 7), "{drawn:?}");
        let whole: Vec<u32> = drawn.iter().flat_map(|part| part[1..].to_vec()).collect();
        // Each document but the last stands whole, the token between them.
        assert!(whole.chunks(6).take(3).all(|d| d[..5].iter().all(|id| *id == d[0]) && d[5] == 999), "{whole:?}");
        let line = many.draw(11, 12, None, Seed(1)).err().unwrap().to_string();
        assert_eq!(
            line,
            "calibration: b has 119 tokens, fewer than the 11 x 12 of its share; lower its share, --samples or --context"
        );
    }
}
