//! Fewer entries of a vocabulary: every text comes back, and what stays has the logits that it had.

use super::byte_level_folder;
use lacuna::io::Folder;
use lacuna::job::ShrinkJob;
use lacuna::lm::{Config, LanguageModel};
use lacuna::text::Tokenizer;
use ndarray::Axis;
use std::fs;
use std::ops::ControlFlow;

fn model(dir: &std::path::Path) -> LanguageModel {
    let folder = Folder::open(dir).unwrap();
    LanguageModel::load(&folder, Config::of(&folder).unwrap()).unwrap()
}

#[test]
fn a_trimmed_vocabulary_gives_every_text_back_and_what_stays_has_the_logits_that_it_had() {
    let (above, dir) = byte_level_folder();
    let (text, out) = (above.path().join("text.txt"), above.path().join("out"));
    // What the golden's tokenizer was made of has its merges.
    let words = "The lake lies between the hills, and the birds over the lake are there in the morning. ";
    fs::write(&text, words.repeat(30)).unwrap();
    fs::write(dir.join("merges.txt"), "a b\n").unwrap();
    fs::write(dir.join("generation_config.json"), r#"{"eos_token_id": [2], "bos_token_id": 1, "temperature": 0.7}"#).unwrap();
    let (before, dense) = (Tokenizer::open(&dir).unwrap(), model(&dir));
    let (all, keep) = (before.vocabulary(), 300);
    assert!(all > keep + 20, "{all} entries");
    let job = ShrinkJob::default().model(&dir).vocabulary(keep).text(&text).context(32);
    let report = job.clone().out(&out).run(&mut |_| ControlFlow::Continue(())).unwrap();
    let (after, small) = (Tokenizer::open(&out).unwrap(), model(&out));
    assert_eq!((after.vocabulary(), small.config().vocab()), (keep, keep));
    assert!(!out.join("merges.txt").exists(), "what would say otherwise stays behind");
    let kept = &report.units.iter().find(|u| u.units == all).unwrap().kept;
    assert_eq!(kept.len(), keep);
    // Every text comes back, in ids below the number that stay.
    let texts = [words, "", "  two  spaces\n\tand a tab", "naïve café, 東京 🦀 \u{0}\u{7f}", "<s> 12345 x=1;", "ÿþ\u{fffd}"];
    for text in texts {
        let ids = after.encode(text, false).unwrap();
        assert!(ids.iter().all(|id| (*id as usize) < keep), "{text:?}: {ids:?}");
        let bare = |t: &str| t.replace("<s>", "");
        assert_eq!(bare(&after.decode(&ids).unwrap()), bare(text), "{ids:?}");
    }
    // The text's own entries stay before others do: it has hardly more tokens than before.
    let [a, b] = [&before, &after].map(|t| t.encode(words, false).unwrap().len());
    assert!(b <= a + a / 10, "{a} tokens, then {b}");
    // An entry has the name, and for the same tokens the logits, that it had.
    let ids = after.encode("The hills and 7 birds.", false).unwrap();
    let old: Vec<u32> = ids.iter().map(|id| kept[*id as usize] as u32).collect();
    ids.iter().zip(&old).for_each(|(new, old)| assert_eq!(after.token(*new), before.token(*old)));
    assert_eq!(small.forward(&ids).unwrap(), dense.forward(&old).unwrap().select(Axis(1), kept));
    let config = small.config().to_json();
    assert_eq!((config["bos_token_id"].as_u64(), config["eos_token_id"].as_u64()), (Some(1), Some(2)));
    // Perplexities of other tokens compare by the byte.
    let quality = &report.texts[0];
    assert!(quality.bits_per_byte_after.is_some() && quality.bits_per_byte_before.is_some());
    assert!(quality.text_tokens >= 30 * a);
    // Numbers that cannot be are one line with the nearest that can.
    let line = |n: usize| {
        let run = job.clone().out(above.path().join("no")).vocabulary(n).run(&mut |_| ControlFlow::Continue(()));
        run.unwrap_err().to_string()
    };
    assert!(line(100).contains("the nearest possible value is 259"), "{}", line(100));
    assert!(line(10_000).contains(&format!("the nearest possible value is {all}")), "{}", line(10_000));
    assert!(!above.path().join("no").exists());
}
