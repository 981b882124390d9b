//! Searching a database of layers, each pruned at several levels, for the best choice under a budget.
//!
//! What a level costs may be counted in weights, bytes or microseconds; what it loses is any number that is known of it alone.
//!
//! [`dynamic`]: the least sum of losses within the budget, by dynamic programming over the cost, as in SPDY (Frantar, Alistarh, ICML
//! 2022, arXiv:2201.13096, section 3.1, without its search for the layers' weights). [`evolve`]: losses of a whole choice, which need
//! not be sums, by mutations that give to one layer what they take from another, as in EvoPress (Sieberling, Kuznedelev, Kurtic, Alistarh,
//! ICML 2025, arXiv:2410.14649, algorithm 1).

use crate::rng::{Seed, Stream};
use crate::{Error, Result};

/// One level of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// What it costs, in the unit of the budget.
    pub cost: u64,
    /// What it loses.
    pub loss: f64,
}

/// The level of each layer with the least sum of losses whose costs sum to at most `budget`; of equals the first found from the first
/// level on.
///
/// Costs are counted in `steps` parts of the budget, each rounded up, so that the budget is never passed; with steps ≥ budget the
/// answer is exact. Cost: `layers · levels · steps` additions, `layers · steps` bytes.
///
/// ```
/// use lacuna::allocate::{Level, dynamic};
/// let level = |cost, loss| Level { cost, loss };
/// let layers = [vec![level(4, 0.), level(2, 3.)], vec![level(4, 0.), level(2, 1.)]];
/// assert_eq!(dynamic(&layers, 6, 1000)?, [0, 1]); // the second layer loses less
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// If there are no layers, a layer has no levels or more than 256, a loss is not finite, or the cheapest levels cost more than the budget.
pub fn dynamic(layers: &[Vec<Level>], budget: u64, steps: usize) -> Result<Vec<usize>> {
    check(layers, budget)?;
    let steps = (steps.max(1) as u64).min(budget.max(1));
    let size = |cost: u64| (u128::from(cost) * u128::from(steps)).div_ceil(u128::from(budget.max(1))) as usize;
    let width = steps as usize + 1;
    // best[b]: the least loss of the layers so far at a cost of at most b.
    let mut best = vec![0.0; width];
    let mut chosen: Vec<Vec<u8>> = Vec::with_capacity(layers.len());
    for levels in layers {
        let mut next = vec![f64::INFINITY; width];
        let mut from = vec![0u8; width];
        for (i, level) in levels.iter().enumerate() {
            let size = size(level.cost);
            for b in size..width {
                let loss = best[b - size] + level.loss;
                if loss < next[b] {
                    (next[b], from[b]) = (loss, i as u8);
                }
            }
        }
        best = next;
        chosen.push(from);
    }
    // A budget of nothing is one step all the same, which is not to be spent.
    let mut left = if budget == 0 { 0 } else { width - 1 };
    if !best[left].is_finite() {
        return Err(Error::invalid_option(
            "budget",
            format!("{budget} in {steps} steps is too coarse for the cheapest levels; use more steps"),
        ));
    }
    let mut choice = vec![0; layers.len()];
    for (l, from) in chosen.iter().enumerate().rev() {
        choice[l] = usize::from(from[left]);
        left -= size(layers[l][choice[l]].cost);
    }
    Ok(choice)
}

/// How long and how wide [`evolve`] searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evolution {
    /// Generations.
    pub generations: usize,
    /// Mutations of the best of each generation.
    pub offspring: usize,
    /// From which the mutations follow.
    pub seed: Seed,
}

/// Betters `start` by mutations within the budget: `loss` says what a whole choice loses. Returns the best choice and its loss, which is
/// never above that of the start.
///
/// A mutation moves one to three layers to a neighbouring cheaper level and then others to dearer ones, as long as the budget has
/// room. Levels are compared by their cost.
///
/// # Errors
/// As [`dynamic`]; if the start is not one level a layer or costs more than the budget; if a choice's loss is not finite; what `loss` returns.
pub fn evolve(
    layers: &[Vec<Level>],
    budget: u64,
    start: &[usize],
    search: Evolution,
    loss: &mut dyn FnMut(&[usize]) -> Result<f64>,
) -> Result<(Vec<usize>, f64)> {
    check(layers, budget)?;
    if start.len() != layers.len() || start.iter().zip(layers).any(|(&i, levels)| i >= levels.len()) {
        return Err(Error::invalid_option("start", format!("{} levels for {} layers", start.len(), layers.len())));
    }
    if cost(layers, start) > u128::from(budget) {
        return Err(Error::invalid_option("start", format!("costs {}, more than the budget of {budget}", cost(layers, start))));
    }
    let mut stream = search.seed.stream("evolution");
    // NaN would lose every comparison and so never be seen, or win the first.
    let mut judged = |choice: &[usize], place: &dyn Fn() -> String| {
        let found = loss(choice)?;
        if found.is_finite() {
            Ok(found)
        } else {
            Err(Error::Numerical { what: "loss of a choice".into(), reason: format!("{found} {}", place()) })
        }
    };
    let (mut best, mut least) = (start.to_vec(), judged(start, &|| "at the start".into())?);
    for generation in 0..search.generations {
        let parent = best.clone();
        for _ in 0..search.offspring {
            let child = mutate(layers, &parent, budget, &mut stream);
            if child == parent {
                continue;
            }
            let found = judged(&child, &|| format!("in generation {generation}, of the levels {child:?}"))?;
            if found < least {
                (best, least) = (child, found);
            }
        }
    }
    Ok((best, least))
}

fn cost(layers: &[Vec<Level>], choice: &[usize]) -> u128 {
    choice.iter().zip(layers).map(|(&i, levels)| u128::from(levels[i].cost)).sum()
}

/// The neighbouring level of layer `l` that is dearer or cheaper.
fn neighbour(levels: &[Level], at: usize, dearer: bool) -> Option<usize> {
    let now = levels[at].cost;
    let others = (0..levels.len()).filter(|&i| if dearer { levels[i].cost > now } else { levels[i].cost < now });
    if dearer { others.min_by_key(|&i| levels[i].cost) } else { others.max_by_key(|&i| levels[i].cost) }
}

fn mutate(layers: &[Vec<Level>], parent: &[usize], budget: u64, stream: &mut Stream) -> Vec<usize> {
    let mut child = parent.to_vec();
    // Few changes are likelier than many.
    let changes = 1 + stream.below(3).min(stream.below(3));
    let mut lowered = Vec::new();
    for _ in 0..changes {
        let l = stream.below(layers.len());
        if let Some(i) = neighbour(&layers[l], child[l], false) {
            child[l] = i;
            lowered.push(l);
        }
    }
    for l in stream.permutation(layers.len()).into_iter().filter(|l| !lowered.contains(l)) {
        let room = u128::from(budget) - cost(layers, &child);
        if let Some(i) = neighbour(&layers[l], child[l], true)
            && u128::from(layers[l][i].cost - layers[l][child[l]].cost) <= room
        {
            child[l] = i;
        }
    }
    child
}

fn check(layers: &[Vec<Level>], budget: u64) -> Result<()> {
    if layers.is_empty() {
        return Err(Error::invalid_option("layers", "there are none to choose levels for"));
    }
    if let Some((l, levels)) = layers.iter().enumerate().find(|(_, levels)| levels.is_empty() || levels.len() > 256) {
        return Err(Error::invalid_option("levels", format!("layer {l} has {} levels, not 1 to 256", levels.len())));
    }
    if let Some((l, i)) = layers.iter().enumerate().find_map(|(l, v)| v.iter().position(|e| !e.loss.is_finite()).map(|i| (l, i)))
    {
        return Err(Error::invalid_option("levels", format!("layer {l} loses {} at level {i}", layers[l][i].loss)));
    }
    let least: u128 = layers.iter().map(|levels| u128::from(levels.iter().map(|e| e.cost).min().unwrap_or(0))).sum();
    if least > u128::from(budget) {
        return Err(Error::invalid_option("budget", format!("{budget} is less than the {least} of the cheapest levels")));
    }
    Ok(())
}
