#![no_main]
//! Lines of questions and of last words, and the answers of a toy.

use lacuna::Result;
use lacuna::metrics::{LastWord, Question, answer, check_questions, guess, read_lines};
use lacuna_fuzz::{begin, clean, room};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;

/// A token for each byte.
fn encode(text: &str) -> Result<Vec<u32>> {
    Ok(text.bytes().map(u32::from).collect())
}

fuzz_target!(init: lacuna_fuzz::alone(), |data: &[u8]| {
    begin(data);
    let path = room::put("lines.jsonl", data);
    if let Some(questions) = clean(read_lines::<Question>(&path, Some(8))) {
        assert!((1..=8).contains(&questions.len()));
        if clean(check_questions(&questions)).is_some() {
            for question in &questions {
                assert!(question.gold < question.choices.len());
                let nll = |ids: &[u32]| Ok(ids[1..].iter().map(|id| f64::from(*id)).collect());
                if let Some((plain, each)) = clean(answer(question, encode, nll)) {
                    assert!(plain < question.choices.len() && each < question.choices.len());
                }
            }
        }
    }
    if let Some(texts) = clean(read_lines::<LastWord>(&path, None)) {
        for text in texts.iter().filter(|t| t.context.len() + t.continuation.len() < 1 << 10) {
            let logits = |ids: &[u32]| Ok(Array2::from_shape_fn((ids.len(), 256), |(t, i)| (t + i) as f32 % 7.0));
            if let Some((_, nll)) = clean(guess(text, encode, logits)) {
                assert!(nll.is_finite() && nll > 0.0, "{nll}");
            }
        }
    }
});
