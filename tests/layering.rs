//! The order of the house, for each crate of the workspace: no module uses one that is declared after it, at the root and within every room, no two
//! files use each other, and what is dangerous or foreign has one room.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have.
const LONGEST: usize = 500;
/// Lines a family of language models may have.
const FAMILY: usize = 200;

/// The crates of the workspace by the folder of their sources; of a binary, the root file.
const CRATES: [(&str, &str); 3] = [("crates/sparse/src", "lib.rs"), ("src", "lib.rs"), ("crates/cli/src", "main.rs")];

/// What stands beside the sources: held to the length of files alone.
const BESIDE: [(&str, &str); 9] = [
    ("tests", ""),
    ("crates/sparse/tests", ""),
    ("crates/cli/tests", ""),
    ("examples", ""),
    ("papers", ""),
    ("benches", ""),
    ("crates/sparse/benches", ""),
    ("fuzz/src", ""),
    ("fuzz/fuzz_targets", ""),
];

/// A source file, without comments and the insides of literals.
struct Source {
    /// Path from the root of the workspace.
    path: String,
    /// The module that it is, by names from the root of its crate.
    module: Vec<String>,
    code: String,
    lines: usize,
}

/// The sources of one crate.
fn sources(folder: &str, root: &str) -> Vec<Source> {
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
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths = Vec::new();
    collect(&base, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let inner = path.strip_prefix(&base).unwrap().components().map(|c| c.as_os_str().to_str().unwrap()).collect::<Vec<_>>();
        let inner = inner.join("/");
        let module = module_of(&inner, root);
        Source { path: format!("{folder}/{inner}"), module, code: code_of(&text), lines: text.lines().count() }
    };
    paths.iter().map(read).collect()
}

/// The module that a file of a crate is.
fn module_of(path: &str, root: &str) -> Vec<String> {
    if path == root {
        return Vec::new();
    }
    let path = path.trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path).split('/').map(String::from).collect()
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

/// The paths of a tree: `a::b` is one, `{a::b, c::{d, e as f}}` are three.
fn paths(tree: &str) -> Vec<Vec<String>> {
    /// Reads one tree; gives what is left behind it.
    fn read<'a>(mut rest: &'a str, before: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
        let mut path = before.to_vec();
        loop {
            rest = rest.trim_start();
            if let Some(group) = rest.strip_prefix('{') {
                rest = group.trim_start();
                while !rest.is_empty() && !rest.starts_with('}') {
                    rest = read(rest, &path, found).trim_start();
                    rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
                }
                return rest.strip_prefix('}').unwrap_or(rest);
            }
            let end = rest.find(|c: char| !in_a_word(c) && c != '*').unwrap_or(rest.len());
            if end == 0 {
                return rest.get(1..).unwrap_or("");
            }
            path.push(rest[..end].to_string());
            rest = rest[end..].trim_start();
            match rest.strip_prefix("::") {
                Some(after) => rest = after,
                None => break,
            }
        }
        if let Some(name) = rest.strip_prefix("as ") {
            rest = name.trim_start().trim_start_matches(in_a_word);
        }
        found.push(path);
        rest
    }
    let mut found = Vec::new();
    read(tree, &[], &mut found);
    found
}

/// What a module file declares: its modules in order, and what each name that it re-exports comes from.
#[derive(Debug, Default, PartialEq)]
struct Declared {
    modules: Vec<String>,
    exports: BTreeMap<String, Vec<String>>,
}

fn declared(code: &str) -> Declared {
    let mut declared = Declared::default();
    for statement in code.split_inclusive(['{', ';']) {
        let words: Vec<&str> = statement.trim_end_matches([';', '{']).split_whitespace().collect();
        if let ([.., "mod", name], true) = (&words[..], statement.ends_with(';')) {
            declared.modules.push(name.to_string());
        }
    }
    let statements = places(code, "use ")
        .into_iter()
        .filter(|&at| code[..at].trim_end().ends_with("pub") || code[..at].trim_end().ends_with(')'));
    for at in statements {
        let tree = &code[at + 4..];
        let tree = &tree[..tree.find(';').unwrap_or(tree.len())];
        for path in paths(tree) {
            let path: Vec<String> = path.into_iter().skip_while(|p| p == "crate" || p == "self").collect();
            // `a as b` is known by the last word before `as`, which is enough here but for renamed modules.
            if let (Some(name), true) = (path.last().cloned(), path.len() > 1) {
                declared.exports.insert(name, path[..path.len() - 1].to_vec());
            }
        }
    }
    declared
}

/// The code without modules that are written out in it (tests), for paths that begin with `super`.
fn outermost(code: &str) -> String {
    let mut text = code.to_string();
    for at in places(code, "mod ") {
        let Some(open) = code[at..].find(['{', ';']).map(|i| at + i).filter(|&i| code[i..].starts_with('{')) else { continue };
        let mut depth = 0;
        let end = code[open..].char_indices().find_map(|(i, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0).then_some(open + i + 1)
        });
        let end = end.unwrap_or(code.len());
        let blank: String = code[open..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        if blank.len() == end - open {
            text.replace_range(open..end, &blank);
        }
    }
    text
}

/// The paths that a file uses within its crate, from the root on, each with its line.
fn uses(module: &[String], code: &str, own: &Declared) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in places(code, "crate::") {
        found.extend(paths(&code[at + 7..]).into_iter().map(|path| (line_of(code, at), path)));
    }
    let outer = outermost(code);
    for at in places(&outer, "super::").into_iter().filter(|&at| !outer[..at].ends_with("super::")) {
        let rest = &outer[at..];
        let climbs = rest.len() - rest.trim_start_matches("super::").len();
        let base = &module[..module.len().saturating_sub(climbs / 7)];
        found.extend(paths(&rest[climbs..]).into_iter().map(|path| (line_of(code, at), [base, &path].concat())));
    }
    // Paths into its own modules; a re-export of them is no use.
    for name in &own.modules {
        for at in places(&outer, &format!("{name}::")).into_iter().filter(|&at| !outer[..at].ends_with("::")) {
            let line = outer[..at].rfind([';', '}', '{']).map_or(0, |i| i + 1);
            let statement: Vec<&str> = outer[line..at].split_whitespace().collect();
            let exports = statement.last() == Some(&"use") && statement.iter().any(|w| w.starts_with("pub"));
            if !exports {
                found.extend(paths(&outer[at..]).into_iter().map(|path| (line_of(code, at), [module, &path].concat())));
            }
        }
    }
    found
}

/// The file that defines what a path names: its module.
fn definer(path: &[String], files: &BTreeMap<Vec<String>, Declared>) -> Option<Vec<String>> {
    let mut module = Vec::new();
    let mut rest: Vec<String> = path.to_vec();
    for _ in 0..64 {
        let file = files.get(&module)?;
        let Some(first) = rest.first().cloned() else { return Some(module) };
        if file.modules.contains(&first) {
            module.push(first);
            rest.remove(0);
        } else if let Some(from) = file.exports.get(&first) {
            // What comes from another crate is nobody's here.
            if !file.modules.contains(&from[0]) && !files.contains_key(&from[..1]) {
                return None;
            }
            rest = [&from[..], &rest[..]].concat();
            if !file.modules.contains(&rest[0]) {
                module.clear();
            }
        } else {
            return Some(module);
        }
    }
    panic!("{path:?} is re-exported in a circle")
}

/// What is wrong with the order of a crate's files, one line each.
fn violations(sources: &[(String, Vec<String>, String)]) -> Vec<String> {
    let files: BTreeMap<Vec<String>, Declared> =
        sources.iter().map(|(_, module, code)| (module.clone(), declared(code))).collect();
    let mut broken = Vec::new();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (path, module, code) in sources {
        for (line, used) in uses(module, code, &files[module]) {
            let Some(target) = definer(&used, &files).filter(|t| t != module && !t.is_empty()) else { continue };
            edges.entry(module.clone()).or_default().insert(target.clone());
            let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            let (Some(here), Some(there)) = (module.get(common), target.get(common)) else { continue };
            let order = &files[&module[..common]].modules;
            let rank = |name: &String| order.iter().position(|m| m == name);
            if rank(there) > rank(here) {
                let place = module[..common].join("::");
                let place = if place.is_empty() { "the root".to_string() } else { place };
                broken.push(format!("{path}:{line}: {here} uses {there}, which {place} declares after it"));
            }
        }
    }
    broken.dedup();
    // A room and a file in it may still use each other.
    for (module, targets) in &edges {
        for target in targets.iter().filter(|t| module < *t && edges.get(*t).is_some_and(|back| back.contains(module))) {
            broken.push(format!("{} and {} use each other", module.join("::"), target.join("::")));
        }
    }
    broken
}

fn of_crate(folder: &str, root: &str) -> Vec<(String, Vec<String>, String)> {
    sources(folder, root).into_iter().map(|s| (s.path, s.module, s.code)).collect()
}

#[test]
fn no_module_uses_one_that_is_declared_after_it_and_no_two_files_use_each_other() {
    let broken: Vec<String> = CRATES.iter().flat_map(|(folder, root)| violations(&of_crate(folder, root))).collect();
    assert!(broken.is_empty(), "{} places\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn what_is_unsafe_or_foreign_is_named_in_its_room_alone() {
    let kernels = "crates/sparse/src/kernels/";
    let rooms = [("unsafe", kernels), ("gemm_f32", kernels), ("faer", "src/linalg/"), ("ndarray_linalg", "src/linalg/")];
    let sources: Vec<Source> = CRATES.iter().flat_map(|(folder, root)| sources(folder, root)).collect();
    let mut broken = Vec::new();
    for (word, room) in rooms {
        for s in sources.iter().filter(|s| !s.path.starts_with(room)) {
            let lines = places(&s.code, word).into_iter().map(|at| line_of(&s.code, at));
            broken.extend(lines.map(|line| format!("{}:{line}: {word} is for {room} alone", s.path)));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    let kernels = sources.iter().filter(|s| s.path.starts_with(kernels));
    assert!(kernels.flat_map(|s| places(&s.code, "unsafe")).count() > 0, "kernels have no unsafe code: is it being looked for?");
}

#[test]
fn no_public_name_is_two_types() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for s in CRATES[..2].iter().flat_map(|(folder, root)| sources(folder, root)) {
        for line in s.code.lines() {
            let kinds = ["pub struct ", "pub enum ", "pub trait ", "pub type "];
            let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            found.entry(name).or_default().push(s.path.clone());
        }
    }
    assert!(found.len() > 200, "{} types: are they being looked for?", found.len());
    let twice: Vec<_> = found.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn no_source_file_is_a_drawer_for_everything() {
    let all = CRATES.iter().chain(&BESIDE).filter(|(folder, _)| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).exists());
    let sources: Vec<Source> = all.flat_map(|(folder, root)| sources(folder, root)).collect();
    let of = |folder: &str| sources.iter().filter(|s| s.path.starts_with(folder)).count();
    assert!(of("tests/") > 60 && of("papers/") > 5 && of("crates/cli/tests/") > 5, "are tests and papers being looked at?");
    let long: Vec<_> = sources.iter().filter(|s| s.lines > LONGEST).map(|s| format!("{}: {} lines", s.path, s.lines)).collect();
    assert!(long.is_empty(), "more than {LONGEST} lines: {long:?}");
    // A family is one short file.
    let families = sources.iter().filter(|s| s.path.contains("lm/families/") && s.lines > FAMILY);
    let long: Vec<_> = families.map(|s| format!("{}: {} lines", s.path, s.lines)).collect();
    assert!(long.is_empty(), "families of more than {FAMILY} lines: {long:?}");
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
}

/// A crate of a root with the rooms a, b (files x, y) and c.
fn house(file: &str, code: &str) -> Vec<String> {
    let mut files = vec![
        ("lib.rs", "pub mod a;\n#[cfg(x)]\nmod b;\npub(crate) mod c;\npub use a::{Error, Result as R};\npub use crate::c::See;"),
        ("a.rs", "pub struct Error;"),
        ("b/mod.rs", "mod x;\npub mod y;\npub use x::X;\npub use self::y::{self, Y};"),
        ("b/x.rs", "pub struct X;"),
        ("b/y.rs", "pub struct Y;"),
        ("c.rs", "pub struct See;"),
    ];
    match files.iter_mut().find(|(name, _)| *name == file) {
        Some(found) => found.1 = code,
        None => files.push((file, code)),
    }
    let read = |(name, code): &(&str, &str)| (name.to_string(), module_of(name, "lib.rs"), code_of(code));
    violations(&files.iter().map(read).collect::<Vec<_>>())
}

#[test]
fn the_reader_finds_every_way_to_use_a_module_too_early() {
    assert_eq!(
        paths("a::{b, c::{d as e, f}, g::*}, h"),
        [vec!["a", "b"], vec!["a", "c", "d"], vec!["a", "c", "f"], vec!["a", "g", "*"]]
    );
    for fine in [
        "use crate::a::X;",
        "use crate::{Error, b::{x::P, y}};",
        "use super::x::X;",
        "use super::X;",
        "pub(crate) fn f() {}",
        "use crate::b::y::c;",
        "mod tests { use super::super::c; }",
    ] {
        assert_eq!(house("b/y.rs", fine), [""; 0], "{fine}");
    }
    let late = |line| [format!("b/y.rs:{line}: b uses c, which the root declares after it")];
    for (line, code) in [
        (1, "use crate::c::X;"),
        (2, "fn f() {\n crate::c::g() }"),
        (1, "use crate::{a::X,\n c::{Y, Z}};"),
        (1, "use crate::See;"),
        (1, "use super::super::c::X;"),
        (1, "mod tests { use crate::c; }"),
    ] {
        assert_eq!(house("b/y.rs", code), late(line), "{code}");
    }
    let room = ["b/x.rs:1: x uses y, which b declares after it".to_string()];
    for code in ["use super::y::Y;", "use super::Y;", "use crate::b::Y;", "use crate::b::{y::Y};"] {
        assert_eq!(house("b/x.rs", code), room, "{code}");
    }
    assert_eq!(house("b/mod.rs", "mod x;\nmod y;\nfn f() { x::g() }"), [""; 0]);
    let both = house("b/mod.rs", "mod x;\nmod y;\npub fn f() { x::g() }").into_iter().chain(house("b/x.rs", "use super::f;"));
    assert_eq!(both.count(), 0, "one way alone is fine");
}

#[test]
fn the_reader_finds_a_room_and_its_file_that_use_each_other() {
    let read = |(name, code): &(&str, &str)| (name.to_string(), module_of(name, "lib.rs"), code_of(code));
    let files =
        [("lib.rs", "mod b;"), ("b/mod.rs", "mod x;\nuse x::g;\npub fn f() { g() }"), ("b/x.rs", "pub fn g() { super::f() }")];
    assert_eq!(violations(&files.iter().map(read).collect::<Vec<_>>()), ["b and b::x use each other"]);
}
