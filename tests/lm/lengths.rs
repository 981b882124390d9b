//! Sequences of no tokens, of as many as there are positions, and of one more.

use crate::common::{ALL, Golden, Model, worst};
use lacuna::lm::{EmbeddingHead, next_tokens, positions};
use ndarray::{Axis, s};

#[test]
fn no_tokens_are_an_error_that_says_so_and_nothing_is_divided_by_them() {
    for golden in ALL.map(Golden::read) {
        let refused = |what: &str, e: Option<lacuna::Error>| {
            let line = e.unwrap_or_else(|| panic!("{}: {what} of no tokens", golden.name)).to_string();
            assert!(
                line.starts_with("ids: ") && (line.contains("whole sequences of") || line.contains("no token")),
                "{what}: {line}"
            );
        };
        let (ids, config) = (&golden.ids[..], golden.config());
        let ends = EmbeddingHead::load(&golden.weights, &config).unwrap();
        refused("embed, length 0", ends.embed(ids, 0, 0).err());
        refused("embed, no tokens", ends.embed(&[], 0, 0).err());
        refused("embed, no tokens of 3", ends.embed(&[], 3, 0).err());
        refused("embed, 3 tokens of 2", ends.embed(&ids[..3], 2, 0).err());
        assert_eq!(positions(&config, 1, 0, 3).tokens(), 0);
        match golden.model() {
            Model::Decoder(model) => {
                refused("forward", model.forward(&[]).err());
                refused("stream", model.hidden_states(&[], 0, &mut ()).err());
                refused("stream, length 0", model.hidden_states(ids, 0, &mut ()).err());
                refused("nll", model.nll(&[]).err());
                refused("step", model.step(&[], &mut model.cache()).err());
                refused("backward", model.backward(ids, 0, &mut |_, _| {}).err());
                refused("backward, no tokens", model.backward(&[], 0, &mut |_, _| {}).err());
                assert_eq!(model.nll(&ids[..1]).unwrap(), [0.0; 0], "{}: one token predicts nothing", golden.name);
                assert_eq!(model.positions(0, 0).tokens(), 0);
            }
            Model::Both(model) => {
                let memory = model.encode(ids, &mut ()).unwrap();
                refused("encode", model.encode(&[], &mut ()).err());
                refused("decode", model.decode(&[], &memory, &mut ()).err());
                refused("forward", model.forward(&[], &golden.labels).err());
                refused("forward, no labels", model.forward(ids, &[]).err());
                refused("nll", model.nll(&[], &golden.labels).err());
                refused("nll, no labels", model.nll(ids, &[]).err());
                refused("cache", model.cache(&[]).err());
                refused("step", model.step(&[], &mut model.cache(ids).unwrap()).err());
                refused("backward", model.backward(&[], &golden.labels, &mut |_, _| {}).err());
                refused("backward, no labels", model.backward(ids, &[], &mut |_, _| {}).err());
                assert_eq!(model.shifted(&[]), [0; 0]);
                assert_eq!((model.encoder_positions(0).tokens(), model.decoder_positions(0, 2).tokens()), (0, 0));
            }
        }
    }
}

#[test]
#[should_panic(expected = "sequences of no tokens")]
fn what_follows_in_sequences_of_no_tokens_is_a_broken_contract() {
    next_tokens(&[1, 2], 0);
}

#[test]
fn losses_and_logits_from_a_token_on_are_the_last_of_all() {
    for golden in ALL.map(Golden::read) {
        let Model::Decoder(model) = golden.model() else { continue };
        let (ids, n) = (&golden.ids[..], golden.ids.len());
        let (losses, logits) = (model.nll(ids).unwrap(), model.forward(ids).unwrap());
        for from in [1, n / 2, n - 1] {
            let found = model.nll_from(ids, from).unwrap();
            assert_eq!(found.len(), n - from);
            for (t, (found, right)) in found.iter().zip(&losses[from - 1..]).enumerate() {
                assert!((found - right).abs() < 1e-5 * (1.0 + right), "{}: token {}: {found} {right}", golden.name, from + t);
            }
            let right = logits.slice(s![from - 1..n - 1, ..]).to_owned().into_dyn();
            let off = worst(&model.logits_from(ids, from).unwrap().into_dyn(), &right, 1e-5);
            assert!(off < 2.0, "{} from {from}: {off} of the tolerance", golden.name);
        }
    }
}

#[test]
fn the_last_token_that_is_scored_needs_no_position() {
    let golden = Golden::read("gpt2");
    let Model::Decoder(model) = golden.model() else { panic!("gpt2 is a decoder") };
    let learned = model.config().max_positions().unwrap();
    let ids: Vec<u32> = golden.ids.iter().copied().cycle().take(learned + 2).collect();
    let line = model.nll(&ids[..learned + 1]).unwrap_err().to_string();
    assert_eq!(line, format!("ids: {} positions; the model has learned {learned}", learned + 1));
    let found = model.nll_from(&ids[..learned + 1], learned).unwrap();
    let row = model.forward(&ids[..learned]).unwrap().index_axis(Axis(0), learned - 1).mapv(f64::from);
    let right = row.mapv(f64::exp).sum().ln() - row[ids[learned] as usize];
    assert!(found.len() == 1 && (found[0] - right).abs() < 1e-5, "{found:?} {right}");
    assert!(model.nll_from(&ids, learned).is_err(), "two more have no position");
    let ends = EmbeddingHead::load(&golden.weights, &golden.config()).unwrap();
    assert!(ends.embed(&ids[..1], 1, usize::MAX).is_err(), "and no number is too large to be refused");
}

#[test]
#[should_panic(expected = "from token 3 of 3")]
fn nothing_behind_the_last_token_can_be_scored() {
    let Model::Decoder(model) = Golden::read("llama").model() else { panic!("llama is a decoder") };
    let _ = model.nll_from(&[1, 2, 3], 3);
}
