//! The memory that one input may take.
//!
//! A file of some kilobytes that makes the library ask for gigabytes is a finding, also where the system would grant them. The allocator
//! of every target stops the program at a request, or at a sum of requests, that is too large for the input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What any input may ask for at once, in bytes, and what each of its bytes adds.
const ONCE: (usize, usize) = (64 << 20, 64);
/// What may be in use together.
const TOGETHER: usize = 512 << 20;

static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Sets the limit for an input of so many bytes.
pub fn limit(bytes: usize) {
    LIMIT.store(ONCE.0 + ONCE.1 * bytes, Relaxed);
}

struct Guard;

fn take(size: usize) {
    let limit = LIMIT.load(Relaxed);
    let together = IN_USE.fetch_add(size, Relaxed) + size;
    if limit != usize::MAX && (size > limit || together > TOGETHER) {
        LIMIT.store(usize::MAX, Relaxed);
        let most = TOGETHER;
        eprintln!(
            "{size} bytes are asked for at once, {together} together; an input of this size may ask for {limit} and {most}"
        );
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged, or ends the program.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Guard = Guard;
