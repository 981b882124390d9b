//! Language models in files: folders, GGUF, tokenizers, and what is measured on texts.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;
#[path = "checkpoints/bounds.rs"]
mod bounds;
#[path = "checkpoints/build.rs"]
mod build;
#[path = "checkpoints/chat.rs"]
mod chat;
#[path = "checkpoints/coded.rs"]
mod coded;
#[path = "checkpoints/exported.rs"]
mod exported;
#[path = "checkpoints/folder.rs"]
mod folder;
#[path = "checkpoints/packed.rs"]
mod packed;
#[path = "checkpoints/gguf.rs"]
mod gguf;
#[path = "checkpoints/imported.rs"]
mod imported;
#[path = "checkpoints/mutated.rs"]
mod mutated;
#[path = "checkpoints/trimmed.rs"]
mod trimmed;
#[path = "checkpoints/words.rs"]
mod words;

use lacuna::io::gguf::{Gguf, import};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The system's allocator, which remembers the most that was asked for at once.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), SeqCst);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), SeqCst);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, SeqCst);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// A tiny Llama as a folder with a tokenizer.
fn byte_level_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("m.gguf"), folder.path().join("model"));
    build::llama().write(&file);
    import(&Gguf::open(&file).unwrap(), &out, None).unwrap();
    (folder, out)
}
