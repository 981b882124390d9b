//! Masks that other tools leave beside weights, and what only looks like one.

use super::common::*;
use lacuna::io::{Checkpoint, Dtype, Role};
use lacuna::mask::Mask;
use ndarray::{Array2, Array4, array};

fn torch() -> Checkpoint {
    let mut model = Checkpoint::new();
    model.insert("fc.weight_orig", array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], Dtype::F16).unwrap();
    model.insert("fc.weight_mask", array![[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], Dtype::F16).unwrap();
    model.insert("fc.bias", array![0.5, 0.5], Dtype::F32).unwrap();
    model
}

#[test]
fn a_pair_of_torchs_pruning_is_a_weight_with_its_mask() {
    let mut model = torch();
    let old = Mask::from_fn(2, 3, |r, c| (r, c) == (0, 0) || c == 2);
    assert_eq!(model.mask("fc.weight_orig").unwrap(), Some(old.clone()));
    assert_eq!(model.masks().unwrap(), [("fc.weight_orig".to_string(), old)]);
    assert_eq!(model.mask_name("fc.weight_orig").as_deref(), Some("fc.weight_mask"));
    assert_eq!((model.tensor_of("fc.weight").unwrap(), model.tensor_of("fc.bias").unwrap()), ("fc.weight_orig", "fc.bias"));
    assert!(model.tensor_of("fd.weight").unwrap_err().to_string().starts_with("no layer is named 'fd.weight' among 3"));
    let roles: Vec<Role> = model.roles().into_iter().map(|(_, role)| role).collect();
    assert_eq!(roles, [Role::Weight, Role::Mask { of: "fc.weight_orig".into() }, Role::Vector]);
    // A new mask takes the old one's place and form; one of another shape does not.
    let new = Mask::from_fn(2, 3, |_, c| c == 2);
    model.insert_mask("fc.weight_orig", &new).unwrap();
    assert_eq!(model.get("fc.weight_mask").unwrap(), &array![[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]].into_dyn());
    assert_eq!((model.dtype("fc.weight_mask").unwrap(), model.len()), (Dtype::F16, 3));
    assert!(model.insert_mask("fc.weight_orig", &Mask::full(3, 2)).is_err());
    let line = model.insert("fc.weight_orig", array![[1.0]], Dtype::F32).unwrap_err().to_string();
    assert_eq!(line, "weight 'fc.weight_orig' that has a mask: expected shape [2, 3], found [1, 1]");
    let back = Checkpoint::from_bytes("m", &model.to_bytes().unwrap()).unwrap();
    assert_eq!(back.mask("fc.weight_orig").unwrap(), Some(new));
    model.remove("fc.weight_orig").unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["fc.bias"]);
}

#[test]
fn a_mask_of_a_convolution_has_the_shape_of_the_convolution() {
    let mut model = Checkpoint::new();
    let conv = Array4::from_shape_fn((2, 1, 2, 2), |(a, _, c, d)| (4 * a + 2 * c + d) as f32 + 1.0);
    model.insert("conv.weight", conv.clone(), Dtype::F32).unwrap();
    model.insert("conv.mask", conv.mapv(|v| f32::from(v as u8 % 2)), Dtype::BF16).unwrap();
    let mask = model.mask("conv.weight").unwrap().unwrap();
    assert_eq!(mask, Mask::from_fn(2, 4, |_, c| c % 2 == 0));
    model.insert_mask("conv.weight", &Mask::from_fn(2, 4, |r, c| r == 0 && c == 0)).unwrap();
    assert_eq!(model.get("conv.mask").unwrap().shape(), [2, 1, 2, 2]);
    assert_eq!(model.get("conv.mask").unwrap().sum(), 1.0);
}

#[test]
fn what_an_attention_sees_is_no_mask_of_its_weight() {
    let causal = Array2::from_shape_fn((4, 4), |(i, j)| f32::from(u8::from(j <= i)));
    for (path, pruned) in [("h.0.attn", false), ("h.0.attention", false), ("made.0", true)] {
        let mut model = Checkpoint::new();
        model.insert(&format!("{path}.weight"), Array2::<f32>::ones((4, 4)), Dtype::F32).unwrap();
        model.insert(&format!("{path}.mask"), causal.clone(), Dtype::F32).unwrap();
        // A masked autoencoder's layer has such a mask of its weight.
        assert_eq!(model.mask(&format!("{path}.weight")).unwrap().is_some(), pruned, "{path}");
        let role = model.role(&format!("{path}.mask")).unwrap();
        let expected = if pruned { Role::Mask { of: format!("{path}.weight") } } else { Role::Buffer("causal mask") };
        assert_eq!(role, expected, "{path}");
    }
}

#[test]
fn a_mask_of_this_library_goes_before_one_of_another_tool() {
    let mut model = Checkpoint::new();
    let own = Mask::from_fn(2, 3, |r, _| r == 1);
    model.insert("fc.weight", array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], Dtype::F32).unwrap();
    model.insert_mask("fc.weight", &own).unwrap();
    model.insert("fc.weight_mask", array![[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], Dtype::F32).unwrap();
    assert_eq!(model.mask("fc.weight").unwrap(), Some(own));
    let new = Mask::from_fn(2, 3, |r, c| r == 1 && c == 0);
    model.insert_mask("fc.weight", &new).unwrap();
    assert_eq!(model.mask("fc.weight").unwrap(), Some(new));
    assert_eq!(model.get("fc.weight_mask").unwrap().sum(), 3.0, "the other one stays as it was");
    assert!(model.role("fc.weight_mask").unwrap().to_string().contains("called a mask"));
}

#[test]
fn bits_without_their_metadata_are_read_by_the_weights_shape_and_bits_past_it_are_not() {
    let json = |shape: &str| {
        format!(
            r#"{{"w":{{"dtype":"F32","shape":[2,9],"data_offsets":[0,72]}},"w.mask":{{"dtype":"U8","shape":{shape},"data_offsets":[72,76]}}}}"#
        )
    };
    let with = |shape: &str, bits: [u8; 4]| {
        let mut bytes = with_header(&json(shape), 76);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&bits);
        Checkpoint::from_bytes("m", &bytes).unwrap()
    };
    let mut model = with("[2,2]", [0b101, 1, 0, 0]);
    let expected = Mask::from_fn(2, 9, |r, c| r == 0 && [0, 2, 8].contains(&c));
    assert_eq!(model.mask("w").unwrap(), Some(expected.clone()));
    // Written again it has its metadata.
    model.insert_mask("w", &expected).unwrap();
    assert_eq!(model.metadata()["w.mask.cols"], "9");
    for (shape, bits) in [("[2,2]", [0, 2, 0, 0]), ("[4,1]", [0; 4]), ("[1,4]", [0; 4])] {
        let model = with(shape, bits);
        assert_eq!(model.mask("w").unwrap(), None, "{shape} {bits:?}");
        assert!(model.role("w.mask").unwrap().to_string().contains("called a mask, and none"), "{shape}");
        let line = model.clone().insert_mask("w", &expected).unwrap_err().to_string();
        assert!(line.contains("'w.mask'") && line.contains("is no mask of 'w'"), "{line}");
    }
}
