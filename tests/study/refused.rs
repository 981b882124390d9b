//! What is refused before a model is made, and what stands in the table with its reason.

use super::common::{Keeps, LOSS, data, networks, told, trained};
use lacuna::Result;
use lacuna::allocate::Global;
use lacuna::criteria::Magnitude;
use lacuna::mask::{Pattern, Scope};
use lacuna::report::Cell;
use lacuna::rng::Seed;
use lacuna::solve::ExactObs;
use lacuna::study::{Candidate, Compare, Metric, Networks, Trained};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn what_a_method_cannot_do_is_in_the_table_with_its_reason_and_ends_nothing() -> Result<()> {
    // SparseGPT has no rows; 2:4 has one sparsity.
    let compare = Compare::new().built_in(["magnitude", "sparsegpt"]).seeds([0]).sparsities([0.5, 0.75]);
    let found = compare.clone().pattern(Pattern::Rows).run(&networks())?;
    let table = found.table();
    assert_eq!(table.columns().last().unwrap(), "not measured");
    let row = |table: &lacuna::report::Table, name: &str| table.rows().iter().find(|r| r[0].exact() == name).unwrap().clone();
    let (magnitude, gpt) = (row(&table, "magnitude"), row(&table, "sparsegpt"));
    assert!(magnitude[1] != Cell::Missing && magnitude[4] == Cell::Missing, "{magnitude:?}");
    assert!(gpt[1] == Cell::Missing && gpt[2] == Cell::Missing && gpt[3] == Cell::Missing, "{gpt:?}");
    assert!(gpt[4].exact().contains("a row that goes whole leaves none"), "{gpt:?}");

    let found = compare.pattern(Pattern::Nm { n: 2, m: 4 }).run(&networks())?;
    let gpt = row(&found.table(), "sparsegpt");
    assert!(gpt[1] != Cell::Missing && gpt[2] == Cell::Missing);
    assert_eq!(gpt[4].exact(), "75 %: pattern 2:4 has no sparsity but 0.5");
    let of = found.trial("sparsegpt", 0.5, Seed(0))?.outcome.as_ref().unwrap();
    assert_eq!(2 * of.kept, of.of);
    let usual = Compare::new().built_in(["magnitude"]).seeds([0]).pattern(Pattern::Nm { n: 1, m: 4 }).run(&networks())?;
    assert_eq!(usual.sparsities(), [0.75]);
    // Who wants all of it or nothing says so.
    assert!(usual.complete().is_ok());
    let reason = found.complete().unwrap_err().to_string();
    assert_eq!(reason, "magnitude at 0.75 with seed 0: pattern 2:4 has no sparsity but 0.5");

    // An allocation that ranks has nothing to rank a pruner of the caller's by; the built-in ones have what jobs rank them by.
    let own = ExactObs { damping: 0.1 };
    let found = Compare::new().with(Candidate::pruner(&own).named("own")).built_in(["obc", "woodfisher"]).allocate(&Global);
    let found = found.seeds([0]).sparsities([0.5]).run(&networks())?;
    assert!(found.trial("own", 0.5, Seed(0))?.outcome.as_ref().unwrap_err().contains("allocation global: ranks scores"));
    assert!(["obc", "woodfisher"].iter().all(|name| found.trial(name, 0.5, Seed(0)).unwrap().outcome.is_ok()));
    // An N:M pattern fixes each layer's budget: there is nothing to rank, and the numbers are those of any other allocation.
    let nm =
        Compare::new().built_in(["magnitude", "obc", "sparsegpt", "woodfisher"]).pattern(Pattern::Nm { n: 2, m: 4 }).seeds([0]);
    let ranked = nm.clone().allocate(&Global).run(&networks())?.complete()?;
    assert_eq!(ranked.trials(), nm.run(&networks())?.trials());
    Ok(())
}

#[test]
fn a_number_that_is_not_finite_is_a_reason_and_no_number() -> Result<()> {
    let lists = told(&[[2.0, f64::INFINITY]], Metric::smaller("perplexity"));
    let (a, b) = (Keeps(0, "first"), Keeps(1, "second"));
    let found = Compare::new().criterion(&a).criterion(&b).only_own().sparsities([0.5]).seeds([0]).run(&lists)?;
    assert_eq!(found.trial("second", 0.5, Seed(0))?.outcome, Err("perplexity is inf".into()));
    assert_eq!(found.values("second", 0.5)?, []);
    assert_eq!(found.values("first", 0.5)?, [(Seed(0), 2.0)]);
    assert_eq!(found.differences("first", "second")?.all[0].summary, None);
    Ok(())
}

#[test]
fn settings_that_cannot_be_meant_are_refused_in_one_line() {
    let base = || Compare::new().built_in(["magnitude"]).seeds([0]).sparsities([0.5]);
    let never = Networks::new(|_| panic!("was trained"));
    let error = |compare: Compare<'_>| compare.run(&never).unwrap_err().to_string();
    assert_eq!(error(base().sparsities([])), "sparsities: there are none");
    assert_eq!(error(base().sparsities([0.5, 1.0])), "sparsities: 1.0 is not in [0, 1)");
    assert_eq!(error(base().sparsities([f64::NAN])), "sparsities: NaN is not in [0, 1)");
    assert_eq!(error(base().sparsities([0.5, 0.5])), "sparsities: 0.5 is there twice");
    assert_eq!(error(base().seeds([3, 3])), "seeds: 3 is there twice");
    assert_eq!(error(base().only_own()), "methods: there are none");
    assert_eq!(error(base().criterion(&Magnitude::default())), "methods: \"magnitude\" is there twice");
    let unknown = error(base().built_in(["wandda"]));
    assert!(
        unknown.starts_with("no built-in method is named 'wandda'") && unknown.ends_with("did you mean 'wanda'?"),
        "{unknown}"
    );
    let dense = Keeps(0, "dense");
    assert_eq!(error(base().criterion(&dense)), "methods: 'dense' is the name of what was not pruned");
    assert!(error(base().pattern(Pattern::Cols).scope(Scope::Row)).starts_with("scope: pattern cols"));
    for pattern in [Pattern::Nm { n: 5, m: 4 }, Pattern::Nm { n: 0, m: 4 }, Pattern::Block { rows: 0, cols: 4 }] {
        assert!(error(base().pattern(pattern)).starts_with("pattern: '"), "{pattern}");
    }
    // What hangs on the layers is refused as soon as there is a model: on one thread no second one is trained.
    let trained_models = AtomicUsize::new(0);
    let counted = Networks::new(|seed| {
        trained_models.fetch_add(1, Ordering::Relaxed);
        let (train, test) = data(seed);
        Ok(Trained::new(trained(seed)?, train, test, LOSS))
    });
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (skip, says) in [
        (&["fc9"][..], "no layer is named 'fc9' among 2; did you mean 'fc1'?"),
        (&["fc1", "fc2"], "layers: none of 2 is left to prune"),
    ] {
        trained_models.store(0, Ordering::Relaxed);
        let error = pool.install(|| base().seeds([0, 1, 2]).skip(skip.to_vec()).run(&counted)).unwrap_err();
        assert_eq!((error.to_string().as_str(), trained_models.load(Ordering::Relaxed)), (says, 1));
    }
    let found = base().run(&networks()).unwrap();
    assert_eq!(
        found.values("magnitud", 0.5).unwrap_err().to_string(),
        "no method is named 'magnitud' among 1; did you mean 'magnitude'?"
    );
    assert_eq!(found.by("losss").unwrap_err().to_string(), "no metric is named 'losss' among 2; did you mean 'loss'?");
    assert!(found.differences("magnitude", "wanda").is_err() && found.by("speed").is_err());
    assert!(found.trial("magnitude", 0.4, Seed(0)).is_err() && found.trial("magnitude", 0.5, Seed(1)).is_err());
}
