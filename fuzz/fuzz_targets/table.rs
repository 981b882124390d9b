#![no_main]
//! Tables of numbers with a class.

use lacuna::data::table;
use lacuna_fuzz::{begin, clean, room};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let path = room::put("table.csv", data);
    let Some(set) = clean(table(&path)) else { return };
    assert!(set.len() > 0 && set.features() > 0 && set.x().dim() == (set.len(), set.features()));
    assert!(set.class_counts().iter().all(|&n| n > 0), "a class without a sample");
    // Written as the same table it is read as the same.
    let mut text = "x,".repeat(set.features()) + "class\n";
    for (row, label) in set.x().rows().into_iter().zip(set.labels()) {
        row.iter().for_each(|v| text += &format!("{v},"));
        text += &format!("{label:09}\n");
    }
    assert_eq!(table(room::put("table.csv", text.as_bytes())).expect("a table"), set);
});
