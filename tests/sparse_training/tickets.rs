//! Lottery tickets and their controls, and pruning at initialisation.

use lacuna::allocate::Global;
use lacuna::calibrate::{Calibration, measure};
use lacuna::criteria::{Evidence, Grasp, Need, Needs, Saliency, Snip, SynFlow};
use lacuna::mask::Mask;
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Layers, Loss, NamedLayers, Network, Parameters};
use lacuna::rng::Seed;
use lacuna::sparse_training::{Control, LotteryTickets, controlled, prune_before_training, winning_tickets};
use ndarray::{Array2, array};

fn net(seed: u64) -> Network {
    mlp(&[10, 20, 12, 4], Activation::Relu, Init::He, Seed(seed)).unwrap()
}

/// Other weights for a model: any training.
fn trained(model: &mut Network, round: usize) -> lacuna::Result<()> {
    let mut stream = Seed(round as u64).stream("trained");
    model.visit_mut(&mut |_, values, _| values.iter_mut().for_each(|w| *w += stream.normal()))
}

#[test]
fn each_round_drops_the_smallest_fraction_of_each_layer_and_rewinds_the_rest() {
    let start = net(0);
    let settings = LotteryTickets { others: vec![("fc3".into(), 0.1)], rounds: 3, ..LotteryTickets::default() };
    let mut before_training = Vec::new();
    let tickets = winning_tickets(&start, &settings, |model: &mut Network, round| {
        before_training.push(model.clone());
        trained(model, round)
    });
    let tickets = tickets.unwrap();
    assert_eq!(tickets.len(), 4);
    let mut kept = [200usize, 240, 48];
    for round in 1..4 {
        let last = &tickets[round - 1];
        for (l, fraction) in [0.2, 0.2, 0.1].into_iter().enumerate() {
            let keep = (kept[l] as f64 * (1.0 - fraction)).round() as usize;
            let (name, mask) = &tickets[round].masks[l];
            let weight = last.trained.read(name).unwrap();
            let mut order: Vec<f32> = last.masks[l].1.iter_kept().map(|at| weight[at].abs()).collect();
            order.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(mask.kept(), keep);
            assert!(mask.is_subset_of(&last.masks[l].1));
            assert!(mask.iter_kept().all(|at| weight[at].abs() >= order[keep - 1]));
            // Rewound: the first values under the mask.
            assert_eq!(before_training[round].read(name).unwrap(), mask.applied(&start.read(name).unwrap()));
            kept[l] = keep;
        }
    }
    assert!((tickets[3].density() - kept.iter().sum::<usize>() as f64 / 488.0).abs() < 1e-12);
}

#[test]
fn without_rewinding_survivors_go_on_and_one_ranking_takes_the_smallest_of_all() {
    let settings = LotteryTickets { fraction: 0.5, global: true, rounds: 1, rewind: false, ..LotteryTickets::default() };
    let mut second = None;
    let tickets = winning_tickets(&net(1), &settings, |model: &mut Network, round| {
        second = Some(model.clone());
        trained(model, round)
    });
    let tickets = tickets.unwrap();
    let mut all: Vec<f32> = Vec::new();
    tickets[0].masks.iter().for_each(|(name, _)| all.extend(tickets[0].trained.read(name).unwrap().iter().map(|w| w.abs())));
    all.sort_by(|a, b| b.total_cmp(a));
    for (name, mask) in &tickets[1].masks {
        let weight = tickets[0].trained.read(name).unwrap();
        assert_eq!(*mask, Mask::from_array(&weight.mapv(|w| w.abs() >= all[243])));
        assert_eq!(second.as_ref().unwrap().read(name).unwrap(), mask.applied(&weight));
    }
}

#[test]
fn controls_change_what_they_say_and_nothing_else() {
    let (start, fresh) = (net(2), net(3));
    let masks: Vec<(String, Mask)> = Layers::layers(&start)
        .into_iter()
        .map(|l| {
            let mut stream = Seed(9).stream(&l.name);
            (l.name, Mask::from_fn(l.shape.0, l.shape.1, |_, _| stream.below(4) == 0))
        })
        .collect();
    for control in [Control::Reinitialised, Control::ShuffledMask, Control::SignConstant, Control::SignRedrawn] {
        let model = controlled(&start, &fresh, &masks, control, Seed(4)).unwrap();
        for (name, mask) in &masks {
            let held = Layers::mask(&model, name).unwrap().unwrap().into_owned();
            let (now, own, other) = (model.read(name).unwrap(), start.read(name).unwrap(), fresh.read(name).unwrap());
            assert_eq!(held.kept(), mask.kept());
            assert_eq!(held == *mask, control != Control::ShuffledMask, "{control:?} {name}");
            for at in held.iter_kept() {
                let expected = match control {
                    Control::Reinitialised => other[at],
                    Control::ShuffledMask => own[at],
                    Control::SignConstant => own.std(0.0) * own[at].signum(),
                    Control::SignRedrawn => other[at].abs() * own[at].signum(),
                };
                assert_eq!(now[at], expected, "{control:?} {name} {at:?}");
            }
        }
    }
    assert!(controlled(&start, &fresh, &[("fc9".into(), Mask::full(1, 1))], Control::ShuffledMask, Seed(0)).is_err());
}

#[test]
fn fractions_and_rounds_that_cannot_be_are_refused() {
    let start = NamedLayers::new([("a", array![[1.0, 2.0]])]).unwrap();
    let says = |settings: LotteryTickets, expected: &str| {
        let error = winning_tickets(&start, &settings, |_: &mut NamedLayers, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    let usual = LotteryTickets::default;
    says(LotteryTickets { fraction: 1.0, ..usual() }, "fraction: 1 is not above 0 and below 1");
    says(LotteryTickets { rounds: 0, ..usual() }, "rounds: 0");
    says(LotteryTickets { others: vec![("b".into(), 0.1)], ..usual() }, "'b'");
    says(LotteryTickets { others: vec![("a".into(), 1.0)], ..usual() }, "a: 1 is not in [0, 1)");
    says(LotteryTickets { others: vec![("a".into(), 0.5)], global: true, ..usual() }, "one ranking over all layers");
}

fn samples() -> (Array2<f32>, Array2<f32>) {
    let mut stream = Seed(1).stream("samples");
    (stream.normal_array(40, 10, 1.0), Array2::from_shape_fn((40, 4), |(r, c)| f32::from(u8::from(r % 4 == c))))
}

#[test]
fn rounds_of_snip_are_exponential_and_scored_anew() {
    let (x, t) = samples();
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let (found, masks) = prune_before_training(&net(0), &data, &Snip, &Global, 0.9, 3).unwrap();
    // By hand: three times the largest |w g| over all layers, of the network as it is masked then.
    let mut model = net(0);
    for round in 1..=3 {
        let keep = 488 - (488.0 * (1.0 - 0.1f64.powf(f64::from(round) / 3.0))).round() as usize;
        let measured = measure(&model, &data, Needs::none().and(Need::Gradient)).unwrap();
        let mut scores: Vec<(f32, usize, (usize, usize))> = Vec::new();
        for (l, (layer, measured)) in Layers::layers(&model).iter().zip(&measured).enumerate() {
            let weight = model.read(&layer.name).unwrap();
            let held = Layers::mask(&model, &layer.name).unwrap();
            let gradient = measured.gradient.as_ref().unwrap();
            let kept = weight.indexed_iter().filter(|(at, _)| held.as_ref().is_none_or(|m| m.get(at.0, at.1)));
            scores.extend(kept.map(|(at, w)| ((w * gradient[at]).abs(), l, at)));
        }
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        scores.truncate(keep);
        for (l, layer) in Layers::layers(&model).into_iter().enumerate() {
            let kept = |r, c| scores.iter().any(|s| s.1 == l && s.2 == (r, c));
            model.set_mask(&layer.parameter, Some(Mask::from_fn(layer.shape.0, layer.shape.1, kept))).unwrap();
        }
    }
    masks.iter().for_each(|(name, mask)| assert_eq!(Some(mask), Layers::mask(&model, name).unwrap().as_deref(), "{name}"));
    assert_eq!(found.read("fc1").unwrap(), model.read("fc1").unwrap());
    assert!(prune_before_training(&net(0), &data, &Grasp, &Global, 0.9, 0).unwrap_err().to_string().contains("rounds: 0"));
    assert!(prune_before_training(&net(0), &data, &Grasp, &Global, 0.5, 1).is_ok());
}

#[test]
fn synflow_neither_overflows_nor_collapses_in_a_deep_network() {
    let widths: Vec<usize> = [vec![32], vec![64; 60], vec![10]].concat();
    let deep = mlp(&widths, Activation::Relu, Init::He, Seed(0)).unwrap();
    let (x, t) = (Array2::zeros((1, 32)), Array2::zeros((1, 10)));
    let data = Calibration::new(&x, &t, Loss::SquaredError);
    // Synaptic saliency is conserved: it adds up to the same in every layer.
    let measured = measure(&deep, &data, SynFlow.needs()).unwrap();
    let of = |(layer, measured): (lacuna::nn::LayerInfo, &lacuna::criteria::Measured)| {
        let weight = deep.read(&layer.name).unwrap();
        let evidence = Evidence { layer: &layer.name, weight: weight.view(), mask: None, measured };
        SynFlow.score(&evidence).unwrap().iter().map(|s| f64::from(*s)).sum::<f64>()
    };
    let sums: Vec<f64> = Layers::layers(&deep).into_iter().zip(&measured).map(of).collect();
    assert!(sums.iter().all(|s| s.is_finite() && (s / sums[0] - 1.0).abs() < 1e-3), "{sums:?}");
    let sparsity = 0.995;
    let rounds = |rounds| {
        let (_, masks) = prune_before_training(&deep, &data, &SynFlow, &Global, sparsity, rounds).unwrap();
        masks.iter().filter(|(_, m)| m.kept() == 0).count()
    };
    assert_eq!(rounds(40), 0, "layers that are empty");
}
