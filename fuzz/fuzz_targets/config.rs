#![no_main]
//! `config.json`: what is accepted says what it said, and goes on to be accepted with other widths and fewer blocks.

use lacuna::lm::{Config, Widths, positions};
use lacuna_fuzz::{begin, clean};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;

fn same(a: &Config, b: &Config) {
    let widths = |c: &Config| (0..c.layers()).map(|i| c.widths(i)).collect::<Vec<_>>();
    assert_eq!(widths(a), widths(b));
    assert_eq!((a.family(), a.vocab(), a.hidden(), a.tied()), (b.family(), b.vocab(), b.hidden(), b.tied()));
    assert_eq!((a.max_positions(), a.stated_context()), (b.max_positions(), b.stated_context()));
    assert_eq!((a.bos(), a.eos(), a.pad(), a.decoder_start()), (b.bos(), b.eos(), b.pad(), b.decoder_start()));
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let Ok(json) = serde_json::from_slice(data) else { return };
    let Some(config) = clean(Config::parse(&json)) else { return };
    assert_eq!(config.to_json(), json);
    same(&Config::parse(&config.to_json()).expect("what was accepted is accepted again"), &config);
    if config.layers() > 64 {
        return;
    }
    let widths: Vec<Widths> = (0..config.layers()).map(|i| config.widths(i)).collect();
    for w in &widths {
        assert!(w.heads > 0 && w.kv_heads > 0 && w.head_dim > 0 && w.heads % w.kv_heads == 0, "{w:?}");
    }
    same(&clean(config.with_widths(&widths)).expect("its own widths are accepted"), &config);
    let mut less = widths.clone();
    less[0] = Widths { heads: less[0].kv_heads, intermediate: 1, ..less[0] };
    if let Some(narrow) = clean(config.with_widths(&less)) {
        assert_eq!((0..narrow.layers()).map(|i| narrow.widths(i)).collect::<Vec<_>>(), less);
    }
    if let Some(short) = clean(config.with_blocks(&[config.layers() - 1])) {
        assert_eq!((short.layers(), short.widths(0)), (1, widths[widths.len() - 1]));
    }
    let head = widths[0].head_dim;
    if head <= 1 << 12 {
        for turns in positions(&config, 1, 3, 1).turns {
            let mut x = Array2::from_elem((3, head), 1.0f32);
            turns.turn(&mut x, head);
            assert!(x.iter().all(|v| v.is_finite()), "rotary positions that are no numbers: {json}");
        }
    }
});
