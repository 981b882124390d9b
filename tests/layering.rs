//! The order of the house: no module uses one that `lib.rs` declares after it, and what is dangerous or foreign has one room.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have.
const LONGEST: usize = 500;

/// A source file under `src`, by its path there, without comments and the insides of literals.
struct Source {
    path: String,
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(&root).unwrap().components().map(|c| c.as_os_str().to_str().unwrap()).collect::<Vec<_>>();
        Source { path: path.join("/"), code: code_of(&text), lines: text.lines().count() }
    };
    paths.iter().map(read).collect()
}

/// The text with comments and the insides of strings and character literals turned to spaces; line ends stay.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let starts = |at: usize, with: &str| chars[at..].iter().copied().take(with.len()).eq(with.chars());
    while at < chars.len() {
        let end = if starts(at, "//") {
            (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len())
        } else if starts(at, "/*") {
            let (mut depth, mut i) = (0, at);
            loop {
                if i >= chars.len() {
                    break i;
                } else if starts(i, "/*") {
                    (depth, i) = (depth + 1, i + 2);
                } else if starts(i, "*/") {
                    (depth, i) = (depth - 1, i + 2);
                    if depth == 0 {
                        break i;
                    }
                } else {
                    i += 1;
                }
            }
        } else if chars[at] == '"' {
            // A raw string has an r, and hashes between it and the quote, before it.
            let hashes = chars[..at].iter().rev().take_while(|c| **c == '#').count();
            let raw = at > hashes && chars[at - hashes - 1] == 'r';
            let close = format!("\"{}", "#".repeat(if raw { hashes } else { 0 }));
            let mut i = at + 1;
            while i < chars.len() && !starts(i, &close) {
                i += if chars[i] == '\\' && !raw { 2 } else { 1 };
            }
            i + close.len()
        } else if starts(at, "'\\") {
            (at + 3..chars.len()).find(|&i| chars[i] == '\'').map_or(chars.len(), |i| i + 1)
        } else if chars[at] == '\'' && chars.get(at + 2) == Some(&'\'') {
            at + 3
        } else {
            code.push(chars[at]);
            at += 1;
            continue;
        };
        let end = end.min(chars.len());
        chars[at..end].iter().for_each(|&c| code.push(if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

fn in_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in the code, not as a part of a longer word.
fn places(code: &str, word: &str) -> Vec<usize> {
    let goes_on = |at: usize| word.ends_with(in_a_word) && code[at..].starts_with(in_a_word);
    let alone = |at: usize| !(code[..at].ends_with(in_a_word) || goes_on(at + word.len()));
    code.match_indices(word).map(|(at, _)| at).filter(|&at| alone(at)).collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The first word of each path of a tree that follows `crate::`: `a` of `a::b`, and `a` and `c` of `{a::b, c::{d, e}}`.
fn heads(tree: &str) -> Vec<String> {
    let tree = tree.trim_start();
    let word = |text: &str| text.trim_start().chars().take_while(|&c| in_a_word(c)).collect::<String>();
    let Some(group) = tree.strip_prefix('{') else { return vec![word(tree)] };
    let (mut depth, mut first, mut found) = (0, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.extend(Some(word(&group[first..i])).filter(|w| !w.is_empty()));
                first = i + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

/// The modules that `lib.rs` declares, in its order, and where what it re-exports comes from.
fn declared(lib: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut modules, mut exports) = (Vec::new(), Vec::new());
    for statement in lib.split_inclusive(['{', ';']) {
        let words: Vec<&str> = statement.trim_end_matches([';', '{']).split_whitespace().collect();
        if let [.., "mod", name] = words[..] {
            modules.push(name.to_string());
        }
    }
    for (at, _) in lib.match_indices("pub use ") {
        let tree = &lib[at + 8..];
        let tree = &tree[..tree.find(';').unwrap_or(tree.len())];
        if let Some((module, names)) = tree.trim_start_matches("crate::").split_once("::") {
            exports.extend(heads(names).into_iter().map(|name| (name, module.trim().to_string())));
        }
    }
    (modules, exports)
}

/// The uses in one file of what stands at the root of the crate: line and first word.
fn uses(path: &str, code: &str, modules: &[String]) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for at in places(code, "crate::") {
        found.extend(heads(&code[at + 7..]).into_iter().map(|head| (line_of(code, at), head)));
    }
    // `super::` as often as the file lies deep reaches the root too. Inside `mod tests` it does not, and then the next
    // word is not the name of a module of the root.
    let depth = path.split('/').count() - usize::from(path.ends_with("/mod.rs"));
    let climb = "super::".repeat(depth);
    for at in places(code, &climb).into_iter().filter(|&at| !code[..at].ends_with("super::")) {
        let reached = heads(&code[at + climb.len()..]).into_iter().filter(|head| modules.contains(head));
        found.extend(reached.map(|head| (line_of(code, at), head)));
    }
    found
}

/// What a file uses too early, one line each.
fn violations(path: &str, code: &str, modules: &[String], exports: &[(String, String)]) -> Vec<String> {
    let own = path.split('/').next().unwrap().trim_end_matches(".rs");
    let rank = |name: &str| modules.iter().position(|m| m == name);
    let Some(here) = rank(own) else { return vec![format!("src/{path}: lib.rs does not declare {own}")] };
    let mut broken = Vec::new();
    for (line, head) in uses(path, code, modules) {
        let module = exports.iter().find(|(name, _)| *name == head).map_or(&head, |(_, module)| module);
        match rank(module) {
            None => broken.push(format!("src/{path}:{line}: crate::{head} is neither a module nor re-exported by one")),
            Some(there) if there > here => {
                broken.push(format!("src/{path}:{line}: {own} uses {module}, which lib.rs declares after it"));
            }
            Some(_) => {}
        }
    }
    broken
}

#[test]
fn no_module_uses_one_that_is_declared_after_it() {
    let sources = sources();
    let lib = &sources.iter().find(|s| s.path == "lib.rs").unwrap().code;
    let (modules, exports) = declared(lib);
    assert_eq!(modules.first().map(String::as_str), Some("error"), "every module may fail, so error is declared first");
    let others = sources.iter().filter(|s| s.path != "lib.rs" && s.path != "main.rs" && !s.path.starts_with("command/"));
    let broken: Vec<String> = others.flat_map(|s| violations(&s.path, &s.code, &modules, &exports)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn what_is_unsafe_or_foreign_is_named_in_its_room_alone() {
    let rooms = [("unsafe", "kernels/"), ("gemm::", "kernels/"), ("faer", "linalg/"), ("ndarray_linalg", "linalg/")];
    let sources = sources();
    let mut broken = Vec::new();
    for (word, room) in rooms {
        for s in sources.iter().filter(|s| !s.path.starts_with(room)) {
            let lines = places(&s.code, word).into_iter().map(|at| line_of(&s.code, at));
            broken.extend(lines.map(|line| format!("src/{}:{line}: {word} is for src/{room} alone", s.path)));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    let kernels = sources.iter().filter(|s| s.path.starts_with("kernels/"));
    assert!(kernels.flat_map(|s| places(&s.code, "unsafe")).count() > 0, "kernels have no unsafe code: is it being looked for?");
}

#[test]
fn no_source_file_is_a_drawer_for_everything() {
    let sources = sources();
    let long: Vec<_> =
        sources.iter().filter(|s| s.lines > LONGEST).map(|s| format!("src/{}: {} lines", s.path, s.lines)).collect();
    assert!(long.is_empty(), "more than {LONGEST} lines: {long:?}");
    let named = |s: &&Source| s.path.rsplit('/').next() == Some("utils.rs") || s.path.split('/').any(|p| p == "utils");
    let utils: Vec<_> = sources.iter().filter(named).map(|s| &s.path).collect();
    assert!(utils.is_empty(), "say what it does: {utils:?}");
}

#[test]
fn the_reader_sees_code_and_neither_comments_nor_literals() {
    let text = r##"a /* b /* c */ d */ e "f \" // g" h 'i' '\'' j<'k> r#"l " m"# n // o
p //! q
"##;
    let words: Vec<String> = code_of(text).split_whitespace().map(String::from).collect();
    assert_eq!(words, ["a", "e", "h", "j<'k>", "r#", "n", "p"]);
    assert_eq!(code_of(text).matches('\n').count(), 2);
    assert_eq!(places("unsafe fn a() { unsafe_op(); my_unsafe }", "unsafe"), [0]);
    assert_eq!(places("gemm::gemm(); kernels::gemm(); my_gemm::x", "gemm::"), [0]);
}

#[test]
fn the_reader_finds_every_way_to_use_a_module_too_early() {
    let lib = "pub mod a;\n#[cfg(x)]\nmod b;\npub(crate) mod c;\npub use a::{Error, Result as R};\npub use crate::c::See;";
    let (modules, exports) = declared(lib);
    assert_eq!(modules, ["a", "b", "c"]);
    let pair = |name: &str, module: &str| (name.to_string(), module.to_string());
    assert_eq!(exports, [pair("Error", "a"), pair("Result", "a"), pair("See", "c")]);
    let broken = |path: &str, code: &str| violations(path, code, &modules, &exports);
    for fine in
        ["use crate::a::X;", "use crate::{Error, b::{c, d}};", "pub(crate) fn f() {}", "use super::c;", "use crate::b::c;"]
    {
        assert_eq!(broken("b/deep.rs", fine), Vec::<String>::new(), "{fine}");
    }
    let late = |line| vec![format!("src/b/mod.rs:{line}: b uses c, which lib.rs declares after it")];
    for (line, code) in [
        (1, "use crate::c::X;"),
        (1, "pub use crate::c;"),
        (2, "fn f() {\n crate::c::g() }"),
        (1, "use crate::{a::X,\n c::{Y, Z}};"),
        (1, "use crate::See;"),
        (1, "use super::c::X;"),
        (1, "use super::{a, c::X};"),
    ] {
        assert_eq!(broken("b/mod.rs", code), late(line), "{code}");
    }
    assert_eq!(broken("b/deep.rs", "use super::super::c::X;"), ["src/b/deep.rs:1: b uses c, which lib.rs declares after it"]);
    assert_eq!(broken("d.rs", ""), ["src/d.rs: lib.rs does not declare d"]);
    assert_eq!(broken("a.rs", "use crate::nowhere;"), ["src/a.rs:1: crate::nowhere is neither a module nor re-exported by one"]);
}
