#![no_main]
//! Working folders of unfinished runs: what is taken up again becomes what the run would have written, or is refused.

use lacuna::prune::unfinished_settings;
use lacuna_fuzz::run::{Run, files};
use lacuna_fuzz::{begin, clean, frame};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::sync::OnceLock;

/// The files of the letters that stand before the parts of an input.
const FILES: [(u8, &str); 5] = [
    (b's', ".settings.json"),
    (b'r', ".records.json"),
    (b'w', ".written.json"),
    (b'd', "model.safetensors"),
    (b'm', "masks.safetensors"),
];

static RUN: OnceLock<Run> = OnceLock::new();

fn settle() {
    lacuna_fuzz::alone();
    RUN.get_or_init(Run::new);
}

fuzz_target!(init: settle(), |data: &[u8]| {
    begin(data);
    let run = RUN.get().expect("made before the first input");
    let parts = frame::parts(data);
    let given = |name: &str| FILES.iter().find(|(_, file)| *file == name).and_then(|(l, _)| parts.iter().find(|p| p.0 == *l));
    run.clear();
    fs::create_dir(run.part()).expect("a folder in memory");
    let mut whole = true;
    for (name, bytes) in &run.done {
        let small = name.starts_with('.');
        let bytes = match given(name) {
            Some((_, given)) if small => given.to_vec(),
            // Of a file of weights what is given takes the place of its beginning.
            Some((_, given)) => {
                whole = false;
                [given, bytes.get(given.len()..).unwrap_or_default()].concat()
            }
            None if small => continue,
            None => bytes.clone(),
        };
        fs::write(run.part().join(name), bytes).expect("a file in memory");
    }
    clean(unfinished_settings(run.out()));
    let Some(done) = clean(run.prune(true)) else { return };
    for record in &done.records {
        assert!(record.shape.0 * record.shape.1 >= record.kept, "{record:?}");
    }
    if clean(done.finish()).is_some() && whole {
        assert!(files(run.out()) == run.finished, "another model than that of the run");
    }
});
