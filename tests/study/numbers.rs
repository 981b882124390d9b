//! The numbers of comparisons against loops by hand, and built-in methods against jobs of their names.

use super::common::{LOSS, RowScaled, data, networks, recovered, trained};
use lacuna::Result;
use lacuna::allocate::{Allocate, Global, Target, Uniform};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, Measured, Obd, Random, Saliency, Wanda};
use lacuna::eval::score;
use lacuna::job::{Methods, PruneJob};
use lacuna::linalg::Gram;
use lacuna::mask::{Pattern, Scope};
use lacuna::nn::Network;
use lacuna::prune::{Pruning, compensated, one_shot};
use lacuna::rng::Seed;
use lacuna::solve::WoodFisher;
use lacuna::study::{Candidate, Compare, LayerLists, built_in_names};

#[test]
fn the_numbers_are_those_of_a_loop_by_hand_to_the_last_bit() -> Result<()> {
    let (sparsities, seeds) = ([0.5, 0.9], [Seed(0), Seed(3)]);
    for (allocate, recover) in [(&Global as &dyn Allocate, false), (&Uniform, true)] {
        let subject = if recover { networks().recover(|n, _, seed| recovered(n, seed)) } else { networks() };
        let woodfisher = WoodFisher { damping: 1e-4, block: 20 };
        let compare = Compare::new().criterion(&RowScaled).built_in(["magnitude", "obd", "wanda", "random"]);
        let compare = compare.with(Candidate::pruner(&woodfisher).ranked_by(&woodfisher));
        let found = compare.allocate(allocate).sparsities(sparsities).seeds(seeds).run(&subject)?;
        assert_eq!(found.methods(), ["row-scaled", "woodfisher", "magnitude", "obd", "wanda", "random"]);
        for seed in seeds {
            let (network, (train, test)) = (trained(seed)?, data(seed));
            let calibration = Calibration::new(&train.0, &train.1, LOSS);
            let judge = |mut network: Network, pruned: bool| -> Result<Vec<f64>> {
                if recover && pruned {
                    recovered(&mut network, seed)?;
                }
                let score = score(&network, &test.0, &test.1, LOSS);
                Ok(vec![100.0 * score.accuracy, score.loss])
            };
            let dense = judge(network.clone(), false)?;
            assert_eq!(found.values("dense", 0.5)?.iter().find(|(s, _)| *s == seed).unwrap().1, dense[0]);
            let (magnitude, random) = (Magnitude::default(), Random { seed });
            let all: [(&str, &dyn Saliency); 6] = [
                ("row-scaled", &RowScaled),
                ("woodfisher", &woodfisher),
                ("magnitude", &magnitude),
                ("obd", &Obd),
                ("wanda", &Wanda),
                ("random", &random),
            ];
            for (name, saliency) in all {
                for sparsity in sparsities {
                    let (target, pattern) = (Target::Sparsity(sparsity), Pattern::Unstructured);
                    // Wanda's weights compete row by row, as in its paper and in jobs.
                    let scope = if name == "wanda" { Scope::Row } else { Scope::Layer };
                    let pruning = Pruning { saliency, allocate, target, pattern, scope, skip: &[] };
                    let outcome = match name {
                        "woodfisher" => compensated(&network, &calibration, &pruning, &woodfisher)?,
                        _ => one_shot(&network, &calibration, &pruning)?,
                    };
                    let kept: usize = outcome.masks.iter().map(|(_, m)| m.kept()).sum();
                    let trial = found.trial(name, sparsity, seed)?.outcome.as_ref().unwrap();
                    assert_eq!(trial.values, judge(outcome.model, true)?, "{name} at {sparsity}, {seed:?}");
                    assert_eq!((trial.kept, trial.of), (kept, 64 * 12 + 12 * 10), "{name}");
                    assert_eq!(trial.predicted, outcome.predicted_increase.filter(|_| name != "woodfisher"), "{name}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_built_in_method_has_numbers_on_a_network_or_the_reason_why_its_measure_fails_on_a_list() -> Result<()> {
    let found = Compare::new().seeds([0]).sparsities([0.5]).run(&networks())?;
    assert_eq!(found.methods(), built_in_names());
    assert!(found.trials().iter().all(|t| t.outcome.is_ok()), "{}", found.table().to_text());
    assert!(found.trials().iter().all(|t| t.outcome.as_ref().unwrap().kept == 444), "{}", found.table().to_text());

    let mut gram = Gram::new(4);
    gram.update(&Seed(1).stream("inputs").normal_array(20, 4, 1.0))?;
    let measured = Measured { tokens: 20, gram: Some(gram.matrix()), ..Measured::default() };
    let lists = LayerLists::new(|seed| Ok(vec![("fc".into(), seed.stream("weights").normal_array(3, 4, 1.0), measured.clone())]));
    let found = Compare::new().seeds([0]).sparsities([0.5]).run(&lists)?;
    for trial in found.trials() {
        let can = ["magnitude", "magnitude-l2", "random", "wanda", "ria", "sparsegpt", "d2prune", "obc", "alps"]
            .contains(&trial.method.as_str());
        assert_eq!(trial.outcome.is_ok(), can, "{trial:?}");
        if let Err(reason) = &trial.outcome {
            assert!(reason.starts_with("needs the ") && reason.contains("not among what was measured of layer fc"), "{reason}");
        }
    }
    Ok(())
}

#[test]
fn built_in_methods_that_jobs_know_prune_as_a_job_of_their_name_does_and_others_are_of_networks_alone() -> Result<()> {
    let (seed, sparsity) = (Seed(5), 0.6);
    let (network, (train, test), methods) = (trained(seed)?, data(seed), Methods::standard());
    for (name, allocate) in [("uniform", &Uniform as &dyn Allocate), ("global", &Global)] {
        let found = Compare::new().allocate(allocate).sparsities([sparsity]).seeds([seed]).run(&networks())?;
        for method in methods.methods() {
            let job = PruneJob::new(method.name()).sparsity(sparsity).seed(seed.0).allocate(name);
            let pruned = job.prune_model(&methods, &network, &Calibration::new(&train.0, &train.1, LOSS))?;
            let score = score(&pruned.model, &test.0, &test.1, LOSS);
            let trial = found.trial(method.name(), sparsity, seed)?.outcome.as_ref().unwrap();
            assert_eq!(trial.values, [100.0 * score.accuracy, score.loss], "{name} {}", method.name());
            assert_eq!(trial.kept, pruned.masks.iter().map(|(_, m)| m.kept()).sum::<usize>(), "{name} {}", method.name());
        }
        assert_eq!(found.methods()[methods.methods().len()..], ["snip", "grasp", "synflow", "obd"]);
    }
    // Said of all, it is so of all: Wanda in the layer is another Wanda.
    let compare = Compare::new().built_in(["wanda", "magnitude"]).sparsities([sparsity]).seeds([seed]);
    let of = |compare: &Compare<'_>, name: &str| compare.run(&networks())?.by("loss")?.values(name, sparsity);
    let layer = compare.clone().scope(Scope::Layer);
    assert!(of(&layer, "wanda")? != of(&compare, "wanda")? && of(&layer, "magnitude")? == of(&compare, "magnitude")?);
    // A pattern is competed in by itself.
    let nm = |compare: &Compare<'_>| compare.clone().sparsities([0.5]).pattern(Pattern::Nm { n: 2, m: 4 }).run(&networks());
    assert_eq!(nm(&layer)?.trials(), nm(&compare)?.trials());
    Ok(())
}

#[test]
fn one_thread_and_three_make_the_same_bits() -> Result<()> {
    let compare =
        Compare::new().criterion(&RowScaled).built_in(["obd", "alps", "random", "woodfisher"]).sparsities([0.6]).seeds([0, 1]);
    let on = |threads: usize| -> Result<String> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compare.run(&networks())).map(|found| found.to_csv())
    };
    let one = on(1)?;
    assert_eq!(one, on(3)?);
    // More threads than jobs: they are then not side by side.
    assert_eq!(one, on(16)?);
    Ok(())
}
