//! A text in two parts: to learn and measure on, and to judge by.

use crate::io::atomic;
use crate::{Error, Result};
use std::path::Path;

/// Writes `train.txt` and `test.txt` into a folder, which is made: the first nine tenths of the lines of a text, beginning at the fraction `start` of them
/// and going on with those before, and the last tenth.
///
/// ```
/// use lacuna::paper::text_parts;
/// let at = tempfile::tempdir().unwrap();
/// let text = (0..10).map(|n| format!("{n}\n")).collect::<String>();
/// text_parts(at.path(), &text, 0.5)?;
/// let read = |name: &str| std::fs::read_to_string(at.path().join(name)).unwrap();
/// assert_eq!((read("train.txt"), read("test.txt")), ("4\n5\n6\n7\n8\n0\n1\n2\n3\n".to_string(), "9\n".to_string()));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] if the disk refuses.
pub fn text_parts(at: &Path, text: &str, start: f64) -> Result<()> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (learn, judge) = lines.split_at(lines.len() * 9 / 10);
    let (before, behind) = learn.split_at(((learn.len() as f64 * start) as usize).min(learn.len()));
    atomic::create_dir(at)?;
    for (name, part) in [("train.txt", [behind, before].concat().concat()), ("test.txt", judge.concat())] {
        std::fs::write(at.join(name), part).map_err(|e| Error::io(at.join(name), e))?;
    }
    Ok(())
}
