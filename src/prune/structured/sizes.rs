//! [`ShrinkSizes`]: what stays of a model, checked against what there is.

use crate::lm::{Config, Widths};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What stays of a model; what is `None` stays as it is. Widths are those of every block.
///
/// ```
/// use lacuna::lm::Widths;
/// use lacuna::prune::ShrinkSizes;
/// let before = Widths { heads: 9, kv_heads: 3, head_dim: 64, intermediate: 1536 };
/// let sizes = ShrinkSizes { heads: Some(6), ..ShrinkSizes::default() };
/// assert_eq!(sizes.widths(before)?, Widths { heads: 6, ..before });
/// let sizes = ShrinkSizes { kv_heads: Some(2), ..ShrinkSizes::default() };
/// assert_eq!(sizes.widths(before)?, Widths { heads: 6, kv_heads: 2, ..before }); // with their queries
/// let line = ShrinkSizes { heads: Some(7), ..ShrinkSizes::default() }.widths(before).unwrap_err().to_string();
/// assert_eq!(line, "heads: 7 are not as many of each of 3 key-value heads; 6 or 9 are");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShrinkSizes {
    /// Features between the feed-forward layers.
    pub intermediate: Option<usize>,
    /// Heads of queries. Where several share keys and values, as many go from each group.
    pub heads: Option<usize>,
    /// Heads of keys and values; each that goes takes its queries with it.
    pub kv_heads: Option<usize>,
    /// Hidden features.
    pub hidden: Option<usize>,
    /// Blocks.
    pub layers: Option<usize>,
}

impl ShrinkSizes {
    /// What stays of the widths of a block.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the numbers, and the nearest that is possible.
    pub fn widths(&self, before: Widths) -> Result<Widths> {
        let intermediate = match before.intermediate {
            0 => 0,
            of => within("intermediate", self.intermediate, of)?,
        };
        let (queries, keys) = (before.heads, before.kv_heads);
        if queries == 0 {
            // A block without attention stays one.
            return Ok(Widths { intermediate, ..before });
        }
        let share = queries / keys.max(1);
        if share == 1 {
            // Every head has its own keys and values.
            let heads = within("heads", self.heads.or(self.kv_heads), queries)?;
            let kv_heads = within("kv-heads", self.kv_heads.or(self.heads), keys)?;
            if heads != kv_heads {
                let reason = format!("{kv_heads} for {heads} heads: in this model each head has its own; {heads} is possible");
                return Err(Error::invalid_option("kv-heads", reason));
            }
            return Ok(Widths { heads, kv_heads, intermediate, ..before });
        }
        let kv_heads = within("kv-heads", self.kv_heads, keys)?;
        let heads = within("heads", self.heads.or(Some(share * kv_heads)), queries)?;
        if heads % kv_heads != 0 || heads / kv_heads > share {
            let (below, above) = (heads / kv_heads * kv_heads, heads.div_ceil(kv_heads) * kv_heads);
            let near: Vec<String> = [below.min(share * kv_heads), above]
                .into_iter()
                .filter(|n| (kv_heads..=share * kv_heads).contains(n))
                .map(|n| n.to_string())
                .collect();
            let (near, verb) = (near.join(" or "), if near.len() == 1 { "is" } else { "are" });
            let reason = format!("{heads} are not as many of each of {kv_heads} key-value heads; {near} {verb}");
            return Err(Error::invalid_option("heads", reason));
        }
        Ok(Widths { heads, kv_heads, intermediate, ..before })
    }

    /// Holds the sizes against a model.
    ///
    /// # Errors
    /// As [`ShrinkSizes::widths`]; for hidden features and layers likewise; if nothing goes, unless something else does.
    pub(crate) fn check(&self, config: &Config, else_goes: bool) -> Result<()> {
        let layers = within("layers", self.layers, config.layers())?;
        let hidden = within("hidden", self.hidden, config.hidden())?;
        config.with_hidden(hidden)?;
        if let (Some(n), Some((count, _))) = (self.intermediate, config.experts()) {
            let reason = format!(
                "{n} features cannot stay: the feed-forward layers are {count} experts, of which --experts leaves some out"
            );
            return Err(Error::invalid_option("intermediate", reason));
        }
        if let (Some(n), Some(reason)) = (self.heads.or(self.kv_heads), config.heads_stay()) {
            return Err(Error::invalid_option("heads", format!("{n} of them cannot stay: {reason}")));
        }
        let mut same = layers == config.layers() && hidden == config.hidden();
        for block in 0..config.layers() {
            let before = config.widths(block);
            let after = self.widths(before)?;
            same &= after == before;
        }
        if same && !else_goes {
            let w = config.widths(0);
            let reason = format!(
                "nothing goes: the model has {} layers, {} hidden features, {} heads, {} key-value heads and {} intermediate features",
                config.layers(),
                config.hidden(),
                w.heads,
                w.kv_heads,
                w.intermediate
            );
            return Err(Error::invalid_option("sizes", reason));
        }
        Ok(())
    }
}

/// A size that may stay, of so many.
fn within(option: &str, asked: Option<usize>, of: usize) -> Result<usize> {
    match asked {
        None => Ok(of),
        Some(n) if (1..=of).contains(&n) => Ok(n),
        Some(n) => {
            let nearest = n.clamp(1, of);
            Err(Error::invalid_option(option, format!("{n} of {of} cannot stay; the nearest possible value is {nearest}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ShrinkSizes;
    use crate::lm::Widths;

    #[test]
    fn widths_that_do_not_fit_are_refused_with_the_nearest_that_do() {
        let grouped = Widths { heads: 9, kv_heads: 3, head_dim: 64, intermediate: 1536 };
        let alone = Widths { kv_heads: 9, ..grouped };
        let line = |sizes: ShrinkSizes, of| sizes.widths(of).unwrap_err().to_string();
        let sizes = |intermediate: usize, heads: usize, kv_heads: usize| {
            let some = |n: usize| (n != 1000).then_some(n);
            ShrinkSizes {
                intermediate: some(intermediate),
                heads: some(heads),
                kv_heads: some(kv_heads),
                ..ShrinkSizes::default()
            }
        };
        let none = 1000;
        for (asked, of, said) in [
            (sizes(0, none, none), grouped, "intermediate: 0 of 1536 cannot stay; the nearest possible value is 1"),
            (sizes(2000, none, none), grouped, "intermediate: 2000 of 1536 cannot stay; the nearest possible value is 1536"),
            (sizes(none, 8, none), grouped, "heads: 8 are not as many of each of 3 key-value heads; 6 or 9 are"),
            (sizes(none, 2, none), grouped, "heads: 2 are not as many of each of 3 key-value heads; 3 is"),
            (sizes(none, 9, 2), grouped, "heads: 9 are not as many of each of 2 key-value heads; 6 is"),
            (sizes(none, none, 4), grouped, "kv-heads: 4 of 3 cannot stay; the nearest possible value is 3"),
            (sizes(none, 4, 3), alone, "kv-heads: 3 for 4 heads: in this model each head has its own; 4 is possible"),
        ] {
            assert_eq!(line(asked, of), said);
        }
        assert_eq!(sizes(none, 4, 2).widths(grouped).unwrap(), Widths { heads: 4, kv_heads: 2, ..grouped });
        assert_eq!(sizes(none, none, 4).widths(alone).unwrap(), Widths { heads: 4, kv_heads: 4, ..alone });
    }
}
