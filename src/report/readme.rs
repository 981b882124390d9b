//! Tables and figures written into a document between its markers.

use crate::{Error, Result};

/// Replaces what stands between `<!-- name:begin -->` and `<!-- name:end -->`; the markers stay, each on a line of its own.
///
/// Everything else is left to the byte. Doing it twice gives the same as doing it once.
///
/// ```
/// use lacuna::report::replace_between;
///
/// # fn main() -> lacuna::Result<()> {
/// let readme = "# Results\n<!-- claims:begin -->\nold\n<!-- claims:end -->\nEnd.\n";
/// let fresh = replace_between(readme, "claims", "| a |\n| - |\n")?;
/// assert_eq!(fresh, "# Results\n<!-- claims:begin -->\n| a |\n| - |\n<!-- claims:end -->\nEnd.\n");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When a marker is missing or stands more than once, when the end comes before the beginning, or when `text` itself holds
/// one of the two markers.
pub fn replace_between(document: &str, name: &str, text: &str) -> Result<String> {
    let begin = format!("<!-- {name}:begin -->");
    let end = format!("<!-- {name}:end -->");
    let at_begin = only(document, &begin)?;
    let at_end = only(document, &end)?;
    if at_end < at_begin {
        return Err(Error::invalid_option(end, "stands before its begin"));
    }
    if let Some(marker) = [&begin, &end].into_iter().find(|marker| text.contains(marker.as_str())) {
        return Err(Error::invalid_option(marker, "stands in the text that is to go between the markers"));
    }
    let newline = if document.contains("\r\n") { "\r\n" } else { "\n" };
    let text = text.trim_matches(['\r', '\n']).replace("\r\n", "\n").replace('\n', newline);
    let separator = if text.is_empty() { "" } else { newline };
    let (before, after) = (&document[..at_begin], &document[at_end..]);
    Ok(format!("{before}{begin}{newline}{text}{separator}{after}"))
}

/// Where the marker stands, if it stands exactly once.
fn only(document: &str, marker: &str) -> Result<usize> {
    let mut places = document.match_indices(marker).map(|(place, _)| place);
    let first = places.next().ok_or_else(|| Error::invalid_option(marker, "missing from the document"))?;
    match places.count() {
        0 => Ok(first),
        more => Err(Error::invalid_option(marker, format!("stands {} times in the document, not once", more + 1))),
    }
}
