//! Text that comes from outside, made safe for HTML, XML and Markdown.

/// Whether XML 1.0 forbids the character even when escaped.
fn forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}')
}

/// For element content and quoted attributes of HTML and XML; forbidden control characters become U+FFFD.
pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if forbidden(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// For one cell of a Markdown table: pipes escaped, line breaks as `<br>`. Other Markdown stays what it is, so that a cell
/// may hold a link or code.
///
/// Backslashes just before a pipe are doubled, or they would take the escape of the pipe for themselves.
pub(super) fn markdown_cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut backslashes = 0;
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '|' => out.extend(std::iter::repeat_n('\\', backslashes + 1).chain(['|'])),
            '\n' | '\r' => out.push_str("<br>"),
            c => out.push(c),
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
    }
    out
}

/// For one line of a terminal or a drawing: line breaks, tabs and control characters become spaces.
pub(super) fn one_line(text: &str) -> String {
    text.replace("\r\n", " ").chars().map(|c| if c.is_control() || forbidden(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_after_a_backslash_stays_one_cell() {
        assert_eq!(markdown_cell(r"a|b"), r"a\|b");
        assert_eq!(markdown_cell(r"a\|b"), r"a\\\|b");
        assert_eq!(markdown_cell("two\nlines"), "two<br>lines");
    }
}
