//! Runs the command in a folder of its own.

use lacuna::io::{Checkpoint, Dtype};
use lacuna::rng::Seed;
use ndarray::Array1;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder with `model.safetensors` in it.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        model(Dtype::F32).write(folder.path("model.safetensors")).unwrap();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command with these arguments, in the folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lacuna"));
        command.args(args).current_dir(self.0.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs what must succeed without a word of complaint; what it printed.
    pub fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(0) && errors.is_empty(), "{args:?}: {:?}, {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what must succeed and say one thing beside, which has `note` in it; what it printed.
    pub fn notes(&self, args: &[&str], note: &str) -> String {
        let output = self.run(args);
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(0) && line.lines().count() == 1, "{args:?}: {:?}, {line}", output.status);
        assert!(line.starts_with("note: ") && line.contains(note), "{args:?}: {line}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// As [`Folder::succeeds`], as JSON: one line.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let printed = self.succeeds(args);
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(&printed).unwrap()
    }

    /// Runs what must be refused: exit code 2, one line on standard error, nothing on standard output, and the folder as it
    /// was. The line.
    pub fn refuses(&self, args: &[&str]) -> String {
        let before = self.content();
        let output = self.run(args);
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {line}");
        assert!(line.ends_with('\n') && line.lines().count() == 1, "{args:?}: {line}");
        assert!(line.starts_with("error: "), "{args:?}: {line}");
        assert!(!line.contains("panicked") && !line.contains("src/"), "{args:?}: {line}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(self.content(), before, "{args:?}: the folder changed");
        line["error: ".len()..].trim_end().to_string()
    }

    pub fn read(&self, name: &str) -> Checkpoint {
        Checkpoint::read(self.path(name)).unwrap()
    }

    /// Every file below the folder with its bytes.
    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    found.push((path.clone(), vec![]));
                    walk(&path, found);
                } else {
                    found.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), &mut found);
        found.sort();
        found
    }
}

/// Two linear layers, a convolution, a bias and a metadata entry; 16·24 + 8·16 + 8·4·3·3 = 800 weights.
pub fn model(dtype: Dtype) -> Checkpoint {
    let mut random = Seed(1).stream("model");
    let mut file = Checkpoint::new();
    file.insert("fc1.weight", random.normal_array(16, 24, 1.0), dtype).unwrap();
    file.insert("fc2.weight", random.normal_array(8, 16, 0.2), dtype).unwrap();
    let conv = random.normal_array(8, 36, 0.5).into_shape_with_order((8, 4, 3, 3)).unwrap();
    file.insert("conv.weight", conv, dtype).unwrap();
    file.insert("fc1.bias", Array1::from(vec![0.5; 16]), dtype).unwrap();
    file.insert_metadata("format", "pt");
    file
}

/// The tensors of [`model`] that are pruned.
pub const WEIGHTS: [(&str, usize); 3] = [("conv.weight", 288), ("fc1.weight", 384), ("fc2.weight", 128)];
