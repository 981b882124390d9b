//! Choosing tokens, and scoring texts by closures that stand for a model.

use lacuna::metrics::{LastWord, Perplexity, Question, answer, guess, join, windows};
use lacuna::rng::Seed;
use lacuna::text::{Ended, Sampler, Sampling, generate};
use ndarray::Array2;
use proptest::prelude::*;

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

/// Every character is a token, its number.
fn letters(text: &str) -> lacuna::Result<Vec<u32>> {
    Ok(text.chars().map(u32::from).collect())
}

#[test]
fn a_continuation_begins_behind_the_context_and_has_the_space_between() {
    let ids = |text: &str| letters(text).unwrap();
    assert_eq!(join(letters, "ab", "cd").unwrap(), (ids("ab cd"), 2));
    assert_eq!(join(letters, "ab ", "cd").unwrap(), (ids("ab cd"), 2));
    assert_eq!(join(letters, "ab", "\ncd").unwrap(), (ids("ab\ncd"), 2));
    assert!(join(letters, "", "cd").unwrap_err().to_string().contains("'cd'"));
    assert!(join(letters, "ab", "").is_err() || join(letters, "ab", "").unwrap().0.len() > 2);
}

#[test]
fn plain_and_normalised_choices_differ_where_lengths_do() {
    let question = Question { query: "q".into(), choices: vec!["xxxx".into(), "y".into(), "zz".into()], gold: 0 };
    // x costs 1 a letter, y costs 3, z 2.5; a space and all else nothing.
    let cost = |id: u32| match char::from_u32(id) {
        Some('x') => 1.0,
        Some('y') => 3.0,
        Some('z') => 2.5,
        _ => 0.0,
    };
    let nll = |ids: &[u32]| Ok(ids[1..].iter().map(|id| cost(*id)).collect());
    // Sums: 4, 3, 5; for each letter: 1, 3, 2.5.
    assert_eq!(answer(&question, letters, nll).unwrap(), (1, 0));
}

#[test]
fn a_last_word_is_right_only_if_every_token_of_it_is_the_likeliest() {
    // After n comes n + 1 with a logit of 2 against 0.
    let logits =
        |ids: &[u32]| Ok(Array2::from_shape_fn((ids.len(), 128), |(t, v)| if v == ids[t] as usize + 1 { 2.0 } else { 0.0 }));
    let text = |context: &str, continuation: &str| LastWord { context: context.into(), continuation: continuation.into() };
    let p = 2f64.exp() / (2f64.exp() + 127.0);
    let q = 1.0 / (2f64.exp() + 127.0);
    let (right, nll) = guess(&text("a\u{1f}", "!\""), letters, logits).unwrap();
    // The space between is 0x20, behind 0x1f; then 0x21 and 0x22.
    assert!(right && (nll + 3.0 * p.ln()).abs() < 1e-6, "{right} {nll}");
    let (right, nll) = guess(&text("a\u{1f}", "!!"), letters, logits).unwrap();
    assert!(!right && (nll + 2.0 * p.ln() + q.ln()).abs() < 1e-6, "{right} {nll}");
    let outside = guess(&text("a", "é"), letters, logits).unwrap_err().to_string();
    assert!(outside.contains("token 233 is outside the model's vocabulary of 128"), "{outside}");
}
