//! idx files, data sets and the embedded digits.

use super::common::*;
use lacuna::data::idx::{Idx, read_images, read_labels};
use lacuna::io::{Checkpoint, Dtype};

use lacuna::data::{Dataset, digits, mnist};
use ndarray::{Array1, Array2, ArrayD};
use std::fs;

#[test]
fn idx_is_read_plain_and_gzip_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..24).collect();
    let bytes = idx(&[2, 3, 4], &data);
    let split = [gzip(&bytes[..9]), gzip(&bytes[9..])].concat();
    for (name, content) in [("plain.gz", bytes.clone()), ("packed", gzip(&bytes)), ("in-two-members", split)] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let images = read_images(&path).unwrap();
        assert_eq!((images.dim(), images[[1, 2, 3]]), ((2, 3, 4), 23));
        assert!(read_labels(&path).unwrap_err().to_string().ends_with("labels have 1 dimension, the file has [2, 3, 4]"));
    }
    let labels = folder.path().join("labels");
    fs::write(&labels, idx(&[3], &[1, 2, 3])).unwrap();
    assert_eq!(read_labels(&labels).unwrap(), [1, 2, 3]);
    assert!(read_images(&labels).is_err());
    assert_eq!(Idx::from_bytes("scalar", &idx(&[], &[5])).unwrap().data(), [5]);
    assert_eq!(Idx::from_bytes("none", &idx(&[0, 7], &[])).unwrap().into_data(), Vec::<u8>::new());
}

#[test]
fn a_lying_idx_file_gets_a_line_with_the_numbers() {
    let line = |bytes: &[u8]| Idx::from_bytes("t", bytes).unwrap_err().to_string();
    let vast = idx(&[u32::MAX, u32::MAX, u32::MAX], &[]);
    assert_eq!(line(&[0, 0]), "t: 2 bytes are too few for idx, which begins with 4 that say what it holds");
    assert_eq!(line(b"{\"a\": 1}"), "t: not idx: it begins with 0x7b 0x22, not with two zero bytes");
    assert_eq!(
        line(&[0, 0, 13, 1, 0, 0, 0, 0]),
        "t: idx elements of type 0x0d (32-bit floats); only 0x08 (unsigned bytes) is read"
    );
    assert_eq!(line(&[0, 0, 8, 3, 0, 0, 0, 1]), "t: truncated: 3 dimensions take 12 bytes, 4 are there");
    assert_eq!(
        line(&idx(&[2, 2], &[1, 2, 3])),
        "t: truncated: dimensions [2, 2] promise 4 elements, but a file of this size holds at most 3"
    );
    assert_eq!(line(&idx(&[2, 2], &[1, 2, 3, 4, 5])), "t: bytes follow the 4 elements that dimensions [2, 2] promise");
    assert!(line(&vast).contains("promise more than 2^64 elements"));
    assert!(line(&gzip(&vast)).contains("promise more than 2^64 elements, but a gzip file of this size holds at most"));
    assert!(line(&gzip(&idx(&[2, 2], &[1, 2, 3]))).ends_with("dimensions [2, 2] promise 4 elements, 3 are there"));
    assert!(line(&gzip(&idx(&[2, 2], &[1, 2, 3, 4, 5]))).contains("bytes follow the 4 elements"));
    // As many dimensions as a byte can say.
    let deep = idx(&[u32::MAX; 255], &[]);
    for file in [deep.clone(), gzip(&deep), idx(&[1; 255], &[1, 2]), gzip(&idx(&[1; 255], &[]))] {
        assert!(line(&file).contains("dimensions [") && line(&file).chars().count() < 400, "{}", line(&file));
    }
    let packed = gzip(&idx(&[2, 2], &[1, 2, 3, 4]));
    assert_eq!(line(&packed[..packed.len() - 4]), "t: truncated: the gzip data end too early");
    assert_eq!(line(&packed[..2]), "t: truncated: the gzip data end too early");
    assert!(line(&[&packed[..], b"more"].concat()).contains("gzip"));
    let mut wrong = packed.clone();
    let at = wrong.len() - 6;
    wrong[at] ^= 1;
    assert!(line(&wrong).starts_with("t: damaged gzip data: "), "{}", line(&wrong));
}

#[test]
fn a_gzip_bomb_is_not_unpacked() {
    let mut bomb = idx(&[10], &[]);
    bomb.resize(16 << 20, 0);
    let packed = gzip(&bomb);
    // The second half of it is missing, which only unpacking would find.
    let line = Idx::from_bytes("bomb", &packed[..packed.len() / 2]).unwrap_err().to_string();
    assert_eq!(line, "bomb: bytes follow the 10 elements that dimensions [10] promise");
}

fn mnist_folder(images: usize, labels: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["train", "t10k"] {
        let pixels: Vec<u8> = (0..images * 6).map(|i| (i * 51 % 256) as u8).collect();
        let path = folder.path().join(format!("{part}-images-idx3-ubyte"));
        fs::write(path, idx(&[images as u32, 2, 3], &pixels)).unwrap();
        let path = folder.path().join(format!("{part}-labels-idx1-ubyte.gz"));
        fs::write(path, gzip(&idx(&[labels.len() as u32], labels))).unwrap();
    }
    folder
}

#[test]
fn four_files_make_a_training_and_a_test_set() {
    let folder = mnist_folder(3, &[4, 0, 9]);
    let (train, test) = mnist(folder.path()).unwrap();
    assert_eq!((train.len(), train.shape(), train.classes()), (3, (1, 2, 3), 10));
    assert_eq!(train.labels(), [4, 0, 9]);
    assert_eq!(train.x()[[0, 5]], 255.0 / 255.0);
    assert_eq!(train.x()[[0, 1]], 51.0 / 255.0);
    assert_eq!(train, test);
}

#[test]
fn sets_that_do_not_fit_together_are_refused() {
    let line = |folder: &tempfile::TempDir| mnist(folder.path()).unwrap_err().to_string();
    assert!(line(&mnist_folder(3, &[4, 0])).ends_with("train-labels-idx1-ubyte.gz: 2 labels for 3 images"));
    assert!(line(&mnist_folder(2, &[4, 10])).ends_with("label 10 of image 1 is not one of the ten classes 0 to 9"));
    let folder = mnist_folder(1, &[1]);
    fs::write(folder.path().join("t10k-images-idx3-ubyte"), idx(&[1, 3, 2], &[0; 6])).unwrap();
    assert!(line(&folder).ends_with("training images are 2 x 3, test images 3 x 2"));
}

#[test]
fn a_missing_set_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let line = mnist(folder.path().join("fashion-mnist")).unwrap_err().to_string();
    assert!(line.contains("fashion-mnist/train-images-idx3-ubyte: not there"), "{line}");
    assert!(line.contains("scripts/fetch_data.sh fashion-mnist"), "{line}");
    assert!(mnist(folder.path().join("mnist")).unwrap_err().to_string().contains("scripts/fetch_data.sh mnist"));
}

#[test]
fn the_fetched_sets_are_whole() {
    for set in ["mnist", "fashion-mnist"] {
        let folder = lacuna::data::data_dir().join(set);
        if !folder.exists() {
            eprintln!("skipped: {} is not there", folder.display());
            continue;
        }
        let (train, test) = mnist(&folder).unwrap();
        assert_eq!((train.len(), test.len(), train.shape()), (60_000, 10_000, (1, 28, 28)));
        let counts = if set == "mnist" { vec![980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009] } else { vec![1000; 10] };
        assert_eq!(test.class_counts(), counts);
        // The means everyone normalises by.
        let mean = train.x().iter().map(|v| f64::from(*v)).sum::<f64>() / train.x().len() as f64;
        assert!((mean - if set == "mnist" { 0.1307 } else { 0.2860 }).abs() < 5e-5, "{mean}");
    }
}

#[test]
fn the_embedded_digits_are_those_of_the_source() {
    let digits = digits();
    assert_eq!((digits.len(), digits.features(), digits.shape()), (1797, 64, (1, 8, 8)));
    assert_eq!(digits.class_counts(), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    // Summed over the original file.
    assert_eq!(digits.x().iter().map(|v| f64::from(*v) * 16.0).sum::<f64>(), 561_718.0);
    assert!(digits.x().iter().all(|v| (0.0..=1.0).contains(v) && (v * 16.0).fract() == 0.0));
    let first = [0., 0., 5., 13., 9., 1., 0., 0., 0., 0., 13., 15., 10., 15., 5., 0.];
    assert_eq!(digits.x().row(0).iter().take(16).map(|v| v * 16.0).collect::<Vec<_>>(), first);
}

#[test]
fn a_data_set_checks_what_it_is_made_of() {
    let x = Array2::<f32>::zeros((2, 4));
    let line = |e: lacuna::Result<Dataset>| e.unwrap_err().to_string();
    assert_eq!(line(Dataset::new(x.clone(), vec![0], 2, (1, 2, 2))), "labels: expected shape [2], found [1]");
    assert_eq!(line(Dataset::new(x.clone(), vec![0, 2], 2, (1, 2, 2))), "labels: label 2 of row 1 is not below the 2 classes");
    assert_eq!(
        line(Dataset::new(x.clone(), vec![0, 1], 2, (3, 2, 2))),
        "samples of 4 features: expected shape [4], found [3, 2, 2]"
    );
    assert!(Dataset::new(x.clone(), vec![0, 1], 2, (usize::MAX, 2, 2)).is_err());
    assert!(line(Dataset::new(x + f32::NAN, vec![0, 1], 2, (1, 2, 2))).contains("samples: NaN at row 0, column 0"));
    assert!(Dataset::new(Array2::zeros((0, 4)), vec![], 2, (1, 2, 2)).unwrap().is_empty());
}

#[test]
fn a_split_holds_every_sample_once() {
    let digits = digits();
    let held: Vec<usize> = (0..digits.len()).rev().step_by(7).collect();
    let (rest, held_out) = digits.split(&held);
    assert_eq!(rest.len() + held_out.len(), digits.len());
    assert_eq!(held_out, digits.select(&held));
    let sum = |set: &Dataset| set.x().iter().map(|v| f64::from(*v)).sum::<f64>();
    assert_eq!(sum(&rest) + sum(&held_out), sum(&digits));
    assert!(std::panic::catch_unwind(|| digits.split(&[3, 3])).is_err());
    assert!(std::panic::catch_unwind(|| digits.select(&[1797])).is_err());
}

#[test]
fn a_zero_dimensional_and_a_vector_weight_come_back() {
    let mut model = Checkpoint::new();
    model.insert("scale", ndarray::arr0(2.5), Dtype::F32).unwrap();
    model.insert("none", Array1::<f32>::zeros(0), Dtype::F16).unwrap();
    let back = Checkpoint::from_bytes("m", &model.to_bytes().unwrap()).unwrap();
    assert_eq!(back.get("scale").unwrap(), &ArrayD::from_elem(vec![], 2.5));
    assert_eq!(back.get("none").unwrap().shape(), [0]);
}
