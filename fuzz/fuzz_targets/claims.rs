#![no_main]
//! Tables of claims in `results.csv`, and tables of any kind.

use lacuna::paper::Claims;
use lacuna::report::Table;
use lacuna_fuzz::{begin, clean};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(table) = clean(Table::from_csv(text)) {
        let again = Table::from_csv(&table.to_csv()).expect("a table that was written");
        assert_eq!((again.columns(), again.rows()), (table.columns(), table.rows()));
        table.to_markdown();
    }
    let Some(claims) = clean(Claims::from_csv(text)) else { return };
    clean(claims.table());
    clean(Claims::block(text));
    if let Some(csv) = clean(claims.to_csv()) {
        assert_eq!(Claims::from_csv(&csv).ok().filter(|again| *again == claims).map(|_| ()), (!claims.all().is_empty()).then_some(()));
    }
});
