//! Weights in codes of a few bits: every layout there and back, against decoders written down here, and what does not fit.

use crate::build::numbers;
use lacuna::io::{Checkpoint, Dtype, Folder, FolderWriter, Layout, QuantLayout};
use lacuna::mask::Mask;
use lacuna::quantize::{CodeGrid, Codes, Granularity, ScaleType};
use ndarray::{Array2, Ix2};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A weight `(out, in)` in codes of a grid.
pub fn codes(shape: (usize, usize), grid: CodeGrid) -> Codes {
    let weight: Array2<f32> = numbers("coded", &[shape.0, shape.1], 0.5).into_dimensionality::<Ix2>().unwrap();
    let (steps, group) = (grid.fit_all(&weight).unwrap(), grid.check(shape.1).unwrap());
    let codes = Array2::from_shape_fn(shape, |(r, c)| grid.code(steps[[r, c / group]], weight[[r, c]]));
    Codes::new(grid, codes, &steps).unwrap()
}

/// A folder with the weight `fc.weight` in codes, and a norm beside.
pub fn written(root: &Path, layout: QuantLayout, codes: &Codes, scales: ScaleType, said: Value) -> PathBuf {
    let dir = root.join("coded");
    let (rows, cols) = codes.dim();
    let tensors = [("fc.weight".to_string(), Dtype::BF16, vec![rows, cols]), ("norm.weight".to_string(), Dtype::F32, vec![3])];
    let mut plan = Layout::new(tensors, 1 << 30).unwrap();
    let grid = CodeGrid { bits: codes.bits, symmetric: codes.symmetric, granularity: codes.granularity, scales };
    plan.codes("fc.weight", layout, grid).unwrap();
    let mut writer = FolderWriter::create(&dir, plan).unwrap();
    writer.write_codes("fc.weight", layout, codes, scales).unwrap();
    writer.write("norm.weight", &ndarray::array![1.0, 2.0, 3.0]).unwrap();
    assert_eq!(writer.read_codes("fc.weight", layout, (rows, cols), grid).unwrap(), *codes);
    let config = json!({"model_type": "llama", "quantization_config": said});
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    dir
}

/// What a config says of a layout, as far as it is read.
pub fn said(layout: QuantLayout, bits: u32) -> Value {
    match layout {
        QuantLayout::CompressedTensors | QuantLayout::IntQuantized => {
            json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": bits}}}})
        }
        QuantLayout::Gptq => json!({"quant_method": "gptq", "bits": bits, "checkpoint_format": "gptq_v2"}),
        QuantLayout::Awq => json!({"quant_method": "awq", "bits": bits, "version": "gemm"}),
    }
}

#[test]
fn every_layout_gives_back_the_codes_that_were_written() {
    for layout in QuantLayout::ALL {
        for bits in [2, 3, 4, 8] {
            for symmetric in [true, false] {
                for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(32), Granularity::Group(16)] {
                    for scales in [ScaleType::F16, ScaleType::BF16, ScaleType::F32] {
                        let grid = CodeGrid { bits, symmetric, granularity, scales };
                        if layout.check_shape((32, 64), grid).is_err() {
                            continue;
                        }
                        let root = tempfile::tempdir().unwrap();
                        let codes = codes((32, 64), grid);
                        let dir = written(root.path(), layout, &codes, scales, said(layout, bits));
                        let folder = Folder::open(&dir).unwrap();
                        let case = format!("{layout} {bits} {symmetric} {granularity} {scales:?}");
                        assert_eq!(folder.names().collect::<Vec<_>>(), ["norm.weight", "fc.weight"], "{case}");
                        assert!(folder.is_coded("fc.weight") && !folder.is_pruned() && !folder.is_coded("norm.weight"));
                        let found = folder.codes("fc.weight").unwrap().unwrap();
                        assert_eq!(
                            (&found.codes, &found.scales, &found.zeros),
                            (&codes.codes, &codes.scales, &codes.zeros),
                            "{case}"
                        );
                        assert_eq!(folder.matrix("fc.weight", (32, 64)).unwrap(), codes.to_dense(), "{case}");
                        assert_eq!(folder.info("fc.weight").unwrap().dtype, format!("I{bits}"), "{case}");
                        assert_eq!(folder.mask("fc.weight").unwrap(), None);
                    }
                }
            }
        }
    }
}

/// The words of a tensor of a folder's file.
fn words(dir: &Path, name: &str) -> (Vec<usize>, Vec<u32>) {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let entry = &header[name];
    assert_eq!(entry["dtype"], "I32", "{name}");
    let at = |i: usize| 8 + size + entry["data_offsets"][i].as_u64().unwrap() as usize;
    let shape = entry["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    (shape, bytes[at(0)..at(1)].chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
}

#[test]
fn words_hold_codes_where_other_tools_look_for_them() {
    let root = tempfile::tempdir().unwrap();
    let grid = CodeGrid::new(4, Granularity::Group(32)).asymmetric().scales(ScaleType::F16);
    let codes = codes((16, 64), grid);
    let code = |r: usize, c: usize| u32::from(codes.codes[[r, c]]);
    let zero = |r: usize, g: usize| codes.zeros[[r, g]] as u32;
    let dir =
        written(root.path(), QuantLayout::CompressedTensors, &codes, ScaleType::F16, said(QuantLayout::CompressedTensors, 4));
    let (shape, packed) = words(&dir, "fc.weight_packed");
    assert_eq!(shape, [16, 8]);
    (0..16).for_each(|r| (0..64).for_each(|c| assert_eq!(packed[r * 8 + c / 8] >> (4 * (c % 8)) & 15, code(r, c))));
    let (shape, packed) = words(&dir, "fc.weight_zero_point");
    assert_eq!(shape, [2, 2], "packed along the outputs");
    (0..16).for_each(|r| (0..2).for_each(|g| assert_eq!(packed[r / 8 * 2 + g] >> (4 * (r % 8)) & 15, zero(r, g))));

    let root = tempfile::tempdir().unwrap();
    let dir = written(root.path(), QuantLayout::Gptq, &codes, ScaleType::F16, said(QuantLayout::Gptq, 4));
    let (shape, packed) = words(&dir, "fc.qweight");
    assert_eq!(shape, [8, 16]);
    (0..16).for_each(|r| (0..64).for_each(|c| assert_eq!(packed[c / 8 * 16 + r] >> (4 * (c % 8)) & 15, code(r, c))));
    let (shape, packed) = words(&dir, "fc.qzeros");
    assert_eq!(shape, [2, 2]);
    (0..16).for_each(|r| (0..2).for_each(|g| assert_eq!(packed[g * 2 + r / 8] >> (4 * (r % 8)) & 15, zero(r, g))));
    assert_eq!(words(&dir, "fc.g_idx").1, (0..64).map(|c| c / 32).collect::<Vec<u32>>());
    // The first version stores zero points less one.
    let older = json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq"});
    let config = json!({"model_type": "llama", "quantization_config": older});
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let folder = Folder::open(&dir).unwrap();
    let found = folder.matrix("fc.weight", (16, 64)).unwrap();
    for ((r, c), w) in found.indexed_iter() {
        let (scale, zero) = (codes.scales[[r, c / 32]], codes.zeros[[r, c / 32]] + 1.0);
        assert_eq!(*w, scale * (f32::from(codes.codes[[r, c]]) - zero));
    }

    let root = tempfile::tempdir().unwrap();
    let dir = written(root.path(), QuantLayout::Awq, &codes, ScaleType::F16, said(QuantLayout::Awq, 4));
    let (shape, packed) = words(&dir, "fc.qweight");
    assert_eq!(shape, [64, 2]);
    let order = [0, 2, 4, 6, 1, 3, 5, 7];
    for c in 0..64 {
        for w in 0..2 {
            (0..8).for_each(|i| assert_eq!(packed[c * 2 + w] >> (4 * i) & 15, code(8 * w + order[i], c)));
        }
    }
}

#[test]
fn groups_by_an_index_are_read_and_have_no_codes_of_neighbours() {
    let root = tempfile::tempdir().unwrap();
    let grid = CodeGrid::new(4, Granularity::Group(32)).scales(ScaleType::F16);
    let codes = codes((8, 64), grid);
    let dir = written(root.path(), QuantLayout::Gptq, &codes, ScaleType::F16, said(QuantLayout::Gptq, 4));
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let index: Vec<u8> = (0..64u32).flat_map(|c| (c / 32).to_le_bytes()).collect();
    let at = bytes.windows(index.len()).position(|w| w == index).unwrap();
    // Every other input in the second group.
    let mixed: Vec<u8> = (0..64u32).flat_map(|c| (c % 2).to_le_bytes()).collect();
    bytes[at..at + mixed.len()].copy_from_slice(&mixed);
    fs::write(&path, &bytes).unwrap();
    let folder = Folder::open(&dir).unwrap();
    assert_eq!(folder.codes("fc.weight").unwrap(), None);
    let found = folder.matrix("fc.weight", (8, 64)).unwrap();
    assert!(found.indexed_iter().all(|((r, c), w)| *w == codes.scales[[r, c % 2]] * (f32::from(codes.codes[[r, c]]) - 8.0)));
    bytes[at] = 9;
    fs::write(&path, &bytes).unwrap();
    let line = Folder::open(&dir).unwrap().matrix("fc.weight", (8, 64)).unwrap_err().to_string();
    assert!(line.ends_with("tensor 'fc.g_idx' puts input 0 in group 9 of 2"), "{line}");
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let grid = CodeGrid::new(4, Granularity::Group(32)).scales(ScaleType::F16);
    let codes = codes((8, 64), grid);
    let root = tempfile::tempdir().unwrap();
    let dir =
        written(root.path(), QuantLayout::CompressedTensors, &codes, ScaleType::F16, said(QuantLayout::CompressedTensors, 4));
    let with = |said: Value| {
        fs::write(dir.join("config.json"), json!({"model_type": "llama", "quantization_config": said}).to_string()).unwrap();
        Folder::open(&dir)
    };
    let line = with(said(QuantLayout::CompressedTensors, 8)).unwrap_err().to_string();
    assert!(
        line.contains("tensor 'fc.weight_shape' says 8 x 64, and weight_packed holds 8 x 8 words of codes of [8] bits"),
        "{line}"
    );
    // A config that speaks of nothing that is read leaves tensors what they are.
    let folder = with(json!({"quant_method": "bitsandbytes"})).unwrap();
    assert!(!folder.contains("fc.weight") && folder.contains("fc.weight_packed"));
}

#[test]
fn packing_makes_weights_in_codes_whole_and_keeps_their_masks() {
    let root = tempfile::tempdir().unwrap();
    let grid = CodeGrid::new(3, Granularity::Group(16)).scales(ScaleType::F32);
    let codes = codes((8, 32), grid);
    let dir =
        written(root.path(), QuantLayout::CompressedTensors, &codes, ScaleType::F32, said(QuantLayout::CompressedTensors, 3));
    let mut masked = codes.clone();
    let mask = Mask::from_fn(8, 32, |r, c| (r + c) % 2 == 0);
    masked.drop_by(&mask);
    assert_eq!(mask.dropped_nonzeros(&masked.to_dense()), 0);
    let whole = root.path().join("whole");
    lacuna::io::repack(&Folder::open(&dir).unwrap(), &whole, lacuna::io::Packing::Whole, |_, _| {}).unwrap().finish().unwrap();
    let folder = Folder::open(&whole).unwrap();
    assert_eq!(folder.matrix("fc.weight", (8, 32)).unwrap(), codes.to_dense());
    assert!(folder.packed().next().is_none() && folder.masks().is_none() && !folder.config().contains_key("quantization_config"));
    let file = Checkpoint::read(whole.join("model.safetensors")).unwrap();
    assert_eq!(file.dtype("fc.weight").unwrap(), Dtype::F32);
    let csr = "csr".parse().unwrap();
    let line = lacuna::io::repack(&Folder::open(&dir).unwrap(), root.path().join("csr"), csr, |_, _| {}).unwrap_err().to_string();
    assert!(line.starts_with("save: weight 'fc.weight' is in codes of a few bits"), "{line}");
}
