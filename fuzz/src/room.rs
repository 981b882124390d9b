//! Files for readers that want a path: in memory, in a folder of this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder of this process: in `LACUNA_FUZZ_ROOM`, which `scripts/fuzz.sh` makes and takes away, or where the system keeps files in memory.
pub fn room() -> &'static Path {
    static ROOM: OnceLock<PathBuf> = OnceLock::new();
    ROOM.get_or_init(|| {
        let parent = std::env::var_os("LACUNA_FUZZ_ROOM").map(PathBuf::from).unwrap_or_else(|| {
            let shared = PathBuf::from("/dev/shm");
            if shared.is_dir() { shared } else { std::env::temp_dir() }
        });
        let room = parent.join(format!("lacuna-fuzz-{}", std::process::id()));
        fs::create_dir_all(&room).expect("a folder in memory");
        room
    })
}

/// Writes a file into the room.
pub fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = room().join(name);
    fs::write(&path, bytes).expect("a file in memory");
    path
}

/// A folder of the room, empty.
pub fn emptied(name: &str) -> PathBuf {
    let path = room().join(name);
    remove(&path);
    fs::create_dir(&path).expect("a folder in memory");
    path
}

/// Removes a file or folder, if it is there.
pub fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}
