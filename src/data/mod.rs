//! Labelled samples: real ones inside the crate, and readers of data sets.
//!
//! - [`Dataset`]: labelled samples; [`digits`]: 1797 real ones inside the crate.
//! - [`idx`]: the format of MNIST, plain or gzip; [`mnist`] reads its four files.
//! - [`Monk`]: the three MONK's problems, out of files or drawn from their rules.
//! - [`table`]: CSV of numbers with a class.
//! - [`Standard`]: inputs of mean 0 and deviation 1.
//! - [`Tokens`]: token numbers of a text; [`Sequences`] to calibrate on, [`Windows`] to measure a perplexity on.
//! - [`PackedDocuments`]: documents packed into sequences to train on; [`SequenceOrder`] of them.

mod dataset;
mod digits;
mod images;
pub mod idx;
mod monks;
mod standard;
mod table;
mod tokens;
mod packed;

pub use dataset::Dataset;
pub use digits::digits;
pub use idx::mnist;
pub use monks::{Monk, Monks};
pub use packed::{DocumentPacker, PackedDocuments, SequenceOrder};
pub use standard::Standard;
pub use table::table;
pub(crate) use tokens::check_windows;
pub use tokens::{Bos, Sequences, Tokens, Windows, read_text, text_files, windows};

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder of the data sets that `scripts/fetch_data.sh` fetches: `$LACUNA_DATA`, or `data` in the working folder when
/// that is unset or empty.
///
/// ```no_run
/// let (train, test) = lacuna::data::mnist(&lacuna::data::data_dir().join("mnist"))?;
/// assert_eq!((train.len(), test.len()), (60_000, 10_000));
/// # Ok::<(), lacuna::Error>(())
/// ```
pub fn data_dir() -> PathBuf {
    data_dir_of(std::env::var_os("LACUNA_DATA"))
}

fn data_dir_of(variable: Option<OsString>) -> PathBuf {
    variable.filter(|v| !v.is_empty()).map_or_else(|| PathBuf::from("data"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn an_empty_variable_means_the_data_folder_of_the_working_folder() {
        assert_eq!(data_dir_of(None), Path::new("data"));
        assert_eq!(data_dir_of(Some("".into())), Path::new("data"));
        assert_eq!(data_dir_of(Some("/srv/sets".into())), Path::new("/srv/sets"));
    }
}
