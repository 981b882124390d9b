#![no_main]
//! Small models of whatever config: they load with tensors of the shapes they ask for, and run.

use lacuna::lm::Config;
use lacuna_fuzz::model::{Model, learned};
use lacuna_fuzz::{begin, clean};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;

fn same(a: &Array2<f32>, b: &Array2<f32>) {
    assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())), "{a} is not {b}");
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let Ok(json) = serde_json::from_slice(data) else { return };
    let Some(config) = clean(Config::parse(&json)) else { return };
    let Some((_, model)) = learned(&config) else { return };
    let vocab = config.vocab();
    let most = config.max_positions().unwrap_or(5).min(5);
    let ids: Vec<u32> = (0..most).map(|i| (i * 3 % vocab) as u32).collect();
    match model {
        Model::Decoder(model) => {
            let Some(logits) = clean(model.forward(&ids)) else { return };
            assert_eq!(logits.dim(), (most, vocab));
            same(&logits, &model.forward(&ids).expect("what ran runs again"));
            let mut cache = model.cache();
            for &id in &ids {
                let next = clean(model.step(&[id], &mut cache)).expect("what ran at once runs step by step");
                assert_eq!(next.len(), vocab);
            }
            assert_eq!(cache.len(), most);
        }
        Model::Both(model) => {
            let Some(logits) = clean(model.forward(&ids, &ids[..most.min(3)])) else { return };
            assert_eq!(logits.dim(), (most.min(3), vocab));
        }
    }
});
