//! What all products share.
//!
//! A storage shows its weights through [`Rows`]; `few` multiplies a few tokens, `strip` more, with `turn` between arrays of tokens and strips.

mod awake;
mod scratch;
mod tasks;
mod epilogue;
mod width;
mod turn;
mod rows;
mod few;
mod strip;

pub use awake::awake;
pub(crate) use awake::is_awake;
pub use epilogue::Epilogue;
pub(crate) use epilogue::Out;
pub(crate) use few::{AHEAD, ask, ask_codes, few_tokens};
pub(crate) use rows::{RowLists, Rows, Walk};
pub(crate) use scratch::{Aligned, Scratch, Use};
pub(crate) use strip::{Sums, check, product};
pub(crate) use tasks::{large_tasks, tasks};
pub(crate) use turn::{turn_in, turn_out};
pub(crate) use width::{Strip, strips};
