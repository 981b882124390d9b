#![no_main]
//! Model folders: config, index, shards, packed weights and masks. What opens is read, copied and packed anew as the same.

use lacuna::io::folder::Packing;
use lacuna::io::{Folder, FolderWriter, Layout, repack};
use lacuna::sparse::Format;
use lacuna_fuzz::{begin, check, clean, frame, room};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// The files of the letters that stand before the parts of an input; those of capitals are safetensors.
const FILES: [(u8, &str); 7] = [
    (b'c', "config.json"),
    (b'i', "model.safetensors.index.json"),
    (b'g', "generation_config.json"),
    (b'W', "model.safetensors"),
    (b'A', "model-00001-of-00002.safetensors"),
    (b'B', "model-00002-of-00002.safetensors"),
    (b'M', "masks.safetensors"),
];

/// The numbers of a weight; few bytes of a packed one may state many.
fn numbers(folder: &Folder, name: &str) -> Option<Vec<u32>> {
    let shape = folder.shape(name).expect("a name that is listed");
    if shape.iter().product::<usize>() > 1 << 14 {
        return None;
    }
    let values = clean(folder.read(name))?;
    assert_eq!(values.shape(), shape);
    Some(values.iter().map(|v| v.to_bits()).collect())
}

fn read(folder: &Folder) {
    for name in folder.names() {
        let whole = numbers(folder, name);
        let mut streamed = Vec::new();
        if let Some(whole) = whole {
            clean(folder.stream(name, |part| streamed.extend(part.iter().map(|v| v.to_bits()))));
            assert_eq!(whole, streamed);
        }
        if let Some(Some(op)) = clean(folder.storage(name)) {
            check::products(op.as_ref());
        }
        clean(folder.info(name));
        clean(folder.dtype(name));
        if let (Some(mask), kept) = (clean(folder.mask(name)).flatten(), clean(folder.kept(name)).flatten()) {
            assert_eq!((Some(mask.kept()), &[mask.rows(), mask.cols()][..]), (kept, folder.shape(name).expect("it is listed")));
        }
    }
    if let Some(masks) = folder.masks() {
        masks.names().for_each(|name| drop(clean(masks.read(name))));
    }
    clean(folder.json("generation_config.json"));
}

fn copied(folder: &Folder, out: &Path) {
    room::remove(out);
    let writer = clean(FolderWriter::create(out, Layout::of(folder)));
    let Some(mut writer) = writer else { return };
    clean(writer.copy_rest(folder)).expect("what is there can be copied");
    clean(writer.finish()).expect("a copy of all is whole");
    let copy = clean(Folder::open(out)).expect("a copy opens");
    assert_eq!(copy.names().collect::<Vec<_>>(), folder.names().collect::<Vec<_>>());
    for name in folder.names() {
        assert_eq!(numbers(&copy, name), numbers(folder, name), "{name:?}");
    }
}

fn packed(folder: &Folder, out: &Path, packing: Packing) {
    room::remove(out);
    let small = folder.names().all(|n| folder.shape(n).is_ok_and(|s| s.iter().product::<usize>() <= 1 << 14));
    if !small || !folder.is_pruned() {
        return;
    }
    let Some(writer) = clean(repack(folder, out, packing, |_, _| {})) else { return };
    clean(writer.finish()).expect("a folder that was packed is whole");
    let new = clean(Folder::open(out)).expect("a folder that was packed opens");
    for name in folder.names() {
        // Where a mask drops, there may have been numbers.
        let (mask, old) = (clean(folder.mask(name)).flatten(), numbers(folder, name));
        let (Some(mask), Some(old)) = (mask, old) else { continue };
        assert_eq!(clean(new.mask(name)).flatten().as_ref(), Some(&mask));
        let wanted =
            mask.to_array().iter().zip(old).map(|(kept, w)| if *kept || packing == Packing::Whole { w } else { 0 }).collect();
        assert_eq!(numbers(&new, name), Some::<Vec<u32>>(wanted), "{name:?}");
    }
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let dir = room::emptied("folder");
    for (letter, bytes) in frame::parts(data) {
        if let Some((_, name)) = FILES.iter().find(|(l, _)| *l == letter) {
            let bytes = if letter.is_ascii_uppercase() { frame::safetensors(bytes) } else { bytes.to_vec() };
            room::put(&format!("folder/{name}"), &bytes);
        }
    }
    let Some(folder) = clean(Folder::open(&dir)) else { return };
    read(&folder);
    let out = room::room().join("out");
    match data.len() % 8 {
        0 => copied(&folder, &out),
        1 => packed(&folder, &out, Packing::SparseBitmask),
        2 => packed(&folder, &out, Packing::Whole),
        3 => packed(&folder, &out, Packing::Storage(Format::Csr)),
        _ => {}
    }
});
