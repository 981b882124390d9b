//! The notebooks as they are saved: every cell run once, in order, from a fresh kernel; nothing that names a machine.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks")
}

/// Name and contents, in the order of their names.
fn notebooks() -> Vec<(String, String)> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<(String, String)> = files
        .filter(|path| path.extension().is_some_and(|e| e == "ipynb"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    found.sort();
    found
}

/// A text that JSON holds as one string or as lines.
fn text(value: &Value) -> String {
    match value {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_string(),
    }
}

#[test]
fn six_notebooks_are_saved_with_every_cell_run_in_order_and_none_that_failed() {
    let all = notebooks();
    assert_eq!(all.len(), 6);
    for (name, json) in all {
        let notebook: Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((&notebook["nbformat"], &notebook["metadata"]["kernelspec"]["name"]), (&4.into(), &"rust".into()), "{name}");
        let cells = notebook["cells"].as_array().unwrap();
        let code: Vec<&Value> = cells.iter().filter(|cell| cell["cell_type"] == "code").collect();
        let mut drawings = 0;
        for (n, cell) in code.iter().enumerate() {
            assert_eq!(
                cell["execution_count"],
                n + 1,
                "{name}: cell {} was not run in its turn: scripts/run_notebooks.sh --save",
                n + 1
            );
            for output in cell["outputs"].as_array().unwrap() {
                assert_ne!(output["output_type"], "error", "{name}: cell {}", n + 1);
                assert_ne!(output["name"], "stderr", "{name}: cell {}", n + 1);
                drawings += usize::from(text(&output["data"]["image/svg+xml"]).starts_with("<svg "));
            }
        }
        assert!(drawings >= 2, "{name} has {drawings} drawings");
        assert!(text(&code[0]["source"]).starts_with(":dep lacuna = { path = \"..\", features = [\"text\"] }\n"), "{name}");
        assert!(text(&cells[0]["source"]).starts_with("# "), "{name} begins with its title");
        let listed = fs::read_to_string(folder().join("README.md")).unwrap();
        assert!(listed.contains(&format!("]({name}.ipynb)")), "notebooks/README.md does not list {name}");
    }
}

#[test]
fn no_notebook_names_a_place_of_a_machine() {
    let places = ["/home/", "/root/", "/Users/", "/tmp/", "/var/", "/work/", "/opt/", "/usr/", "/mnt/", "/build/", "C:\\\\"];
    for (name, json) in notebooks() {
        for place in places {
            let found = json.find(place).map(|at| json[at..].chars().take(40).collect::<String>());
            assert_eq!(found, None, "{name}");
        }
    }
}

#[test]
fn the_kernels_package_below_the_build_folder_is_no_member_of_the_workspace() {
    // A member "." holds everything below it, whatever is excluded: the kernel then cannot load its package.
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let of =
        |key: &str| -> Vec<&str> { manifest["workspace"][key].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect() };
    assert!(of("exclude").contains(&"target") && !of("members").contains(&"."));
}
