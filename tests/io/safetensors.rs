//! Checkpoints: tensors, masks and metadata, read back as written, and refused when damaged.

use super::common::*;
use lacuna::data::idx::Idx;
use lacuna::io::{Checkpoint, Dtype, check_finite, read_header};
use lacuna::mask::Mask;
use ndarray::{Array2, Array4, array};
use std::fs;
use std::path::Path;

#[test]
fn the_same_content_gives_the_same_bytes_whatever_the_order() {
    let bytes = sample().to_bytes().unwrap();
    let again = Checkpoint::from_bytes("m", &bytes).unwrap();
    let mut backwards = Checkpoint::new();
    for name in again.names().collect::<Vec<_>>().into_iter().rev() {
        backwards.insert(name, again.get(name).unwrap().clone(), again.dtype(name).unwrap()).unwrap();
    }
    for (key, value) in again.metadata().iter().rev() {
        backwards.insert_metadata(key, value);
    }
    for _ in 0..20 {
        assert_eq!(sample().to_bytes().unwrap(), bytes);
    }
    assert_eq!(again.to_bytes().unwrap(), bytes);
    assert_eq!(backwards.to_bytes().unwrap(), bytes);
    // The header has a length of whole words, and the crate reads what was written.
    assert_eq!(bytes[0] % 8, 0);
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("fc1.weight").unwrap().shape(), [3, 2, 2, 3]);
}

#[test]
fn the_order_in_memory_is_that_of_the_file_then_of_insertion_and_that_of_a_written_file_is_its_own() {
    let json = r#"{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let mut model = Checkpoint::from_bytes("m", &with_header(json, 2)).unwrap();
    model.insert("z", array![1.0], Dtype::F16).unwrap();
    model.insert("c", array![1.0], Dtype::F32).unwrap();
    model.insert("x", array![[1.0, 2.0]], Dtype::F16).unwrap();
    model.insert_mask("x", &Mask::full(1, 2)).unwrap();
    // One that is replaced stays in its place.
    model.insert("z", array![2.0], Dtype::F16).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["b", "a", "z", "c", "x", "x.mask"]);
    assert_eq!(model.weights().map(|(name, _)| name).collect::<Vec<_>>(), ["z", "c", "x"]);
    let back = Checkpoint::from_bytes("m", &model.to_bytes().unwrap()).unwrap();
    assert_eq!(back.names().collect::<Vec<_>>(), ["c", "x", "z", "a", "b", "x.mask"]);
    assert_eq!(back.masks().unwrap(), [("x".to_string(), Mask::full(1, 2))]);
}

#[test]
fn tensors_and_metadata_come_back_from_a_file_as_they_went() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    sample().write(&path).unwrap();
    let model = Checkpoint::read(&path).unwrap();
    assert_eq!(names_in(folder.path()), ["m.safetensors"]);
    assert_eq!(model.names().collect::<Vec<_>>(), ["fc1.weight", "fc1.bias", "fc2.weight"]);
    assert_eq!(model.metadata(), sample().metadata());
    for (name, values) in sample().weights() {
        assert_eq!(model.get(name).unwrap(), values);
        assert_eq!(model.dtype(name).unwrap(), sample().dtype(name).unwrap());
    }
    let header = read_header(&path).unwrap();
    assert_eq!(header.file_bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(header.tensors, model.names().map(|n| model.info(n).unwrap()).collect::<Vec<_>>());
    assert_eq!(header.tensors[0].elements(), 36);
    assert_eq!(&header.metadata, model.metadata());
}

#[test]
fn every_16_bit_number_is_written_back_to_the_bit() {
    for dtype in ["F16", "BF16"] {
        let json = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[256,256],"data_offsets":[0,131072]}}}}"#);
        let mut bytes = with_header(&format!("{json:<72}"), 0);
        bytes.extend((0..=u16::MAX).flat_map(u16::to_le_bytes));
        let model = Checkpoint::from_bytes("w", &bytes).unwrap();
        let written = model.to_bytes().unwrap();
        assert_eq!(written.len(), bytes.len());
        let header = bytes.len() - 131_072;
        for (i, pair) in written[header..].chunks_exact(2).enumerate() {
            let (was, is) = (i as u16, u16::from_le_bytes([pair[0], pair[1]]));
            // A signalling NaN becomes a quiet one.
            assert!(was == is || model.get("w").unwrap().iter().nth(i).unwrap().is_nan(), "{dtype} {was:#06x} -> {is:#06x}");
        }
    }
}

#[test]
fn f32_is_written_back_to_the_bit_with_nan_and_infinities() {
    let values = array![[f32::NAN, f32::INFINITY, -0.0], [f32::MIN_POSITIVE / 8.0, f32::MAX, -f32::INFINITY]];
    let mut model = Checkpoint::new();
    model.insert("w", values.clone(), Dtype::F32).unwrap();
    let back = Checkpoint::from_bytes("w", &model.to_bytes().unwrap()).unwrap().matrix("w").unwrap();
    assert_eq!(back.mapv(f32::to_bits), values.mapv(f32::to_bits));
    let line = check_finite("w", &values).unwrap_err().to_string();
    assert_eq!(line, "tensor 'w': NaN at row 0, column 0; only finite numbers can be ranked or stored");
    let conv = Array4::from_shape_fn((2, 2, 1, 2), |(a, b, _, d)| if (a, b, d) == (1, 1, 0) { f32::INFINITY } else { 0.0 });
    assert!(check_finite("c", &conv).unwrap_err().to_string().starts_with("tensor 'c': inf at row 1, column 2"));
    assert!(check_finite("b", &array![0.0, 1.0, f32::NAN]).unwrap_err().to_string().contains("row 2, column 0"));
    check_finite("e", &Array2::<f32>::zeros((0, 3))).unwrap();
}

#[test]
fn what_is_inserted_is_rounded_at_once_to_what_the_file_will_hold() {
    let mut model = Checkpoint::new();
    model.insert("w", array![[0.1, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]], Dtype::BF16).unwrap();
    let held = model.matrix("w").unwrap();
    assert_eq!(held.row(0).to_vec(), [0.100097656, 1.0, 1.015625]);
    assert_eq!(Checkpoint::from_bytes("w", &model.to_bytes().unwrap()).unwrap().matrix("w").unwrap(), held);
    let line = model.insert("v", array![[0.0, 1.0], [2.0, 7e4]], Dtype::F16).unwrap_err().to_string();
    assert_eq!(line, "dtype: tensor 'v': 70000 at row 1, column 1 is too large for F16");
    assert!(!model.contains("v"));
    model.insert("v", array![[f32::INFINITY]], Dtype::F16).unwrap();
}

#[test]
fn matrices_in_any_layout_are_stored_row_by_row() {
    let values = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let mut model = Checkpoint::new();
    model.insert("w", values.t().to_owned().reversed_axes(), Dtype::F32).unwrap();
    model.insert("t", values.clone().reversed_axes(), Dtype::F32).unwrap();
    let back = Checkpoint::from_bytes("m", &model.to_bytes().unwrap()).unwrap();
    assert_eq!(back.matrix("w").unwrap(), values);
    assert_eq!(back.matrix("t").unwrap(), values.t());
}

#[test]
fn a_convolution_is_a_matrix_of_its_flattened_inputs_and_goes_back_into_its_shape() {
    let mut model = sample();
    let mut matrix = model.matrix("fc1.weight").unwrap();
    assert_eq!(matrix.dim(), (3, 12));
    assert_eq!(matrix[[1, 5]], 17.0);
    matrix[[1, 5]] = -1.0;
    model.set_matrix("fc1.weight", matrix.clone()).unwrap();
    assert_eq!(model.get("fc1.weight").unwrap()[[1, 0, 1, 2]], -1.0);
    assert_eq!(model.get("fc1.weight").unwrap().shape(), [3, 2, 2, 3]);
    let line = model.set_matrix("fc1.weight", matrix.reversed_axes()).unwrap_err().to_string();
    assert_eq!(line, "weight 'fc1.weight': expected shape [3, 12], found [12, 3]");
    assert!(
        model.matrix("fc1.bias").unwrap_err().to_string().ends_with("has shape [3]; a weight matrix has at least 2 dimensions")
    );
    assert!(model.get("fc1.weigth").unwrap_err().to_string().ends_with("did you mean 'fc1.weight'?"));
    assert!(model.insert("__metadata__", array![1.0], Dtype::F32).is_err());
}

#[test]
fn tensors_of_other_types_survive_but_are_no_weights() {
    let json = r#"{"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"w":{"dtype":"F32","shape":[],"data_offsets":[16,20]},"h":{"dtype":"F4","shape":[2,3],"data_offsets":[20,23]},"none":{"dtype":"U8","shape":[0,5],"data_offsets":[23,23]}}     "#;
    let mut bytes = with_header(&format!("{:<1$}", json, json.len().next_multiple_of(8)), 23);
    let start = bytes.len() - 23;
    bytes[start..start + 16].copy_from_slice(&[9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6]);
    let mut model = Checkpoint::from_bytes("m.safetensors", &bytes).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["ids", "w", "h", "none"]);
    let line = model.get("ids").unwrap_err().to_string();
    assert_eq!(line, "m.safetensors: tensor 'ids' is I64; weights are F32, F16 or BF16");
    assert_eq!(model.weights().map(|(n, _)| n).collect::<Vec<_>>(), ["w"]);
    let again = Checkpoint::from_bytes("again", &model.to_bytes().unwrap()).unwrap();
    for name in model.names() {
        assert_eq!(again.info(name).unwrap(), model.info(name).unwrap());
    }
    assert!(again.to_bytes().unwrap().windows(16).any(|w| w == &bytes[start..start + 16]));
    model.remove("ids").unwrap();
    assert!(!model.contains("ids") && model.len() == 3);
    assert!(model.remove("ids").is_err());
}

#[test]
fn masks_lie_beside_their_weights_in_the_published_layout() {
    let mut model = sample();
    let mask = Mask::from_fn(3, 12, |r, c| (r + c) % 3 == 0);
    model.insert_mask("fc1.weight", &mask).unwrap();
    model.insert_mask("fc2.weight", &Mask::empty(2, 3)).unwrap();
    model.insert_mask("fc2.weight", &Mask::full(2, 3)).unwrap();
    let bytes = model.to_bytes().unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = theirs.tensor("fc1.weight.mask").unwrap();
    assert_eq!((view.shape(), view.data()), (&[3, 2][..], &mask.to_bytes()[..]));
    let back = Checkpoint::from_bytes("m.safetensors", &bytes).unwrap();
    assert_eq!(back.metadata()["fc1.weight.mask.cols"], "12");
    assert_eq!(back.mask("fc1.weight").unwrap().unwrap(), mask);
    assert_eq!(back.mask("fc1.bias").unwrap(), None);
    let masks = back.masks().unwrap();
    assert_eq!(masks, [("fc1.weight".to_string(), mask), ("fc2.weight".to_string(), Mask::full(2, 3))]);
    assert_eq!(back.get("fc2.weight").unwrap(), sample().get("fc2.weight").unwrap());
    assert_eq!(back.to_bytes().unwrap(), bytes);

    let line = model.insert_mask("fc2.weight", &Mask::full(3, 2)).unwrap_err().to_string();
    assert_eq!(line, "mask of 'fc2.weight': expected shape [2, 3], found [3, 2]");
    assert!(model.insert_mask("fc3.weight", &Mask::full(3, 2)).is_err());
    assert!(model.insert_mask("fc1.bias", &Mask::full(1, 3)).is_err());
    model.clone().insert_mask("fc1.bias", &Mask::full(3, 1)).unwrap();
    assert!(model.mask("fc3.weight").is_err());
    let line = model.insert("fc2.weight", array![[1.0]], Dtype::F32).unwrap_err().to_string();
    assert_eq!(line, "weight 'fc2.weight' that has a mask: expected shape [2, 3], found [1, 1]");
    model.insert("fc2.weight", Array2::zeros((2, 3)), Dtype::F32).unwrap();
    model.remove_mask("fc2.weight");
    model.remove("fc1.weight").unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["fc2.weight", "fc1.bias"]);
    assert!(model.metadata().keys().all(|k| !k.ends_with(".cols")));
}

#[test]
fn a_mask_that_does_not_fit_its_weight_is_refused_with_both_shapes() {
    let mut model = sample();
    model.insert_mask("fc2.weight", &Mask::full(2, 3)).unwrap();
    let reason = |m: &Checkpoint| m.mask("fc2.weight").unwrap_err().to_string();
    let mut wrong = model.clone();
    wrong.insert_metadata("fc2.weight.mask.cols", "4");
    assert_eq!(
        reason(&wrong),
        "(new checkpoint): tensor 'fc2.weight.mask' has shape [2, 1] and 4 columns; the mask of a 2 x 3 weight has shape [2, 1] and 3"
    );
    assert!(wrong.masks().is_err());
    wrong.insert_metadata("fc2.weight.mask.cols", "three");
    assert!(reason(&wrong).ends_with("has 'three' columns by its metadata, which is no count"));
    let mut float = model.clone();
    float.insert("fc2.weight.mask", array![[7.0], [7.0]], Dtype::F32).unwrap();
    assert!(reason(&float).ends_with("is no mask: masks are U8"));
    let mut half = model.clone();
    half.remove("fc2.weight.mask").unwrap();
    assert!(reason(&half).ends_with("is missing, though the metadata says how many columns it has"));
    let bits = model.to_bytes().unwrap();
    let at = bits.len() - 1;
    let mut past = bits.clone();
    past[at] |= 8;
    assert!(reason(&Checkpoint::from_bytes("m", &past).unwrap()).ends_with("row 1 has a bit set past its last column"));
    let mut orphan = model.clone();
    orphan.insert_metadata("fc9.weight.mask.cols", "3");
    assert!(orphan.masks().is_err());
    let bare = Checkpoint::from_bytes(
        "m",
        &with_header(
            r#"{"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"w.mask":{"dtype":"U8","shape":[1,1],"data_offsets":[8,9]}}"#,
            9,
        ),
    );
    // Bits alone, as a tool leaves them that drops the metadata: the weight says where a row ends.
    assert_eq!(bare.unwrap().mask("w").unwrap(), Some(Mask::empty(1, 2)));
}

#[test]
fn every_way_of_lying_about_a_file_gets_a_line_with_the_numbers() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = |a: &str, b: &str| {
        format!(r#"{{"a":{{"dtype":"U8","shape":[8],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[8],"data_offsets":{b}}}}}"#)
    };
    let header_of = |json: String, data| refusal(&with_header(&json, data));
    assert_eq!(refusal(&[]), "the file is empty; a safetensors file begins with 8 bytes that hold the length of its header");
    assert!(refusal(&[0; 5]).starts_with("the file has 5 bytes;"));
    assert_eq!(
        refusal(&[(1u64 << 63).to_le_bytes(), [b'{'; 8]].concat()),
        "truncated, or not safetensors: the header has 9223372036854775808 bytes, but only 8 follow"
    );
    assert!(refusal(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat()).contains("only 2 follow"));
    assert!(header_of("not json".into(), 0).starts_with("the header is not JSON: expected"));
    assert!(refusal(&0u64.to_le_bytes()).starts_with("the header is not JSON: EOF"));
    assert!(refusal(&with_header("[1, 2]", 0)).starts_with("the header does not list tensors: invalid type: sequence"));
    assert!(refusal(&[&4u64.to_le_bytes()[..], &[b'{', 0xff, 0xfe, b'}']].concat()).starts_with("the header is not JSON"));
    assert!(header_of(one("Q3", "[2]", "[0,8]"), 8).contains("'w': unknown variant `Q3`"));
    assert!(header_of(one("F32", "[-2]", "[0,8]"), 8).contains("'w': invalid value"));
    assert!(header_of(one("F32", "[2.5]", "[0,8]"), 8).contains("'w': invalid type: floating point"));
    assert!(header_of(r#"{"w":{"dtype":"F32"}}"#.into(), 8).contains("'w': missing field"));
    assert!(header_of(r#"{"__metadata__":{"a":1}}"#.into(), 0).contains("'__metadata__': invalid type: integer"));
    assert!(header_of(r#"{"__metadata__":{"a":"1","a":"1"}}"#.into(), 0).contains("the key 'a' stands there twice"));
    assert!(header_of(r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0).contains("'__metadata__' stands there twice"));
    let twice = one("F32", "[2]", "[0,8]");
    let twice = format!("{},{}", &twice[..twice.len() - 1], &twice[1..]);
    assert!(header_of(twice, 8).contains("the name 'w' stands there twice"));
    assert_eq!(header_of(one("F32", "[2]", "[0,8]"), 5), "truncated: the header promises 70 bytes (8 + 54 + 8), the file has 67");
    assert_eq!(header_of(one("F32", "[2]", "[0,8]"), 11), "3 bytes follow the last tensor and belong to none");
    assert_eq!(header_of(one("F32", "[3]", "[0,8]"), 8), "tensor 'w': shape [3] of F32 takes 12 bytes, but 0..8 are 8");
    assert_eq!(header_of(one("F32", "[2]", "[8,0]"), 8), "tensor 'w': its bytes 8..0 end before they begin");
    assert_eq!(header_of(two("[0,8]", "[4,12]"), 16), "tensor 'b', bytes 4..12, overlaps 'a', bytes 0..8");
    assert_eq!(header_of(two("[0,8]", "[0,8]"), 8), "tensor 'b', bytes 0..8, overlaps 'a', bytes 0..8");
    assert_eq!(header_of(two("[0,8]", "[10,18]"), 18), "bytes 8..10, before tensor 'b', belong to no tensor");
    assert!(
        header_of(one("F32", "[4294967296,4294967296,4]", "[0,8]"), 8).contains("no whole number of bytes a machine can hold")
    );
    assert!(
        header_of(one("U8", "[0,4294967296,4294967296]", "[0,0]"), 0).contains("has no elements, and dimensions of more than")
    );
    assert!(header_of(one("F4", "[3]", "[0,2]"), 2).contains("no whole number of bytes"));
    let far = format!("[0,{}]", u64::MAX);
    assert!(header_of(one("U8", &format!("[{}]", u64::MAX), &far), 2).contains("can hold"));
    let vast = header_of(one("U8", "[1000000000000000000]", "[0,1000000000000000000]"), 2);
    assert!(vast.starts_with("truncated: the header promises 1000000000000000"), "{vast}");
    assert!(
        header_of(one("U8", &format!("[{}1]", "1,".repeat(64)), "[0,1]"), 1).contains("has 65 dimensions; at most 64 are read")
    );
    assert!(header_of(format!(r#"{{"{}":0}}"#, "n".repeat(5000)), 0).contains("nnn…'"));
}

#[test]
fn an_empty_checkpoint_and_null_metadata_are_valid() {
    let empty = Checkpoint::new().to_bytes().unwrap();
    assert!(Checkpoint::from_bytes("e", &empty).unwrap().is_empty());
    assert!(Checkpoint::from_bytes("e", &with_header(r#"{"__metadata__":null}"#, 0)).unwrap().metadata().is_empty());
    let mut text = Checkpoint::new();
    text.insert_metadata("a", "b");
    assert_eq!(Checkpoint::from_bytes("e", &text.to_bytes().unwrap()).unwrap().metadata()["a"], "b");
}

#[test]
fn what_is_no_file_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.safetensors");
    for path in [missing.as_path(), folder.path(), Path::new("/dev/zero")] {
        for line in [
            Checkpoint::read(path).unwrap_err().to_string(),
            read_header(path).unwrap_err().to_string(),
            Idx::read(path).unwrap_err().to_string(),
        ] {
            assert!(line.starts_with(&format!("{}: ", path.display())), "{line}");
        }
    }
}

#[test]
fn the_header_of_a_truncated_file_is_refused_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let bytes = sample().to_bytes().unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let line = read_header(&path).unwrap_err().to_string();
    assert!(line.contains("truncated: the header promises") && line.ends_with(&format!("the file has {}", bytes.len() - 1)));
    assert_eq!(Checkpoint::read(&path).unwrap_err().to_string(), line);
}

#[test]
fn dtypes_are_read_in_any_case() {
    assert_eq!("bf16".parse::<Dtype>().unwrap(), Dtype::BF16);
    assert_eq!("F16".parse::<Dtype>().unwrap(), Dtype::F16);
    assert_eq!("f64".parse::<Dtype>().unwrap_err().to_string(), "dtype: 'f64' is none of f32, f16, bf16");
}
