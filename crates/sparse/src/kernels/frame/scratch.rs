//! Memory that products use again and again, at the start of a cache line.

use std::cell::Cell;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// What this thread has at hand.
    static HELD: Cell<[Vec<Line>; 3]> = const { Cell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// Which of the memories of a thread: a product needs one for its strips, one for its sums and one for weights that it widens.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Strips = 0,
    Sums = 1,
    Wide = 2,
}

/// Lines that a thread gives back for later when it drops them.
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
    which: Use,
}

impl Scratch {
    /// `len` numbers, whatever they are.
    pub(crate) fn take(len: usize, which: Use) -> Scratch {
        let mut held = HELD.take();
        let mut lines = std::mem::take(&mut held[which as usize]);
        HELD.set(held);
        let needed = len.div_ceil(16);
        if lines.len() < needed {
            lines.resize(needed, Line([0.0; 16]));
        }
        Scratch { lines, len, which }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut held = HELD.take();
        let place = &mut held[self.which as usize];
        // The largest stays: a task that was begun meanwhile on this thread may have left its own.
        if place.len() < self.lines.len() {
            *place = std::mem::take(&mut self.lines);
        }
        HELD.set(held);
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are arrays of numbers without gaps, and there are enough of them for `len`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
