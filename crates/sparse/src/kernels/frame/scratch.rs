//! Memory that products use again and again, at the start of a cache line.

use std::cell::Cell;

/// A cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Numbers, the first of them at the start of a cache line: no vector of them spans two.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    const NONE: Aligned = Aligned { lines: Vec::new(), len: 0 };

    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Aligned {
        Aligned { lines: vec![Line([0.0; 16]); len.div_ceil(16)], len }
    }

    /// The numbers as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let numbers: &[f32] = self;
        // SAFETY: four bytes a number, which any bytes are.
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
    }

    /// The numbers as bytes, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let numbers: &mut [f32] = self;
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
    }
}

impl std::fmt::Debug for Aligned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self[..].fmt(f)
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are arrays of numbers without gaps, and there are enough of them for `len`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

thread_local! {
    /// What this thread has at hand.
    static HELD: Cell<[Aligned; 3]> = const { Cell::new([Aligned::NONE, Aligned::NONE, Aligned::NONE]) };
}

/// Which of the memories of a thread: a product needs one for its strips, one for its sums and one for weights that it widens.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Strips = 0,
    Sums = 1,
    Wide = 2,
}

/// Numbers that a thread gives back for later when it drops them.
pub(crate) struct Scratch {
    numbers: Aligned,
    which: Use,
}

impl Scratch {
    /// `len` numbers, whatever they are.
    pub(crate) fn take(len: usize, which: Use) -> Scratch {
        let mut held = HELD.take();
        let mut numbers = std::mem::take(&mut held[which as usize]);
        HELD.set(held);
        let needed = len.div_ceil(16);
        if numbers.lines.len() < needed {
            numbers.lines.resize(needed, Line([0.0; 16]));
        }
        numbers.len = len;
        Scratch { numbers, which }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut held = HELD.take();
        let place = &mut held[self.which as usize];
        // The largest stays: a task that was begun meanwhile on this thread may have left its own.
        if place.lines.len() < self.numbers.lines.len() {
            *place = std::mem::take(&mut self.numbers);
        }
        HELD.set(held);
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers
    }
}
