//! Whole weights in codes of four or eight bits, with a scale, and an offset or none, for each group of inputs of a row.
//!
//! Rows lie side by side, as many as a vector has lanes of 32 bits. Each lane belongs to one row, so that a vector of codes meets the same few numbers of x in all
//! of its lanes, and no sum goes across a vector:
//!
//! ```text
//! block (rows side by side, 32 columns) = lines of 4 bytes a row
//! 4 bits: 4 lines; byte j of a row in line l:  code(8l + j) | code(8l + 4 + j) << 4
//! 8 bits: 8 lines; the bytes of a row in line l:  columns 4l, 4l + 2, 4l + 1, 4l + 3
//! ```
//!
//! With few tokens x is rounded too, to bytes (or words, where codes are bytes) with a step for each 32 numbers, and multiplied in integers (`product`): one
//! such plane where activations have 8 bits, and two or three, each of what the one before it left, for the accuracy of 32 bits. With more tokens, codes are
//! unpacked to panels of `f32` a tile at a time (`unpack`), and multiplied as a dense weight.
//!
//! At masks of no pattern codes lie in steps with places (`windows`) where few are kept, row by row behind bits (`masked`) where many are.

mod slices;
mod input;
mod unpack;
mod product;
mod windows;
mod masked;
mod sparse;

pub(crate) use masked::{CODE_SLACK, MaskedSlices, bytes_of, part_of_mask};
pub(crate) use product::codes_product;
pub(crate) use slices::{BLOCK, CodeSlices, Factors, Offsets, Pattern, Width, place, place_of_step, side_by_side};
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use sparse::by_each_set;
pub(crate) use sparse::{SparseCodeSlices, sparse_codes_product};
pub(crate) use unpack::{column_of, unpack_rows};
pub(crate) use windows::{CodeAt, NONE, WINDOW, WindowSlices, bases, step_size};
