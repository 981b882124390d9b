//! Selection works beside the scores in bounded memory, counted by the allocator.

use lacuna::mask::{Pattern, Scope, select};
use lacuna::rng::Seed;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The system's allocator, counting the bytes in use and their peak.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(IN_USE.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn selecting_half_of_a_large_matrix_takes_less_than_the_scores_and_a_third_beside_them() {
    let scores = Seed(1).stream("scores").normal_array(4096, 2048, 1.0);
    let bytes = 4 * scores.len();
    for (pattern, scope) in
        [("unstructured", Scope::Layer), ("unstructured", Scope::Row), ("2:4", Scope::Layer), ("block4x1", Scope::Layer)]
    {
        let shape: Pattern = pattern.parse().unwrap();
        let budget = shape.budget(4096, 2048, 0.5).unwrap();
        let before = IN_USE.load(SeqCst);
        PEAK.store(before, SeqCst);
        let mask = select(&scores, shape, scope, budget).unwrap();
        let beside = PEAK.load(SeqCst) - before;
        assert_eq!(mask.kept(), scores.len() / 2);
        assert!(10 * beside <= 13 * bytes, "{pattern} in {scope:?} scope took {beside} bytes beside {bytes} of scores");
        if shape == Pattern::Unstructured {
            assert!(4 * beside <= bytes, "{pattern} in {scope:?} scope took {beside} bytes beside {bytes} of scores");
        }
    }
}
