//! Choosing tokens, and scoring texts by closures that stand for a model.

use lacuna::eval::{
    ChoiceScore, Encoding, Joined, LastWord, LastWordScore, Perplexity, Question, answer, guess, join, read_lines, windows,
};
use lacuna::rng::Seed;
use lacuna::text::{Ended, Sampler, Sampling, Stops, generate, generate_until};
use ndarray::Array2;
use proptest::prelude::*;
use std::ops::ControlFlow;

fn sampler(temperature: f64, top_k: usize, top_p: f64, seed: u64) -> Sampler {
    Sampler::new(Sampling { temperature, top_k, top_p }, Seed(seed)).unwrap()
}

/// What may be drawn, and how likely: sorted, cut and summed in the plainest way.
fn naive(logits: &[f32], temperature: f64, top_k: usize, top_p: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if top_k > 0 {
        order.truncate(top_k);
    }
    let top = logits.iter().fold(f32::MIN, |a, b| a.max(*b));
    let weight = |i: usize| (f64::from(logits[i] - top) / temperature).exp();
    let total: f64 = order.iter().map(|i| weight(*i)).sum();
    let mut p = vec![0.0; logits.len()];
    let mut sum = 0.0;
    for i in order {
        p[i] = weight(i) / total;
        sum += p[i];
        if sum >= top_p - 1e-12 {
            break;
        }
    }
    let kept: f64 = p.iter().sum();
    p.iter().map(|p| p / kept).collect()
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    let logits = [0.3, 2.0, -1.0, 1.2, 0.9, -3.0];
    for (temperature, top_k, top_p) in [(1.0, 0, 1.0), (0.7, 3, 1.0), (1.5, 0, 0.8), (1.0, 4, 0.6), (2.0, 1, 1.0)] {
        let wanted = naive(&logits, temperature, top_k, top_p);
        let mut sampler = sampler(temperature, top_k, top_p, 1);
        let draws = 20_000;
        let mut seen = [0.0; 6];
        (0..draws).for_each(|_| seen[sampler.pick(&logits).unwrap() as usize] += 1.0 / f64::from(draws));
        for (i, (seen, wanted)) in seen.iter().zip(&wanted).enumerate() {
            let off = 4.5 * (wanted * (1.0 - wanted) / f64::from(draws)).max(0.0).sqrt() + 1e-9;
            assert!((seen - wanted).abs() <= off, "{temperature} {top_k} {top_p}: token {i} {seen} of {wanted}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_drawn_token_is_always_one_that_may_be_drawn(
        logits in proptest::collection::vec(-50i8..50, 1..40), k in 0usize..45, p in 0.01f64..1.0, t in 0.05f64..3.0, seed in any::<u64>()
    ) {
        // Whole numbers: ties, and sums that agree in any order.
        let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
        let allowed = naive(&logits, t, k, (p + 1e-9).min(1.0));
        prop_assert!((allowed.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let id = sampler(t, k, p, seed).pick(&logits).unwrap() as usize;
        prop_assert!(allowed[id] > 0.0, "{} of {:?}", id, allowed);
        let largest = logits.iter().fold(f32::MIN, |a, b| a.max(*b));
        let first = logits.iter().position(|z| *z == largest).unwrap();
        prop_assert_eq!(sampler(0.0, k, p, seed).pick(&logits).unwrap() as usize, first);
    }
}

#[test]
fn the_same_seed_writes_the_same_text_and_another_seed_another() {
    let step = |ids: &[u32]| Ok((0..50).map(|i| ((i * 7 + ids[ids.len() - 1]) % 11) as f32 / 3.0).collect());
    let text = |seed| generate(step, &[3], 30, &[], &mut sampler(1.0, 0, 0.95, seed), |_| Ok(())).unwrap();
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
    assert_eq!((text(1).ids.len(), text(1).ended), (30, Ended::Limit));
}

#[test]
fn settings_of_sampling_that_cannot_be_are_refused() {
    for (temperature, top_p, says) in
        [(-1.0, 1.0, "temperature: -1"), (f64::NAN, 1.0, "NaN"), (1.0, 0.0, "top-p: 0"), (1.0, 1.5, "1.5 is not in (0, 1]")]
    {
        let e = Sampler::new(Sampling { temperature, top_k: 0, top_p }, Seed(0)).unwrap_err().to_string();
        assert!(e.contains(says), "{e}");
    }
    let mut greedy = sampler(0.0, 0, 1.0, 0);
    assert!(greedy.pick(&[1.0, f32::NAN]).unwrap_err().to_string().contains("logits: NaN at row 0, column 1"));
    assert!(greedy.pick(&[]).is_err());
    assert!(generate(|_| Ok(vec![1.0]), &[], 3, &[], &mut greedy, |_| Ok(())).is_err());
}

#[test]
fn a_step_is_given_the_prompt_and_then_each_token_once() {
    let mut given = Vec::new();
    let step = |ids: &[u32]| {
        given.push(ids.to_vec());
        Ok(vec![0.0, 0.0, 1.0])
    };
    let mut seen = Vec::new();
    let made = generate(step, &[1, 0], 3, &[], &mut sampler(0.0, 0, 1.0, 0), |id| {
        seen.push(id);
        Ok(())
    });
    assert_eq!((made.unwrap().ids, seen), (vec![2, 2, 2], vec![2, 2, 2]));
    assert_eq!(given, [vec![1, 0], vec![2], vec![2]]);
}

#[test]
fn a_text_shorter_than_a_window_and_windows_of_nothing_are_refused() {
    let says = |ids: &[u32], context, most, first, says: &str| {
        let e = windows(ids, context, most, first).unwrap_err().to_string();
        assert!(e.contains(says), "{e}");
    };
    says(&[1, 2, 3], 4, None, None, "the text has 3 tokens, fewer than one window of 4");
    says(&[1, 2, 3], 1, None, None, "1 tokens leave none to predict");
    says(&[1, 2, 3], 2, Some(0), None, "0 windows");
    assert_eq!(windows(&[1, 2, 3], 4, None, Some(9)).unwrap(), [[9, 1, 2, 3]]);
}

#[test]
fn perplexity_is_the_mean_over_tokens_and_not_over_windows() {
    let measured = Perplexity::of(&[vec![1.0, 2.0, 3.0], vec![10.0]]).unwrap();
    assert_eq!((measured.nll, measured.predicted, measured.windows), (4.0, 4, 2));
    assert_eq!(measured.perplexity, 4f64.exp());
    let e = Perplexity::of(&[vec![1.0], vec![1.0, f64::NAN]]).unwrap_err().to_string();
    assert!(e.contains("token 2 of window 1"), "{e}");
}

#[test]
fn an_infinite_loss_is_refused_and_a_perplexity_beyond_all_numbers_is_infinite() {
    let e = Perplexity::of(&[vec![1.0], vec![f64::INFINITY]]).unwrap_err().to_string();
    assert!(e.contains("token 1 of window 1 is inf: the model's numbers are not finite"), "{e}");
    let beyond = Perplexity::of(&[vec![700.0, 720.0]]).unwrap();
    assert_eq!((beyond.nll, beyond.perplexity), (710.0, f64::INFINITY));
    assert!(Perplexity::of(&[vec![709.0]]).unwrap().perplexity.is_finite());
}

/// Every character is a token, its number.
fn letters(text: &str) -> lacuna::Result<Vec<u32>> {
    Ok(text.chars().map(u32::from).collect())
}

/// [`letters`], with 1 where there is no context.
const LETTERS: Encoding<'_> = Encoding { open: &letters, bare: &letters, prefix: Some(1), longest: None };

fn joined(encoding: &Encoding<'_>, context: &str, continuation: &str) -> Joined {
    join(encoding, context, continuation).unwrap()
}

#[test]
fn a_continuation_begins_behind_the_context_and_has_the_space_between() {
    let ids = |text: &str| letters(text).unwrap();
    let of = |context, continuation| {
        let joined = joined(&LETTERS, context, continuation);
        assert_eq!(joined.cut, 0);
        (joined.ids, joined.from)
    };
    assert_eq!(of("ab", "cd"), (ids("ab cd"), 2));
    assert_eq!(of("ab ", "cd"), (ids("ab cd"), 2));
    assert_eq!(of("ab", "\ncd"), (ids("ab\ncd"), 2));
    assert_eq!(of("ab", ""), (ids("ab "), 2));
}

#[test]
fn without_a_context_the_token_that_begins_or_ends_a_text_stands_for_it() {
    let of = |encoding: &Encoding<'_>, context, continuation| {
        let joined = joined(encoding, context, continuation);
        (joined.ids, joined.from)
    };
    assert_eq!(of(&LETTERS, "", "cd"), (vec![1, 99, 100], 1));
    // White space alone is no context, and counts as the continuation's.
    assert_eq!(of(&LETTERS, " \n", "c"), (vec![1, 32, 10, 99], 1));
    // A continuation that begins with that token has its first token for context.
    assert_eq!(of(&LETTERS, "", "\u{1}c"), (vec![1, 99], 1));
    // What is put before every text is not put before this one again.
    let begun = |text: &str| Ok([vec![7], letters(text)?].concat());
    let encoding = Encoding { open: &begun, ..LETTERS };
    assert_eq!(of(&encoding, "", "cd"), (vec![1, 99, 100], 1));
    assert_eq!(of(&encoding, "ab", "c"), (vec![7, 97, 98, 32, 99], 3));
    let e = join(&Encoding { prefix: None, ..LETTERS }, "", "cd").unwrap_err().to_string();
    assert!(e.contains("'cd': there is no context, and the model names no token that begins or ends a text"), "{e}");
    assert!(join(&LETTERS, "", "").unwrap_err().to_string().contains("nothing to score"));
}

#[test]
fn where_tokens_merge_over_the_border_lengths_say_what_is_the_continuations() {
    // "b c" is one token: with "a" before it there are 2 tokens, of which the context alone has 1, or 2 with "b".
    let merged = |text: &str| {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let token = if rest.starts_with("b c") { "b c" } else { &rest[..1] };
            ids.push(if token.len() == 3 { 200 } else { u32::from(token.as_bytes()[0]) });
            rest = &rest[token.len()..];
        }
        Ok(ids)
    };
    let encoding = Encoding { open: &merged, bare: &merged, ..LETTERS };
    let found = joined(&encoding, "ab", "cd");
    assert_eq!((found.ids, found.from), (vec![97, 200, 100], 2));
    let e = join(&encoding, "ab", "c").unwrap_err().to_string();
    assert!(e.contains("'c': 2 tokens before it, 2 with it: nothing to score"), "{e}");
}

#[test]
fn what_is_longer_than_the_positions_loses_its_first_tokens() {
    for longest in 3..8 {
        let found = joined(&Encoding { longest: Some(longest), ..LETTERS }, "abcde", "fg");
        // The model reads all but the last token.
        let whole = letters("abcde fg").unwrap();
        let cut = 8usize.saturating_sub(longest + 1);
        assert_eq!((found.cut, &found.ids[..], found.from), (cut, &whole[cut..], 5 - cut), "{longest} positions");
        assert!(found.ids.len() - 1 <= longest && found.from >= 1);
    }
    let e = join(&Encoding { longest: Some(2), ..LETTERS }, "abcde", "fg").unwrap_err().to_string();
    assert!(e.contains("'fg': has 3 tokens; the model has 2 positions"), "{e}");
}

fn question(query: &str, choices: &[&str], gold: usize) -> Question {
    Question { query: query.into(), choices: choices.iter().map(|c| c.to_string()).collect(), gold }
}

#[test]
fn plain_and_normalised_choices_differ_where_lengths_do() {
    let question = question("q", &["xxxx", "y", "zz"], 0);
    // x costs 1 a letter, y costs 3, z 2.5; a space and all else nothing.
    let cost = |id: u32| match char::from_u32(id) {
        Some('x') => 1.0,
        Some('y') => 3.0,
        Some('z') => 2.5,
        _ => 0.0,
    };
    let nll = |ids: &[u32], from: usize| Ok(ids[from..].iter().map(|id| cost(*id)).collect());
    // Sums: 4, 3, 5; for each letter: 1, 3, 2.5.
    assert_eq!(answer(&question, &question.join(&LETTERS).unwrap(), nll).unwrap(), (1, 0));
}

#[test]
fn losses_that_are_not_finite_rank_nothing() {
    let question = question("q", &["x", "yz"], 0);
    let choices = question.join(&LETTERS).unwrap();
    for bad in [f64::NAN, f64::INFINITY] {
        let nll =
            |ids: &[u32], from: usize| Ok(ids[from..].iter().map(|id| if *id == u32::from('z') { bad } else { 1.0 }).collect());
        let e = answer(&question, &choices, nll).unwrap_err().to_string();
        assert!(e.contains(&format!("choice 1: -log p of its token 3 is {bad}: the model's numbers are not finite")), "{e}");
    }
    let text = joined(&LETTERS, "a", "b");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // In the place of the token itself, so that every kind makes a loss that no one can use.
        let logits = |ids: &[u32], from: usize| {
            let at = |(t, v): (usize, usize)| if v == ids[from + t] as usize { bad } else { 0.0 };
            Ok(Array2::from_shape_fn((ids.len() - from, 128), at))
        };
        let e = guess(&text, logits).unwrap_err().to_string();
        assert!(e.contains("continuation: -log p of its token 1 is ") && e.contains("not finite"), "{e}");
    }
    // A NaN elsewhere in the row is in the sum of all.
    let logits = |ids: &[u32], from: usize| {
        Ok(Array2::from_shape_fn((ids.len() - from, 128), |(_, v)| if v == 3 { f32::NAN } else { 0.0 }))
    };
    assert!(guess(&text, logits).is_err());
}

#[test]
fn a_last_word_is_right_only_if_every_token_of_it_is_the_likeliest() {
    // After n comes n + 1 with a logit of 2 against 0.
    let logits = |ids: &[u32], from: usize| {
        let at = |(t, v): (usize, usize)| if v == ids[from - 1 + t] as usize + 1 { 2.0 } else { 0.0 };
        Ok(Array2::from_shape_fn((ids.len() - from, 128), at))
    };
    let p = 2f64.exp() / (2f64.exp() + 127.0);
    let q = 1.0 / (2f64.exp() + 127.0);
    let text = |context: &str, continuation: &str| LastWord { context: context.into(), continuation: continuation.into() };
    let (right, nll) = guess(&text("a\u{1f}", "!\"").join(&LETTERS).unwrap(), logits).unwrap();
    // The space between is 0x20, behind 0x1f; then 0x21 and 0x22.
    assert!(right && (nll + 3.0 * p.ln()).abs() < 1e-6, "{right} {nll}");
    let (right, nll) = guess(&joined(&LETTERS, "a\u{1f}", "!!"), logits).unwrap();
    assert!(!right && (nll + 2.0 * p.ln() + q.ln()).abs() < 1e-6, "{right} {nll}");
    let outside = guess(&joined(&LETTERS, "a", "é"), logits).unwrap_err().to_string();
    assert!(outside.contains("token 233 is outside the model's vocabulary of 128"), "{outside}");
}

#[test]
fn scores_count_what_was_right_and_what_was_cut() {
    let encoding = Encoding { longest: Some(6), ..LETTERS };
    let questions = [question("ab", &["c", "d"], 1), question("abcdef", &["c", "d"], 0), question("", &["c", "dddddd"], 0)];
    let joined: Vec<_> = questions.iter().map(|q| q.join(&encoding).unwrap()).collect();
    let score = ChoiceScore::of(&questions, &joined, &[(1, 0), (1, 1), (0, 0)]);
    assert_eq!((score.questions, score.accuracy, score.accuracy_normalised, score.cut), (3, 2.0 / 3.0, 1.0 / 3.0, 1));
    let texts = [self::joined(&encoding, "ab", "c"), self::joined(&encoding, "abcdef", "c")];
    let score = LastWordScore::of(&texts, &[(true, 1.0), (false, 3.0)]);
    assert_eq!((score.texts, score.accuracy, score.nll, score.perplexity, score.cut), (2, 0.5, 2.0, 2f64.exp(), 1));
}

#[test]
fn lines_are_named_as_an_editor_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    let one = r#"{"query": "", "choices": ["a"], "gold": 0}"#;
    std::fs::write(&path, format!("\u{feff}{one}\n\n  \r\n{one}\r\n{}", one.replace(": 0", ": 1"))).unwrap();
    let lines = read_lines::<Question>(&path, None).unwrap();
    let e = lines.try_map(|_, q| q.check()).unwrap_err().to_string();
    assert!(e.ends_with("q.jsonl: line 5: gold: is 1, and there are 1 choices, which count from 0"), "{e}");
    assert_eq!(read_lines::<Question>(&path, Some(2)).unwrap().try_map(|i, _| Ok(i)).unwrap(), [0, 1]);
    assert!(read_lines::<Question>(&path, Some(0)).unwrap_err().to_string().contains("items: 0"));
    let e = question("q", &["a", ""], 0).check().unwrap_err().to_string();
    assert_eq!(e, "choices: choice 1 of 2 has no text");
}

/// A text in pieces, through stops: what was let through after each piece, and in all.
fn through(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
    let mut stops = Stops::new(stops.iter().copied()).unwrap();
    let shown: Vec<String> = pieces.iter().map(|piece| stops.push(piece)).collect();
    let (met, all) = (stops.met(), shown.concat());
    (shown, all + &stops.finish(), met)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_text_ends_before_the_first_stop_however_it_is_cut(
        text in "[abé]{0,24}", stops in proptest::collection::vec("[abé]{1,4}", 0..3), cuts in proptest::collection::vec(1usize..5, 1..8)
    ) {
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let mut pieces = Vec::new();
        let (mut rest, mut cuts) = (text.as_str(), cuts.iter().cycle());
        while !rest.is_empty() {
            let n = rest.char_indices().nth(*cuts.next().unwrap()).map_or(rest.len(), |(i, _)| i);
            let (piece, behind) = rest.split_at(n);
            pieces.push(piece);
            rest = behind;
        }
        let at = (0..text.len()).find(|&i| text.is_char_boundary(i) && stops.iter().any(|s| text[i..].starts_with(s)));
        let (shown, all, met) = through(&stops, &pieces);
        // Of two stops that overlap, the one that is whole first ends the text, a few letters behind where the other begins at most.
        let right = at.map_or(text.as_str(), |at| &text[..at]);
        prop_assert_eq!(met, at.is_some());
        prop_assert!(all.starts_with(right) && !stops.iter().any(|s| all.contains(s)), "{:?} of {:?}, not {:?}", all, text, right);
        if stops.len() < 2 {
            prop_assert_eq!(&all, right);
        }
        // Nothing is shown that is not in the text to its end, and nothing longer than a stop is held back.
        let (mut seen, mut given) = (0, 0);
        for (shown, piece) in shown.iter().zip(&pieces) {
            (seen, given) = (seen + shown.len(), given + piece.len());
            let longest = stops.iter().map(|s| s.len()).max().unwrap_or(0);
            prop_assert!(met || given - seen < longest.max(1), "{} of {} shown", seen, given);
        }
    }
}

#[test]
fn an_empty_stop_is_refused_and_one_may_begin_within_another() {
    assert!(Stops::new(["a", ""]).unwrap_err().to_string().contains("stop: an empty text"));
    let (shown, all, met) = through(&["aab"], &["a", "a", "a", "b", "c"]);
    assert_eq!((shown, all.as_str(), met), (["", "", "a", "", ""].map(String::from).to_vec(), "a", true));
    assert_eq!(through(&["ab"], &["a"]).1, "a");
}

#[test]
fn generation_ends_where_who_looks_on_has_seen_enough() {
    let step = |ids: &[u32]| Ok((0..9).map(|i| if i == ids[ids.len() - 1] + 1 { 1.0 } else { 0.0 }).collect());
    let see = |id| Ok(if id == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    let made = generate_until(step, &[0], 8, &[5], &mut sampler(0.0, 0, 1.0, 0), see).unwrap();
    assert_eq!((made.ids, made.ended), (vec![1, 2, 3], Ended::StopText));
    assert_eq!(serde_json::to_value(Ended::StopText).unwrap(), "stop_text");
}
