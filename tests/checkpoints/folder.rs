//! Model folders: read a tensor at a time, written in any order, whole or not at all.

use lacuna::io::{Checkpoint, Dtype, Folder, FolderWriter, Layout};
use lacuna::mask::Mask;
use ndarray::{Array2, ArrayD, IxDyn, array};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

use crate::build::numbers;

/// A folder of two shards, with tensors of every dtype, integers, and settings that nothing here knows.
pub fn sharded(root: &Path) -> PathBuf {
    let dir = root.join("model");
    fs::create_dir(&dir).unwrap();
    let mut first = Checkpoint::new();
    first.insert("a.weight", numbers("a", &[5, 3], 1.0), Dtype::F32).unwrap();
    first.insert("b.weight", numbers("b", &[4, 6], 1.0), Dtype::F16).unwrap();
    first.insert_metadata("format", "pt");
    let mut second = Checkpoint::new();
    second.insert("c.weight", numbers("c", &[7, 2, 3], 1.0), Dtype::BF16).unwrap();
    second.insert("c.bias", numbers("d", &[7], 1.0), Dtype::BF16).unwrap();
    first.write(dir.join("model-00001-of-00002.safetensors")).unwrap();
    let header = br#"{"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}       "#;
    let opaque = [&(header.len() as u64).to_le_bytes()[..], header, &[7; 16]].concat();
    fs::write(dir.join("model-ids.safetensors"), opaque).unwrap();
    second.write(dir.join("model-00002-of-00002.safetensors")).unwrap();
    let index = json!({"metadata": {"total_size": 60 + 48 + 84 + 14 + 16, "by": "hand"}, "weight_map": {
        "a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00001-of-00002.safetensors",
        "c.weight": "model-00002-of-00002.safetensors", "c.bias": "model-00002-of-00002.safetensors", "ids": "model-ids.safetensors",
    }});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::write(dir.join("config.json"), "{\"model_type\": \"llama\", \"odd\": [1e-05, {\"deep\": null}]}\n").unwrap();
    fs::write(dir.join("tokenizer_config.json"), "{}").unwrap();
    fs::write(dir.join("notes.txt"), "not copied").unwrap();
    dir
}

/// Every file of a folder with its bytes.
pub fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&p).unwrap()))
        .collect();
    found.sort();
    found
}

fn refused(dir: &Path) -> String {
    let line = Folder::open(dir).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn tensors_of_all_shards_are_read_as_a_whole_file_would_read_them() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let folder = Folder::open(&dir).unwrap();
    assert_eq!(folder.names().collect::<Vec<_>>(), ["a.weight", "b.weight", "c.bias", "c.weight", "ids"]);
    let first = Checkpoint::read(dir.join("model-00001-of-00002.safetensors")).unwrap();
    assert_eq!(&folder.read("b.weight").unwrap(), first.get("b.weight").unwrap());
    assert_eq!((folder.dtype("b.weight").unwrap(), folder.shape("c.weight").unwrap()), (Dtype::F16, &[7, 2, 3][..]));
    assert_eq!(folder.bytes(), 60 + 48 + 84 + 14 + 16);
    assert_eq!(folder.config()["odd"][0], 1e-5);
    let line = folder.matrix("a.weight", (3, 5)).unwrap_err().to_string();
    assert!(line.contains("'a.weight' has shape [5, 3], the configuration asks for [3, 5]"), "{line}");
    assert!(folder.vector("c.weight", 7).unwrap_err().to_string().contains("[7, 2, 3]"));
    assert!(folder.read("ids").unwrap_err().to_string().contains("'ids' is I64; weights are F32, F16 or BF16"));
    assert!(folder.read("a.wieght").unwrap_err().to_string().contains("did you mean 'a.weight'?"));
}

#[test]
fn a_tensor_longer_than_what_is_read_at_a_time_is_whole_read_or_streamed() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let values = numbers("long", &[3, 200_001], 1.0).mapv(|v| dtype.round(v));
        let layout = Layout::new([("w".to_string(), dtype, vec![3, 200_001])], u64::MAX).unwrap();
        let mut writer = FolderWriter::create(&out, layout).unwrap();
        writer.write("w", &values).unwrap();
        writer.config(json!({}).as_object().unwrap()).unwrap();
        writer.finish().unwrap();
        let folder = Folder::open(&out).unwrap();
        assert_eq!(folder.read("w").unwrap(), values);
        let mut streamed = Vec::new();
        folder.stream("w", |part| streamed.extend_from_slice(part)).unwrap();
        assert_eq!(ArrayD::from_shape_vec(IxDyn(&[3, 200_001]), streamed).unwrap(), values);
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_folder_that_is_copied_is_the_same_to_the_byte_but_for_files_that_are_not_the_models() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let folder = Folder::open(&dir).unwrap();
    let out = root.path().join("out");
    let mut writer = FolderWriter::create(&out, Layout::of(&folder)).unwrap();
    writer.copy_rest(&folder).unwrap();
    writer.finish().unwrap();
    let json = |name: &str, bytes: &[u8]| {
        if name.ends_with("index.json") { serde_json::from_slice(bytes).unwrap() } else { Value::Null }
    };
    let (mut before, after) = (content(&dir), content(&out));
    before.retain(|(name, _)| name != "notes.txt");
    assert_eq!(before.len(), after.len());
    for ((a, x), (b, y)) in before.iter().zip(&after) {
        assert_eq!((a, json(a, x)), (b, json(b, y)));
        assert!(x == y || a.ends_with("index.json"), "{a}");
    }
}

#[test]
fn new_numbers_keep_file_place_and_dtype_whatever_the_order_of_writing() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let folder = Folder::open(&dir).unwrap();
    let out = root.path().join("out");
    let mut layout = Layout::of(&folder);
    layout.masks(["c.weight"]).unwrap();
    let mut writer = FolderWriter::create(&out, layout).unwrap();
    let mask = Mask::from_fn(7, 6, |r, c| (r + c) % 3 == 0);
    writer.write_mask("c.weight", &mask).unwrap();
    let pruned = folder.read("c.weight").unwrap().mapv(|v| if v > 0.0 { v } else { 0.0 });
    writer.write("c.weight", &pruned).unwrap();
    assert_eq!(writer.missing().count(), 4);
    writer.copy_rest(&folder).unwrap();
    assert!(!out.exists());
    writer.finish().unwrap();
    let written = Folder::open(&out).unwrap();
    assert_eq!(written.read("c.weight").unwrap(), pruned);
    assert_eq!(written.dtype("c.weight").unwrap(), Dtype::BF16);
    assert_eq!(written.read("a.weight").unwrap(), folder.read("a.weight").unwrap());
    let masks = written.masks().unwrap();
    assert_eq!(masks.read("c.weight").unwrap(), Some(mask.clone()));
    assert_eq!((masks.read("a.weight").unwrap(), masks.names().count()), (None, 1));
    // The index lists weights, not masks.
    assert_eq!(written.json("model.safetensors.index.json").unwrap().unwrap()["weight_map"].as_object().unwrap().len(), 5);
}

#[test]
fn a_model_is_known_by_its_config_and_by_all_parts_of_a_file_that_is_little_longer_than_a_megabyte() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    let layout = Layout::new([("a.weight".to_string(), Dtype::F32, vec![300, 1000])], 1 << 30).unwrap();
    let mut writer = FolderWriter::create(&folder, layout).unwrap();
    writer.write("a.weight", &Array2::<f32>::ones((300, 1000))).unwrap();
    writer.config(&serde_json::Map::new()).unwrap();
    writer.finish().unwrap();
    let known = || Folder::open(&folder).unwrap().fingerprint().unwrap();
    let (first, file) = (known(), folder.join("model.safetensors"));
    let bytes = fs::read(&file).unwrap();
    for at in [1000, 1 << 20, (1 << 20) + 5000, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&file, changed).unwrap();
        assert_ne!(known(), first, "byte {at}");
    }
    fs::write(&file, bytes).unwrap();
    assert_eq!(known(), first);
    fs::write(folder.join("config.json"), "{\"a\": 1}").unwrap();
    assert_ne!(known(), first);
}

#[test]
fn a_mask_of_another_shape_than_its_weight_is_refused_by_its_file() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    let layout = Layout::new([("a.weight".to_string(), Dtype::F32, vec![4, 8])], 1 << 20).unwrap();
    let mut writer = FolderWriter::create(&folder, layout).unwrap();
    writer.write("a.weight", &Array2::<f32>::ones((4, 8))).unwrap();
    writer.config(&serde_json::Map::new()).unwrap();
    writer.finish().unwrap();
    for (rows, cols) in [(8, 8), (4, 16), (2, 8), (8, 4)] {
        let mut masks = Checkpoint::new();
        masks.insert("a.weight", ArrayD::<f32>::zeros(IxDyn(&[rows, cols])), Dtype::F32).unwrap();
        masks.insert_mask("a.weight", &Mask::full(rows, cols)).unwrap();
        masks.write(folder.join("masks.safetensors")).unwrap();
        let opened = Folder::open(&folder).unwrap();
        for error in [opened.mask("a.weight").map(|_| ()).unwrap_err(), opened.kept("a.weight").map(|_| ()).unwrap_err()] {
            let says = format!("masks.safetensors: the mask of 'a.weight' is ({rows}, {cols}), the weight [4, 8]");
            assert!(error.to_string().ends_with(&says), "{error}");
        }
    }
}

#[test]
fn what_is_not_finished_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let folder = Folder::open(&dir).unwrap();
    let out = root.path().join("out");
    let mut writer = FolderWriter::create(&out, Layout::of(&folder)).unwrap();
    writer.write("a.weight", &numbers("x", &[5, 3], 1.0)).unwrap();
    let e = writer.write("a.weight", &Array2::<f32>::zeros((3, 5))).unwrap_err().to_string();
    assert!(e.contains("expected shape [5, 3], found [3, 5]"), "{e}");
    let e = writer.write("b.weight", &Array2::from_elem((4, 6), 1e5)).unwrap_err().to_string();
    assert!(e.contains("'b.weight': 100000 at number 0 is too large for F16"), "{e}");
    assert!(writer.write("ids", &array![1.0, 2.0]).unwrap_err().to_string().contains("'ids' is I64"));
    let e = writer.finish().unwrap_err().to_string();
    assert!(e.contains("4 tensors were not written, the first of them 'b.weight'"), "{e}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    fs::write(&out, "a file").unwrap();
    let e = FolderWriter::create(&out, Layout::of(&folder)).err().unwrap().to_string();
    assert!(e.ends_with("out: exists already; name a new folder"), "{e}");
    let e = FolderWriter::create(root.path().join("no/out"), Layout::of(&folder)).err().unwrap().to_string();
    assert!(e.contains("does not exist"), "{e}");
}

#[test]
fn a_run_that_was_cut_off_goes_on_to_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let folder = Folder::open(&dir).unwrap();
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    let new = |name: &str, shape: &[usize]| numbers(&format!("new {name}"), shape, 1.0);
    let mut writer = FolderWriter::create(&whole, Layout::of(&folder)).unwrap();
    writer.write("a.weight", &new("a", &[5, 3])).unwrap();
    writer.write("c.weight", &new("c", &[7, 2, 3])).unwrap();
    writer.copy_rest(&folder).unwrap();
    writer.finish().unwrap();

    let mut writer = FolderWriter::create_resumable(&out, Layout::of(&folder)).unwrap();
    writer.write("a.weight", &new("a", &[5, 3])).unwrap();
    writer.sync().unwrap();
    // Written, but not yet known to be on the disk when the run ends.
    writer.write("c.weight", &new("half", &[7, 2, 3])).unwrap();
    drop(writer);
    assert!(!out.exists() && FolderWriter::working_folder(&out).exists());
    let e = FolderWriter::create_resumable(&out, Layout::of(&folder)).err().unwrap().to_string();
    assert!(e.contains("holds an unfinished run"), "{e}");
    let other = Layout::new([("x".to_string(), Dtype::F32, vec![1])], 1).unwrap();
    assert!(FolderWriter::resume(&out, other).is_err());
    let mut writer = FolderWriter::resume(&out, Layout::of(&folder)).unwrap();
    assert!(writer.is_written("a.weight") && !writer.is_written("c.weight"));
    writer.write("c.weight", &new("c", &[7, 2, 3])).unwrap();
    writer.copy_rest(&folder).unwrap();
    writer.finish().unwrap();
    assert_eq!(content(&out), content(&whole));
    assert!(!FolderWriter::working_folder(&out).exists());
}

#[test]
fn large_models_are_cut_into_shards_that_open_again() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let shapes = [("w1", vec![4, 4]), ("w2", vec![8, 8]), ("w3", vec![2, 2]), ("w4", vec![4])];
    let layout = Layout::new(shapes.iter().map(|(n, s)| (n.to_string(), Dtype::F32, s.clone())), 100).unwrap();
    let mut writer = FolderWriter::create(&out, layout).unwrap();
    for (name, shape) in &shapes {
        writer.write(name, &numbers(name, shape, 1.0)).unwrap();
    }
    writer.config(json!({}).as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    let folder = Folder::open(&out).unwrap();
    let files: Vec<String> = folder.files().map(|(p, _)| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(files, [1, 2, 3].map(|i| format!("model-{i:05}-of-00003.safetensors")));
    for (name, shape) in &shapes {
        assert_eq!(folder.read(name).unwrap(), numbers(name, shape, 1.0));
    }
}

#[test]
fn a_layout_takes_other_shapes_and_writes_them_with_the_sizes_that_follow() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(sharded(root.path())).unwrap();
    let mut layout = Layout::of(&folder);
    let mut asked = Vec::new();
    layout
        .reshape(|name, shape| {
            asked.push((name.to_string(), shape.to_vec()));
            match name {
                "a.weight" => vec![2, 3],
                "c.weight" => vec![7, 1, 3],
                _ => shape.to_vec(),
            }
        })
        .unwrap();
    asked.sort();
    let mut all: Vec<_> = folder.names().map(|n| (n.to_string(), folder.shape(n).unwrap().to_vec())).collect();
    all.sort();
    assert_eq!(asked, all, "each tensor is asked for once, with the shape that it has");
    let out = root.path().join("out");
    let mut writer = FolderWriter::create(&out, layout).unwrap();
    let (a, c) = (numbers("a", &[2, 3], 1.0), numbers("c", &[7, 1, 3], 1.0));
    let e = writer.write("a.weight", &numbers("a", &[5, 3], 1.0)).unwrap_err().to_string();
    assert!(e.contains("'a.weight': expected shape [2, 3], found [5, 3]"), "{e}");
    let e = writer.copy("a.weight", &folder).unwrap_err().to_string();
    assert!(e.contains("expected shape [2, 3], found [5, 3]"), "{e}");
    writer.write("a.weight", &a).unwrap();
    writer.write("c.weight", &c).unwrap();
    writer.copy_rest(&folder).unwrap();
    writer.finish().unwrap();
    let written = Folder::open(&out).unwrap();
    assert_eq!(written.read("a.weight").unwrap(), a);
    assert_eq!(written.read("c.weight").unwrap(), c.mapv(|v| Dtype::BF16.round(v)));
    for name in ["b.weight", "c.bias"] {
        assert_eq!(written.read(name).unwrap(), folder.read(name).unwrap(), "{name}");
    }
    let index = written.json("model.safetensors.index.json").unwrap().unwrap();
    assert_eq!(index["metadata"]["total_size"], 24 + 48 + 42 + 14 + 16);
    // More than a machine can address is refused by the tensor's name.
    let mut layout = Layout::of(&folder);
    let e = layout.reshape(|name, s| if name == "b.weight" { vec![usize::MAX, 2] } else { s.to_vec() }).unwrap_err().to_string();
    assert!(e.starts_with("shape: tensor 'b.weight': ") && e.ends_with("of F16 is too large"), "{e}");
}

#[test]
fn a_layout_leaves_tensors_out_and_the_index_with_them() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(sharded(root.path())).unwrap();
    let mut layout = Layout::of(&folder);
    let mut asked = Vec::new();
    layout.retain(|name| {
        asked.push(name.to_string());
        !name.starts_with("c.")
    });
    asked.sort();
    assert_eq!(asked, ["a.weight", "b.weight", "c.bias", "c.weight", "ids"], "each tensor is asked about once");
    let out = root.path().join("out");
    let mut writer = FolderWriter::create(&out, layout).unwrap();
    assert!(writer.write("c.bias", &array![1.0]).is_err(), "what was left out has no place");
    writer.copy_rest(&folder).unwrap();
    writer.finish().unwrap();
    let written = Folder::open(&out).unwrap();
    let mut names: Vec<&str> = written.names().collect();
    names.sort_unstable();
    assert_eq!(names, ["a.weight", "b.weight", "ids"]);
    assert_eq!(written.read("a.weight").unwrap(), folder.read("a.weight").unwrap());
    let index = written.json("model.safetensors.index.json").unwrap().unwrap();
    assert_eq!(index["metadata"]["total_size"], 60 + 48 + 16);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), 3);
    assert_eq!(index["metadata"]["by"], "hand", "what else the index says stays");
}

#[test]
fn an_index_that_does_not_tell_the_truth_is_refused_by_tensor_and_file() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let path = dir.join("model.safetensors.index.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut index = good.clone();
        change(index["weight_map"].as_object_mut().unwrap());
        fs::write(&path, index.to_string()).unwrap();
        refused(&dir)
    };
    let line = with(&|m| drop(m.remove("a.weight")));
    assert!(line.contains("leaves out tensor 'a.weight' of model-00001-of-00002.safetensors"), "{line}");
    let line = with(&|m| drop(m.insert("z".into(), "model-ids.safetensors".into())));
    assert!(line.contains("puts tensor 'z' in model-ids.safetensors, which lacks it"), "{line}");
    // Of many the same one is named each time: the first of the alphabet.
    for _ in 0..8 {
        let line = with(&|m| {
            ["q", "m", "z", "n", "y", "x"]
                .iter()
                .for_each(|name| drop(m.insert(name.to_string(), "model-ids.safetensors".into())))
        });
        assert!(line.contains("puts tensor 'm' in"), "{line}");
    }
    let line = with(&|m| drop(m.insert("a.weight".into(), "model-ids.safetensors".into())));
    assert!(line.contains("'a.weight' in model-ids.safetensors; it is in model-00001-of-00002"), "{line}");
    for outside in ["../evil.safetensors", "/etc/passwd", "C:\\x.safetensors", "notes.txt"] {
        let line = with(&|m| drop(m.insert("a.weight".into(), outside.into())));
        assert!(line.contains("no file of this folder"), "{line}");
    }
    let line = with(&|m| drop(m.insert("z".into(), "model-missing.safetensors".into())));
    assert!(line.contains("model-missing.safetensors: ") && line.contains("No such file"), "{line}");
    fs::write(&path, "[1").unwrap();
    assert!(refused(&dir).contains("is no JSON object"));
}

#[test]
fn a_whole_file_beside_old_shards_is_what_is_read_whatever_their_index_says() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    assert_eq!(Folder::open(&dir).unwrap().remark(), None);
    let mut whole = Checkpoint::new();
    whole.insert("a.weight", numbers("another", &[5, 3], 1.0), Dtype::F32).unwrap();
    whole.write(dir.join("model.safetensors")).unwrap();
    let index = dir.join("model.safetensors.index.json");
    let old = fs::read_to_string(&index).unwrap();
    for text in [old.as_str(), r#"{"weight_map": {"a.weight": "model-00001-of-00030.safetensors"}}"#, "no JSON"] {
        fs::write(&index, text).unwrap();
        let folder = Folder::open(&dir).unwrap();
        assert_eq!(folder.read("a.weight").unwrap(), numbers("another", &[5, 3], 1.0));
        assert_eq!(folder.names().collect::<Vec<_>>(), ["a.weight"]);
        let remark = folder.remark().unwrap();
        assert!(remark.starts_with("model.safetensors is read; model.safetensors.index.json beside it"), "{remark}");
        // What is written of it is the whole file alone.
        let out = root.path().join("out");
        let mut writer = FolderWriter::create(&out, Layout::of(&folder)).unwrap();
        writer.copy_rest(&folder).unwrap();
        writer.finish().unwrap();
        assert!(!out.join("model.safetensors.index.json").exists() && Folder::open(&out).unwrap().remark().is_none());
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn tensors_of_a_folder_are_compared_number_by_number_across_dtypes_and_files() {
    use lacuna::io::Weights;
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let long = numbers("long", &[3, 200_001], 1.0).mapv(|v| Dtype::BF16.round(v));
    let mut other = long.clone();
    other[[2, 200_000]] += 1.0;
    let mut file = Checkpoint::new();
    file.insert("x", long.clone(), Dtype::F32).unwrap();
    file.insert("y", long.clone(), Dtype::BF16).unwrap();
    file.insert("z", other, Dtype::F32).unwrap();
    file.insert("turned", long.into_shape_with_order(IxDyn(&[200_001, 3])).unwrap(), Dtype::F32).unwrap();
    file.write(dir.join("model.safetensors")).unwrap();
    let folder = Folder::open(&dir).unwrap();
    let of_file = |a: &str, b: &str| (Weights::same(&folder, a, b).unwrap(), Weights::same(&file, a, b).unwrap());
    assert_eq!(of_file("x", "y"), (true, true));
    assert_eq!(of_file("x", "z"), (false, false));
    assert_eq!(of_file("x", "turned"), (false, false));
    assert!(Weights::same(&folder, "x", "nothing").is_err());
}

#[test]
fn a_gguf_file_in_the_place_of_a_folder_or_of_weights_is_known_by_its_first_bytes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.bin");
    crate::build::llama().write(&path);
    let says = "is a GGUF file; 'lacuna import FILE DIR' makes a model folder of it";
    assert!(refused(&path).ends_with(says));
    assert!(Checkpoint::read(&path).unwrap_err().to_string().ends_with(says));
    assert!(lacuna::io::read_header(&path).unwrap_err().to_string().ends_with(says));
    fs::write(root.path().join("config.json"), "{}").unwrap();
    fs::rename(&path, root.path().join("model.safetensors")).unwrap();
    assert!(refused(root.path()).ends_with(says));
}

#[test]
fn a_folder_that_is_none_is_refused_in_words() {
    let root = tempfile::tempdir().unwrap();
    assert!(refused(&root.path().join("nowhere")).contains("No such file"));
    assert!(refused(root.path()).contains("config.json: No such file"));
    fs::write(root.path().join("config.json"), "[]").unwrap();
    assert!(refused(root.path()).contains("config.json: is no JSON object"));
    fs::write(root.path().join("config.json"), "{}").unwrap();
    assert!(refused(root.path()).contains("has neither model.safetensors nor model.safetensors.index.json"));
    fs::write(root.path().join("pytorch_model.bin"), "").unwrap();
    assert!(refused(root.path()).contains("pytorch_model.bin is not read"));
    let file = root.path().join("config.json");
    assert!(refused(&file).contains("not a folder"));
}

#[test]
fn a_shard_that_is_cut_short_before_or_after_opening_is_one_clean_error() {
    let root = tempfile::tempdir().unwrap();
    let dir = sharded(root.path());
    let folder = Folder::open(&dir).unwrap();
    let shard = dir.join("model-00001-of-00002.safetensors");
    let bytes = fs::metadata(&shard).unwrap().len();
    fs::File::options().write(true).open(&shard).unwrap().set_len(bytes - 60).unwrap();
    let line = folder.read("b.weight").unwrap_err().to_string();
    assert!(line.contains(&format!("the file had {bytes} bytes when it was opened, now it has {}", bytes - 60)), "{line}");
    let line = refused(&dir);
    assert!(line.contains("model-00001-of-00002.safetensors: truncated"), "{line}");
}
