//! What README.md says of options, against what the command says of itself.

use super::common::Folder;
use std::collections::BTreeMap;

const README: &str = include_str!("../../../../README.md");

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The name of an option at the start of a word or a line of help, without what it takes.
fn option(text: &str) -> Option<&str> {
    let name = text.trim_start().strip_prefix("--")?;
    Some(&name[..name.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(name.len())])
}

/// What `--help` of a subcommand says of each of its options.
fn help(folder: &Folder, command: &[&str]) -> BTreeMap<String, String> {
    let text = folder.succeeds(&[command, &["--help"]].concat());
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(name) = option(line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, ")) {
            current = Some(name.to_string());
        }
        if let Some(name) = &current {
            *said.entry(name.clone()).or_default() += &format!("{}\n", line.trim());
        }
    }
    assert!(said.contains_key("help"), "{command:?}: {text}");
    said
}

/// A command and those within it.
fn with_subcommands(folder: &Folder, command: &str) -> Vec<Vec<String>> {
    let text = folder.succeeds(&[command, "--help"]);
    let listed = text.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    let names = listed.lines().filter_map(|l| l.split_whitespace().next()).filter(|&name| name != "help");
    let within = names.map(|name| vec![command.to_string(), name.to_string()]);
    [vec![command.to_string()]].into_iter().chain(within).collect()
}

#[test]
fn the_options_of_prune_have_the_defaults_that_the_readme_gives() {
    let said = help(&Folder::new(), &["prune"]);
    let (mut options, mut defaults) = (0, 0);
    let tables = README.split("\n\n").filter(|t| t.starts_with("| option"));
    for row in tables.flat_map(|t| t.lines().skip(2)) {
        let (names, values) = row.trim_start_matches("| ").split_once(" | ").unwrap();
        for name in quoted(names).into_iter().filter_map(option) {
            let help = said.get(name).unwrap_or_else(|| panic!("README.md has an option --{name}, prune has none"));
            options += 1;
            // Where the help gives none, the command works it out of other options.
            let Some((before, _)) = values.split_once(" (default)").filter(|_| help.contains("[default: ")) else { continue };
            let default = quoted(before).pop().unwrap();
            assert!(
                help.contains(&format!("[default: {default}]")),
                "README.md: --{name} is {default} unless given; prune: {help}"
            );
            defaults += 1;
        }
    }
    assert!(options >= 25 && defaults >= 5, "the tables of README.md have {options} options and {defaults} defaults");
}

#[test]
fn the_commands_of_the_readme_have_options_that_exist() {
    let folder = Folder::new();
    let mut seen: BTreeMap<Vec<&str>, BTreeMap<String, String>> = BTreeMap::new();
    let mut options = 0;
    for line in README.lines().filter_map(|l| l.strip_prefix("lacuna ")).filter(|l| !l.starts_with("= ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = words[..if words[0] == "bench" { 2 } else { 1 }].to_vec();
        let said = seen.entry(command.clone()).or_insert_with(|| help(&folder, &command));
        for name in words.iter().filter_map(|w| option(w)) {
            assert!(said.contains_key(name), "README.md: lacuna {line}: there is no --{name}");
            options += 1;
        }
    }
    assert!(seen.len() >= 7 && options >= 30, "README.md has {} commands with {options} options", seen.len());
}

#[test]
fn what_the_readme_says_of_a_command_in_a_table_has_options_that_exist() {
    let folder = Folder::new();
    let mut options = 0;
    for row in README.split("\n\n").filter(|t| t.starts_with("| command | what")).flat_map(|t| t.lines().skip(2)) {
        let (usage, says) = row.trim_start_matches("| ").split_once(" | ").unwrap();
        // A row may be of several commands, and of those within them; an option is one of any of them.
        let usages = quoted(usage);
        let commands = usages.iter().filter_map(|u| u.split_whitespace().next()).filter(|w| !w.starts_with('-'));
        let commands = commands.flat_map(|c| with_subcommands(&folder, c));
        let said: Vec<_> = commands.map(|c| help(&folder, &c.iter().map(String::as_str).collect::<Vec<_>>())).collect();
        for name in quoted(row).into_iter().flat_map(str::split_whitespace).filter_map(option) {
            assert!(said.iter().any(|s| s.contains_key(name)), "README.md: {usage}: {says}: there is no --{name}");
            options += 1;
        }
    }
    assert!(options >= 12, "the tables of commands of README.md have {options} options");
}

#[test]
fn the_layouts_of_pack_and_prune_are_those_of_the_library() {
    use lacuna::io::Packing;
    let folder = Folder::new();
    for command in ["pack", "prune"] {
        let said = help(&folder, &[command])["save"].split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(Packing::NAMES), "{command} --help: {said}");
    }
    assert!(folder.refuses(&["pack", "lm", "out", "--save", "zip"]).ends_with(&format!("'zip' is none of {}", Packing::NAMES)));
}
