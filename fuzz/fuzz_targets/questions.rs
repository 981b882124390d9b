#![no_main]
//! Lines of questions and of last words, and the answers of a toy.

use lacuna::Result;
use lacuna::eval::{Encoding, Joined, LastWord, Question, answer, guess, read_lines};
use lacuna_fuzz::{begin, clean, room};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;

/// A token for each byte.
fn encode(text: &str) -> Result<Vec<u32>> {
    Ok(text.bytes().map(u32::from).collect())
}

fn sound(joined: &Joined, longest: Option<usize>) {
    let Joined { ids, from, .. } = joined;
    assert!(*from >= 1 && *from < ids.len() && longest.is_none_or(|most| ids.len() <= most + 1), "{joined:?}");
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let path = room::put("lines.jsonl", data);
    let prefix = (data.len() % 2 == 0).then_some(1);
    let longest = (data.len() % 3 == 0).then_some(8);
    let encoding = Encoding { open: &encode, bare: &encode, prefix, longest };
    if let Some(lines) = clean(read_lines::<Question>(&path, Some(8))) {
        assert!((1..=8).contains(&lines.items().len()));
        for question in lines.items() {
            let Some(choices) = clean(question.join(&encoding)) else { continue };
            choices.iter().for_each(|joined| sound(joined, longest));
            let nll = |ids: &[u32], from: usize| Ok(ids[from..].iter().map(|id| f64::from(*id)).collect());
            let (plain, each) = clean(answer(question, &choices, nll)).expect("losses that are finite");
            assert!(question.gold < choices.len() && plain < choices.len() && each < choices.len());
        }
        clean(lines.try_map(|_, question| question.join(&encoding)));
    }
    if let Some(lines) = clean(read_lines::<LastWord>(&path, None)) {
        for text in lines.items().iter().filter(|t| t.context.len() + t.continuation.len() < 1 << 10) {
            let Some(joined) = clean(text.join(&encoding)) else { continue };
            sound(&joined, longest);
            let logits = |ids: &[u32], from: usize| Ok(Array2::from_shape_fn((ids.len() - from, 256), |(t, i)| (t + i) as f32 % 7.0));
            let (_, nll) = clean(guess(&joined, logits)).expect("logits that are finite");
            assert!(nll.is_finite() && nll > 0.0, "{nll}");
        }
    }
});
