//! Chat templates: messages as the one text that a model was trained to answer.
//!
//! A template is Jinja2, as the Hugging Face library renders it (`apply_chat_template`): blocks take their line and the white space before
//! them away, strings and dictionaries have Python's methods, and there are `tojson`, `raise_exception`, `strftime_now` (in UTC) and
//! loops that break. A template sees `messages`, `add_generation_prompt`, `tools` and `documents` (none), and the special tokens
//! of the tokenizer by their names, as `bos_token`. It reads no files, and one that does not come to an end is stopped.

use super::tokenizer::SETTINGS;
use crate::io::folder::read::{default_template, read_json, read_small};
use crate::io::one_line;
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What one side says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `user`, `assistant` or `system`; some templates know others.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A chat template, ready to be rendered.
///
/// ```
/// use lacuna::text::{ChatTemplate, Message};
/// let source = "{{ bos_token }}{% for m in messages %}\n<{{ m['role'] }}>{{ m['content'].strip() }}\n{% endfor %}\n\
///               {% if add_generation_prompt %}\n<assistant>\n{%- endif %}";
/// let template = ChatTemplate::new(source, [("bos_token", "<s>")])?;
/// let asked = template.render(&[Message::new("user", " What is a mask? ")], true)?;
/// assert_eq!(asked, "<s><user>What is a mask?\n<assistant>");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Vec<(String, String)>,
    path: PathBuf,
}

/// The name of the one template in its environment.
const NAME: &str = "chat";
/// Steps after which a template is stopped.
const STEPS: u64 = 10_000_000;

impl ChatTemplate {
    /// A template of this source, with special tokens by their names, as `bos_token`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no template, with the line.
    pub fn new<K: Into<String>, V: Into<String>>(source: &str, tokens: impl IntoIterator<Item = (K, V)>) -> Result<ChatTemplate> {
        let tokens = tokens.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        ChatTemplate::of(source, tokens, PathBuf::from("chat template"))
    }

    /// The template of a model's folder: `chat_template.jinja`, else the key `chat_template` of `tokenizer_config.json` (of several the
    /// one named `default`) or `chat_template.json`; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Malformed`] if one is not what it should be.
    pub fn open(folder: impl AsRef<Path>) -> Result<Option<ChatTemplate>> {
        let folder = folder.as_ref();
        let read = |name: &str| {
            let path = folder.join(name);
            Ok::<_, Error>(if path.is_file() { Some((read_json(&path)?, path)) } else { None })
        };
        let settings = read(SETTINGS)?;
        let mut tokens = Vec::new();
        for (map, _) in [&settings, &read("special_tokens_map.json")?].into_iter().flatten() {
            for (name, text) in special_tokens(map) {
                if !tokens.iter().any(|(known, _)| *known == name) {
                    tokens.push((name, text));
                }
            }
        }
        let path = folder.join("chat_template.jinja");
        if path.is_file() {
            let source = String::from_utf8(read_small(&path)?).map_err(|_| Error::malformed(&path, "is not UTF-8"))?;
            return ChatTemplate::of(&source, tokens, path).map(Some);
        }
        for (map, path) in [settings, read("chat_template.json")?].into_iter().flatten() {
            if let Some(found) = map.get("chat_template").filter(|t| !t.is_null()) {
                let Some(source) = default_template(found) else {
                    return Err(Error::malformed(path, "'chat_template' is neither a text nor a list with one named 'default'"));
                };
                return ChatTemplate::of(source, tokens, path).map(Some);
            }
        }
        Ok(None)
    }

    fn of(source: &str, tokens: Vec<(String, String)>, path: PathBuf) -> Result<ChatTemplate> {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(|e| Error::invalid_option("chat", e.to_string()))?,
        );
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(STEPS));
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |reason: String| -> std::result::Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        environment.add_function("strftime_now", |format: String| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
            time(&format, now)
        });
        let added = environment.add_template_owned(NAME, without_marks(source));
        let template = ChatTemplate { environment, tokens, path };
        match added {
            Ok(()) => Ok(template),
            Err(e) => Err(template.refuse(&e)),
        }
    }

    /// The text of these messages, with `answer` up to where the model's own begins. It has the special tokens that it needs: cut it into
    /// tokens without any more.
    ///
    /// # Errors
    /// [`Error::Malformed`] with what the template says, and the line: of messages that it does not take, or of itself.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String> {
        let said = |m: &Message| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        let mut seen: Vec<(&str, Value)> = self.tokens.iter().map(|(name, text)| (name.as_str(), text.as_str().into())).collect();
        seen.extend([
            ("messages", messages.iter().map(said).collect::<Vec<Value>>().into()),
            ("add_generation_prompt", answer.into()),
            ("tools", ().into()),
            ("documents", ().into()),
        ]);
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render(Value::from_pairs(seen)));
        rendered.map_err(|e| self.refuse(&e))
    }

    fn refuse(&self, e: &minijinja::Error) -> Error {
        let place = e.line().map_or(String::new(), |line| format!(", line {line}"));
        let reason = e.detail().map_or_else(|| e.kind().to_string(), String::from);
        Error::malformed(&self.path, format!("the chat template{place}: {}", one_line(&reason, 300)))
    }
}

/// The special tokens that a file names, by name.
fn special_tokens(map: &Map<String, Json>) -> impl Iterator<Item = (String, String)> {
    let text = |token: &Json| token.as_str().or_else(|| token.get("content")?.as_str()).map(String::from);
    map.iter().filter(|(name, _)| name.ends_with("_token")).filter_map(move |(name, token)| Some((name.clone(), text(token)?)))
}

/// The Hugging Face library lets templates mark what the model itself says. The marks print nothing; a block that is always taken stands
/// for them.
fn without_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, block) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = block.find("%}") else {
            rest = block;
            break;
        };
        let (inside, behind) = (&block[2..end], &block[end + 2..]);
        let bare = inside.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        let instead = match bare.trim() {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => inside.to_string(),
        };
        out.push_str(&format!("{{%{instead}%}}"));
        rest = behind;
    }
    out + rest
}

/// `tojson` as the Hugging Face library has it: Python's `json.dumps`, whose separators have a space and which leaves letters as they are.
fn to_json(value: Value, options: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = indent.filter(|v| !v.is_none() && !v.is_undefined()).map(|v| match v.as_str() {
        Some(text) => text.to_string(),
        None => " ".repeat(v.as_usize().unwrap_or(0).min(64)),
    });
    let separators: Option<Value> = options.get("separators")?;
    let [between, colon] = match separators.filter(|v| !v.is_none() && !v.is_undefined()) {
        Some(pair) => {
            [0, 1].map(|i| pair.get_item_by_index(i).ok().and_then(|s| s.as_str().map(String::from)).unwrap_or_default())
        }
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(String::from),
    };
    let style = Style {
        indent,
        between,
        colon,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    style.write(&value, 0, &mut out)?;
    Ok(out)
}

/// How JSON is laid out.
struct Style {
    indent: Option<String>,
    between: String,
    colon: String,
    ascii: bool,
    sorted: bool,
}

/// How deep a value may be.
const DEEPEST: usize = 100;

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> std::result::Result<(), minijinja::Error> {
        if depth > DEEPEST {
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "a value for tojson is too deep"));
        }
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&value.to_string()),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.list(['{', '}'], &keys, depth, out, |key, out| {
                    self.text(&key.to_string(), out);
                    out.push_str(&self.colon);
                    self.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], &items, depth, out, |item, out| self.write(item, depth + 1, out))?;
            }
            _ => self.text(&value.to_string(), out),
        }
        Ok(())
    }

    fn list(
        &self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        out: &mut String,
        one: impl Fn(&Value, &mut String) -> std::result::Result<(), minijinja::Error>,
    ) -> std::result::Result<(), minijinja::Error> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent.as_ref().filter(|_| !items.is_empty()) {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.between);
            }
            line(depth + 1, out);
            one(item, out)?;
        }
        line(depth, out);
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if u32::from(c) < 0x20 || (self.ascii && !c.is_ascii()) => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A time as C's `strftime` writes it in English and in UTC, from seconds since 1970. What it does not know stays as it is.
fn time(format: &str, seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = ((seconds / 86_400) as usize, seconds % 86_400);
    let leap = |year: usize| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut day) = (1970, days);
    while day >= 365 + usize::from(leap(year)) {
        day -= 365 + usize::from(leap(year));
        year += 1;
    }
    let of_year = day;
    let lengths = [31, 28 + usize::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (day, weekday, twelve) = (day + 1, DAYS[days % 7], (hour + 11) % 12 + 1);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // "%-d" is a number without its zero.
        let mut kind = rest.next();
        let plain = kind == Some('-');
        if plain {
            kind = rest.next();
        }
        let two = |n: u64| if plain { n.to_string() } else { format!("{n:02}") };
        out.push_str(&match kind {
            Some('Y') => year.to_string(),
            Some('y') => two(year as u64 % 100),
            Some('m') => two(month as u64 + 1),
            Some('B') => MONTHS[month].to_string(),
            Some('b' | 'h') => MONTHS[month][..3].to_string(),
            Some('d') => two(day as u64),
            Some('e') => format!("{day:2}"),
            Some('j') => {
                if plain {
                    (of_year + 1).to_string()
                } else {
                    format!("{:03}", of_year + 1)
                }
            }
            Some('A') => weekday.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('H') => two(hour),
            Some('I') => two(twelve),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('F') => format!("{year}-{:02}-{day:02}", month + 1),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_string(),
            Some('z') => "+0000".to_string(),
            Some('%') => "%".to_string(),
            Some(other) => format!("%{}{other}", if plain { "-" } else { "" }),
            None => format!("%{}", if plain { "-" } else { "" }),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // By `date -u -d @SECONDS`.
        assert_eq!(time("%d %b %Y", 0), "01 Jan 1970");
        assert_eq!(time("%A %F %T, day %j", 951_782_399), "Monday 2000-02-28 23:59:59, day 059");
        assert_eq!(time("%a %-d %B %y, %I:%M %p, 100%%", 1_709_208_000), "Thu 29 February 24, 12:00 PM, 100%");
        assert_eq!(time("%Q %", 1), "%Q %");
    }
}
