//! Working folders: what is ours is taken over or removed, what is not is never touched.

use crate::common::*;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout, Packing};
use lacuna::mask::Pattern;
use lacuna::solve::SparseGpt;
use lacuna::{Error, Result};
use serde_json::json;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Every path below a folder with its bytes; of a link where it leads.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            found.push((path.clone(), fs::read_link(&path).unwrap().to_string_lossy().into_owned().into_bytes()));
        } else if path.is_dir() {
            found.push((path.clone(), vec![]));
            found.extend(content(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// A run that ends behind its first block.
fn half(m: &Model, out: &Path) -> Vec<u32> {
    let (ids, pruner) = (tokens(10), SparseGpt::default());
    let settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let see = &mut |p: lacuna::prune::Progress| {
            assert!(p.blocks < 1, "ends here");
            ControlFlow::Continue(())
        };
        begin(&m.dir, out, &sequences(&ids), &settings, &json!({"a": 1}), false, see).map(|_| ())
    }));
    assert!(run.is_err());
    ids
}

fn go_on(m: &Model, out: &Path, ids: &[u32], resume: bool) -> Result<()> {
    let pruner = SparseGpt::default();
    let settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    let see = &mut |_| ControlFlow::Continue(());
    begin(&m.dir, out, &sequences(ids), &settings, &json!({"a": 1}), resume, see)?.finish().map(|_| ())
}

#[test]
fn what_no_run_has_made_is_refused_and_stays_as_it_was() {
    let m = Model::new(Dtype::F32);
    let (ids, out) = (tokens(10), m.out("out"));
    let part = FolderWriter::working_folder(&out);
    let file = |name: &str| {
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join(name), "mine").unwrap();
    };
    let elsewhere = m.out("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("x"), "mine").unwrap();
    let cases: [(&str, &dyn Fn()); 7] = [
        ("notes.txt", &|| file("notes.txt")),
        ("model.safetensors", &|| file("model.safetensors")),
        (".records.json", &|| file(".records.json")),
        (".lacuna-notes.part", &|| file(".lacuna-notes.part")),
        ("folder", &|| fs::create_dir_all(part.join("folder").join("below")).unwrap()),
        ("stands in the place", &|| fs::write(&part, "mine").unwrap()),
        #[cfg(unix)]
        ("stands in the place", &|| std::os::unix::fs::symlink(&elsewhere, &part).unwrap()),
    ];
    for (what, make) in cases {
        make();
        let before = content(m.folder.path());
        let line = go_on(&m, &out, &ids, false).unwrap_err().to_string();
        assert!(line.contains(what) && line.contains("no run has made and none removes"), "{line}");
        assert!(line.starts_with(part.to_str().unwrap()) && line.lines().count() == 1, "{line}");
        assert!(FolderWriter::check_working(&out).is_err() && FolderWriter::is_unfinished(&out).is_err());
        FolderWriter::tidy(&out).unwrap();
        assert_eq!(content(m.folder.path()), before, "{what}");
        if part.is_dir() && !part.is_symlink() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) }.unwrap();
    }
}

#[test]
fn an_empty_folder_and_one_in_which_no_run_has_begun_are_taken_over() {
    let m = Model::new(Dtype::F32);
    let ids = tokens(10);
    go_on(&m, &m.out("whole"), &ids, false).unwrap();
    let whole = files(&m.out("whole"));
    let (folder, _) = open(&m.dir);
    let other = || Layout::new([("x".to_string(), Dtype::F32, vec![4])], 1).unwrap();
    type Make<'a> = &'a dyn Fn(&Path, &Path);
    let cases: [(&str, Make<'_>); 5] = [
        ("empty", &|_, part| fs::create_dir(part).unwrap()),
        ("laid", &|out, _| drop(FolderWriter::create_resumable(out, Layout::of(&folder)).unwrap())),
        ("laid for other tensors", &|out, _| drop(FolderWriter::create_resumable(out, other()).unwrap())),
        ("killed while it was marked", &|_, part| {
            fs::create_dir(part).unwrap();
            fs::write(part.join(".lacuna-aB3xYz.part"), "[\"mod").unwrap();
        }),
        ("marked by a word that was cut off", &|_, part| {
            fs::create_dir(part).unwrap();
            fs::write(part.join(".lacuna.json"), "[\"mod").unwrap();
        }),
    ];
    for (i, (what, make)) in cases.into_iter().enumerate() {
        let out = m.out(&format!("out{i}"));
        make(&out, &FolderWriter::working_folder(&out));
        assert!(!FolderWriter::is_unfinished(&out).unwrap(), "{what}");
        go_on(&m, &out, &ids, false).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(files(&out) == whole, "{what}");
        assert!(!FolderWriter::working_folder(&out).exists(), "{what}");
    }
    // Of a folder that is marked only what the mark names is taken.
    let out = m.out("mixed");
    drop(FolderWriter::create_resumable(&out, Layout::of(&folder)).unwrap());
    fs::write(FolderWriter::working_folder(&out).join("notes.txt"), "mine").unwrap();
    let line = go_on(&m, &out, &ids, false).unwrap_err().to_string();
    assert!(line.contains("holds 'notes.txt', which no run has made"), "{line}");
}

#[test]
fn an_unfinished_run_stops_a_new_one_and_names_the_option_that_goes_on_with_it() {
    let m = Model::new(Dtype::F32);
    let out = m.out("out");
    let ids = half(&m, &out);
    let part = FolderWriter::working_folder(&out);
    let before = content(m.folder.path());
    let line = go_on(&m, &out, &ids, false).unwrap_err().to_string();
    assert_eq!(line, format!("{}: holds an unfinished run: --resume goes on with it; remove it to begin anew", part.display()));
    assert_eq!(FolderWriter::check_working(&out).unwrap_err().to_string(), line);
    assert_eq!(content(m.folder.path()), before);
    go_on(&m, &out, &ids, true).unwrap();
}

#[test]
fn an_error_behind_the_first_block_says_how_to_go_on_and_before_it_leaves_nothing() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(1), SparseGpt { damping: 0.0, ..SparseGpt::default() });
    for (block, only) in [(0, "layers.0."), (2, "layers.2.")] {
        let out = m.out(&format!("out{block}"));
        let mut settings = settings(&m.dir, &pruner, Pattern::Unstructured);
        // Twelve tokens cannot make a Gram matrix of order 16; layers that keep all are not asked to.
        settings.budgets.retain(|name, _| name.contains(only));
        let sound = SparseGpt::default();
        let mixed = Mixed { sound: &sound, broken: &pruner, of: only };
        if block > 0 {
            let (folder, config) = open(&m.dir);
            let layers = lacuna::prune::language_layers(&folder, &config, &[], &[]).unwrap();
            settings.budgets = layers
                .iter()
                .map(|l| (l.name.clone(), Pattern::Unstructured.budget(l.shape.0, l.shape.1, 0.5).unwrap()))
                .collect();
        }
        settings.pruner = &mixed;
        let done = begin(&m.dir, &out, &sequences(&ids), &settings, &json!({"a": 1}), false, &mut |_| ControlFlow::Continue(()));
        let error = done.err().unwrap();
        let (line, part) = (error.to_string(), FolderWriter::working_folder(&out));
        assert!(line.contains("12 tokens, damping 0"), "{line}");
        assert_eq!(matches!(error, Error::Unfinished { .. }), block > 0);
        assert_eq!(part.exists(), block > 0);
        let end = format!("; what is done is kept in {}: --resume goes on from there", part.display());
        assert_eq!(line.ends_with(&end), block > 0, "{line}");
    }
}

/// One pruner for the layers of a block, another for the rest.
#[derive(Debug)]
struct Mixed<'a> {
    sound: &'a SparseGpt,
    broken: &'a SparseGpt,
    of: &'a str,
}

impl lacuna::solve::Pruner for Mixed<'_> {
    fn name(&self) -> &str {
        "mixed"
    }

    fn needs(&self) -> lacuna::criteria::Needs {
        self.sound.needs()
    }

    fn prune(
        &self,
        layer: &lacuna::criteria::Evidence<'_>,
        pattern: Pattern,
        scope: lacuna::mask::Scope,
        budget: lacuna::mask::Budget,
    ) -> Result<lacuna::solve::Pruned> {
        let pruner = if layer.layer.contains(self.of) { self.broken } else { self.sound };
        pruner.prune(layer, pattern, scope, budget)
    }
}

#[test]
fn a_folder_that_an_older_build_has_begun_goes_on_and_ends_like_any_other() {
    let m = Model::new(Dtype::BF16);
    let (whole, out) = (m.out("whole"), m.out("out"));
    let ids = half(&m, &out);
    go_on(&m, &whole, &ids, false).unwrap();
    // It had no mark.
    fs::remove_file(FolderWriter::working_folder(&out).join(".lacuna.json")).unwrap();
    assert!(FolderWriter::is_unfinished(&out).unwrap());
    go_on(&m, &out, &ids, true).unwrap();
    assert!(files(&out) == files(&whole));
}

#[test]
fn what_others_put_into_a_working_folder_outlives_its_end() {
    let m = Model::new(Dtype::F32);
    let (whole, out) = (m.out("whole"), m.out("out"));
    let ids = half(&m, &out);
    go_on(&m, &whole, &ids, false).unwrap();
    let part = FolderWriter::working_folder(&out);
    let foreign = |name: &str| {
        let path = part.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    };
    ["notes.txt", ".notes", ".git/HEAD"].into_iter().for_each(foreign);
    go_on(&m, &out, &ids, true).unwrap();
    for name in ["notes.txt", ".notes", ".git/HEAD"] {
        assert_eq!(fs::read(out.join(name)).unwrap(), b"mine", "{name}");
        fs::remove_file(out.join(name)).unwrap();
    }
    fs::remove_dir(out.join(".git")).unwrap();
    assert!(files(&out) == files(&whole), "nothing else of the run is left");

    // Given up, a folder keeps what is not the run's, and only that.
    let out = m.out("given up");
    half(&m, &out);
    let part = FolderWriter::working_folder(&out);
    fs::write(part.join("notes.txt"), "mine").unwrap();
    FolderWriter::resume(&out, layout(&m)).unwrap().discard();
    assert_eq!(files(&part), [("notes.txt".to_string(), b"mine".to_vec())]);
    let out = m.out("given up whole");
    half(&m, &out);
    FolderWriter::resume(&out, layout(&m)).unwrap().discard();
    assert!(!FolderWriter::working_folder(&out).exists());
}

/// The layout of a run over all layers.
fn layout(m: &Model) -> Layout {
    let (folder, config) = open(&m.dir);
    let layers = lacuna::prune::language_layers(&folder, &config, &[], &[]).unwrap();
    let names: Vec<String> = layers.iter().map(|l| format!("{}.weight", l.name)).collect();
    let mut layout = Layout::of(&folder);
    layout.masks(names.iter().map(String::as_str)).unwrap();
    layout
}

#[test]
fn a_folder_that_is_packed_lies_within_the_whole_one_until_it_is_finished() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner, out) = (tokens(10), SparseGpt::default(), m.out("out"));
    let settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    let run = |resume: bool| {
        let see = &mut |_| ControlFlow::Continue(());
        let writer = begin(&m.dir, &out, &sequences(&ids), &settings, &json!({"a": 1}), resume, see).unwrap().writer;
        let whole = writer.complete().unwrap();
        (writer, whole)
    };
    let beside = || fs::read_dir(m.folder.path()).unwrap().count();
    // Killed at several places of its end: begun, with its record, finished but not rid of the whole one.
    let (writer, whole) = run(false);
    std::mem::forget(writer.repack(&whole, Packing::SparseBitmask, |_, _| {}).unwrap());
    drop(writer);
    assert_eq!(beside(), 2, "the model and one working folder");
    let (writer, whole) = run(true);
    let packed = writer.repack(&whole, Packing::SparseBitmask, |_, _| {}).unwrap();
    packed.json("prune.json", &json!({"half": true})).unwrap();
    std::mem::forget(packed);
    drop(writer);
    let (writer, whole) = run(true);
    let packed = writer.repack(&whole, Packing::SparseBitmask, |_, _| {}).unwrap();
    packed.json("prune.json", &json!({"all": true})).unwrap();
    packed.finish().unwrap();
    drop(writer);
    assert_eq!(beside(), 3);
    FolderWriter::tidy(&out).unwrap();
    assert_eq!(beside(), 2, "the model and the output");
    assert!(
        files(&out).iter().all(|(name, _)| !name.starts_with('.')),
        "{:?}",
        files(&out).iter().map(|f| &f.0).collect::<Vec<_>>()
    );
    let packed = Folder::open(&out).unwrap();
    assert_eq!(packed.packed().count(), 21);
    drop(whole);
}
