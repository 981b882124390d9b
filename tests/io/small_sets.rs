//! The MONK's problems, tables of numbers, and images cut and scaled.

use lacuna::data::{Dataset, Monk, Standard, table};
use lacuna::rng::Seed;
use ndarray::{Array2, array};
use std::fs;

/// The attributes that a row of 17 inputs stands for, and what the rules say of them, written out once more.
fn rule(problem: usize, row: &[f32]) -> usize {
    let mut from = 0;
    let a: Vec<usize> = [3, 3, 2, 3, 4, 2]
        .into_iter()
        .map(|n| {
            let part = &row[from..from + n];
            assert_eq!(part.iter().sum::<f32>(), 1.0, "one value of each attribute: {row:?}");
            from += n;
            part.iter().position(|v| *v == 1.0).unwrap() + 1
        })
        .collect();
    usize::from(match problem {
        1 => a[0] == a[1] || a[4] == 1,
        2 => a.iter().filter(|v| **v == 1).count() == 2,
        _ => (a[4] == 3 && a[3] == 1) || (a[4] != 4 && a[1] != 3),
    })
}

#[test]
fn drawn_monks_have_the_published_sizes_rules_and_wrong_labels() {
    for (problem, samples, wrong, positive) in [(Monk::One, 124, 0, 216), (Monk::Two, 169, 0, 142), (Monk::Three, 122, 6, 228)] {
        let n = problem.number();
        let monks = problem.sample(Seed(3)).unwrap();
        assert_eq!((monks.train.len(), monks.test.len(), monks.from_files), (samples, 432, false));
        let mistaken = |set: &Dataset| {
            let rows = set.x().rows().into_iter().zip(set.labels());
            rows.filter(|(row, label)| rule(n, row.as_slice().unwrap()) != **label).count()
        };
        assert_eq!((mistaken(&monks.train), mistaken(&monks.test)), (wrong, 0), "MONK {n}");
        assert_eq!(monks.test.class_counts(), [432 - positive, positive], "MONK {n}");
        let mut rows: Vec<Vec<u8>> = monks.train.x().rows().into_iter().map(|r| r.iter().map(|v| *v as u8).collect()).collect();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), samples, "no sample comes twice");
        assert_ne!(monks.train, problem.sample(Seed(4)).unwrap().train);
        assert_eq!(monks.train, problem.sample(Seed(3)).unwrap().train);
    }
}

#[test]
fn a_table_is_read_and_a_damaged_one_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter.csv");
    let error = |text: &str| {
        fs::write(&path, text).unwrap();
        table(&path).unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
    };
    assert_eq!(
        table(&path).unwrap_err().to_string(),
        format!("{}: not there; scripts/fetch_data.sh letter fetches it", path.display())
    );
    assert_eq!(error("a,b\n1,2\n"), "FILE: line 1: the header has no columns that end in 'class'");
    assert_eq!(error("a,class\n"), "FILE: line 1: no sample follows the header");
    assert_eq!(error("a,b,class\n1,2,x\n\n1,x\n"), "FILE: line 4: 2 fields where the header has 3");
    assert_eq!(error("a,class\nNaN,x\n"), "FILE: line 2: 'NaN' is not a number");
    fs::write(&path, "a,b,class\n1,2,z\n3,4.5,grey soil\n-1e3,0,z\n").unwrap();
    let set = table(&path).unwrap();
    assert_eq!(set.x(), array![[1.0, 2.0], [3.0, 4.5], [-1000.0, 0.0]]);
    assert_eq!((set.labels(), set.classes(), set.shape()), (&[1, 0, 1][..], 2, (1, 1, 2)));
}

#[test]
fn images_are_cut_framed_and_scaled_channel_by_channel() {
    let x = Array2::from_shape_fn((2, 24), |(n, i)| (100 * n + i) as f32);
    let set = Dataset::new(x, vec![0, 1], 2, (2, 3, 4)).unwrap();
    let framed = set.centred(5, 6, -1.0).unwrap();
    assert_eq!(framed.shape(), (2, 5, 6));
    assert_eq!(framed.centred(3, 4, 0.0).unwrap(), set, "framing and cutting undo each other");
    assert_eq!(framed.x().iter().filter(|v| **v == -1.0).count(), 2 * 2 * (30 - 12));
    // Scaling keeps the mean of a channel, and by a whole number it is the mean of blocks.
    for (h, w) in [(3, 2), (2, 3), (1, 1), (5, 7)] {
        let small = set.resized(h, w).unwrap();
        for n in 0..2 {
            for c in 0..2 {
                let mean = |d: &Dataset, size: usize| (0..size).map(|i| d.x()[[n, c * size + i]]).sum::<f32>() / size as f32;
                assert!((mean(&small, h * w) - mean(&set, 12)).abs() < 1e-3, "{h} x {w}");
            }
        }
    }
    let halves = set.resized(3, 2).unwrap();
    assert_eq!(halves.x().row(0).to_vec()[..6], [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]);
    assert!(set.resized(0, 2).unwrap_err().to_string().starts_with("size of images: 0 x 2"));
}

#[test]
fn standardised_columns_have_mean_0_and_deviation_1_unless_they_hardly_vary() {
    let x = Seed(5).stream("x").normal_array(200, 3, 4.0) + 7.0;
    let mut x = x;
    x.column_mut(2).fill(3.0);
    let each = Standard::each(&x, 0.5).apply(&x);
    for column in [0, 1] {
        let (mean, sd) = (each.column(column).mean().unwrap(), each.column(column).std(0.0));
        assert!(mean.abs() < 1e-4 && (sd - 1.0).abs() < 1e-4, "{mean} {sd}");
    }
    assert!(each.column(2).iter().all(|v| *v == 0.0));
    let whole = Standard::whole(&x).apply(&x);
    assert!(whole.mean().unwrap().abs() < 1e-4 && (whole.std(0.0) - 1.0).abs() < 1e-4);
}
