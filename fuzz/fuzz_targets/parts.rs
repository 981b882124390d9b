#![no_main]
//! The constructors of all storages: parts that pass multiply as their dense weight, go through a file, and are what compressing makes of it.

use half::{bf16, f16};
use lacuna::io::Checkpoint;
use lacuna::mask::Mask;
use lacuna::sparse::Stored;
use lacuna::sparse::{Bitmask, Bsr, Compress, Csr, LinearOp, Nm, Sell, TileCsr, TilePairs};
use lacuna::{Error, Result};
use lacuna_fuzz::feed::{CsrParts, Feed, Part};
use lacuna_fuzz::{begin, check, clean};
use libfuzzer_sys::fuzz_target;

/// Holds a storage against its file, its mask and its dense weight. `again` compresses.
fn held<S: Stored + PartialEq + std::fmt::Debug>(
    op: Result<S>,
    mask: impl Fn(&S) -> Mask,
    again: impl Fn(&ndarray::Array2<f32>, &Mask) -> Result<Box<dyn LinearOp>>,
) {
    let Some(op) = clean(op) else { return };
    let (rows, cols) = op.shape();
    check::products(&op);
    let mut file = Checkpoint::new();
    file.insert_storage("w", &op).expect("an empty file takes a storage");
    let read = Checkpoint::from_bytes("file", &file.to_bytes().expect("written")).and_then(|file| file.storage_as::<S>("w"));
    if u32::try_from(rows.max(cols)).is_ok() {
        // Not a number is equal to none.
        let read = read.expect("what was written can be read");
        assert!(read == op || format!("{op:?}").contains("NaN"), "{read:?} is not {op:?}");
    }
    if rows.checked_mul(cols).is_none_or(|n| n > 1 << 14) || rows.max(cols) > 1 << 14 {
        return;
    }
    let mask = mask(&op);
    assert_eq!((mask.dim(), mask.kept()), ((rows, cols), op.nnz()));
    let dense = op.to_dense();
    if let Ok(new) = again(&dense, &mask) {
        let same = new.to_dense().iter().zip(&dense).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
        assert!(same && new.nnz() == op.nnz(), "{:?} is not {dense:?}", new.to_dense());
    }
}

fn boxed<S: LinearOp + 'static>(op: Result<S>) -> Result<Box<dyn LinearOp>> {
    op.map(|op| Box::new(op) as Box<dyn LinearOp>)
}

macro_rules! of_values {
    ($values:expr, $feed:expr, $t:ident, $again:expr) => {
        match $values {
            0 => held::<$t<f32>>($t::new(Part::read($feed)), $t::mask, $again),
            1 => held::<$t<bf16>>($t::new(Part::read($feed)), $t::mask, $again),
            2 => held::<$t<f16>>($t::new(Part::read($feed)), $t::mask, $again),
            _ => held::<$t<i8>>($t::new(Part::read($feed)), $t::mask, $again),
        }
    };
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let mut feed = Feed(data);
    let (format, values) = (feed.byte(), feed.byte() % 4);
    let none = |_: &ndarray::Array2<f32>, _: &Mask| Err(Error::invalid_option("format", "is not compressed again"));
    match format % 7 {
        0 => {
            let CsrParts { rows, cols, offsets, indices, values } = Part::read(&mut feed);
            held::<Csr>(Csr::new(rows, cols, offsets, indices, values), Csr::mask, |w, m| boxed(Csr::compress(w, m)));
        }
        1 => of_values!(values, &mut feed, TileCsr, |w, m| boxed(TileCsr::<f32>::compress(w, m))),
        2 => of_values!(values, &mut feed, TilePairs, |w, m| boxed(TilePairs::<f32>::compress(w, m))),
        3 => of_values!(values, &mut feed, Bitmask, |w, m| boxed(Bitmask::<f32>::compress(w, m))),
        4 => of_values!(values, &mut feed, Sell, |w, m| boxed(Sell::<f32>::compress(w, m))),
        5 => of_values!(values, &mut feed, Nm, none),
        _ => of_values!(values, &mut feed, Bsr, none),
    }
});
