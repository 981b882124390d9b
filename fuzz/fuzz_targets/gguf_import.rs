#![no_main]
//! The import of a GGUF file: a folder that opens, or none and nothing beside it.

use lacuna::io::gguf::{Gguf, import};
use lacuna::io::{Dtype, Folder};
use lacuna::lm::Config;
use lacuna_fuzz::{begin, clean, room};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let home = room::emptied("import");
    let path = room::put("import/file.gguf", data);
    let Some(file) = clean(Gguf::open(&path)) else { return };
    let out = home.join("out");
    let dtype = [None, Some(Dtype::F16), Some(Dtype::BF16)][data.len() % 3];
    let imported = clean(import(&file, &out, dtype));
    let left = std::fs::read_dir(&home).expect("a folder that was made").count();
    assert_eq!((out.exists(), left), (imported.is_some(), 1 + usize::from(imported.is_some())));
    let Some(imported) = imported else { return };
    let folder = clean(Folder::open(&out)).expect("an imported folder opens");
    assert_eq!(folder.names().count(), imported.tensors);
    let mut numbers = 0;
    for name in folder.names() {
        numbers += clean(folder.read(name)).expect("an imported tensor is read").len();
    }
    assert_eq!(numbers, imported.parameters);
    clean(Config::of(&folder));
});
