//! Where the experts of a mixture lie in a file.

use super::Config;
use super::load::Reader;
use crate::io::Weights;

/// The experts of one block, by the names of their tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockExperts {
    /// Number of the block.
    pub block: usize,
    /// The tensor of the layer that chooses, `(experts, hidden)`.
    pub router: String,
    /// What stands before the number of each expert in the names of its tensors.
    pub path: String,
    /// How many there are; one that all tokens meet is not among them.
    pub count: usize,
}

impl BlockExperts {
    /// The number of the expert to which a tensor belongs, and what stands behind it in the name.
    pub fn of<'t>(&self, tensor: &'t str) -> Option<(usize, &'t str)> {
        let (number, rest) = tensor.strip_prefix(self.path.as_str())?.split_once('.')?;
        Some((number.parse().ok().filter(|n| *n < self.count)?, rest))
    }

    /// The name of a tensor of an expert.
    pub fn name(&self, expert: usize, rest: &str) -> String {
        format!("{}{expert}.{rest}", self.path)
    }
}

/// The experts of all blocks that have some.
pub fn experts(weights: &dyn Weights, config: &Config) -> Vec<BlockExperts> {
    let (reader, recipe) = (Reader::new(weights, config), config.recipe());
    let of = |block: usize| {
        let (names, sizes) = recipe.experts(block)?;
        let (stack, place) = recipe.place(block);
        let part = |name: &str| reader.name(&format!("{}.{place}.{name}", stack.path));
        let (router, path) = (format!("{}.weight", part(names.router)), format!("{}.", part(names.path)));
        Some(BlockExperts { block, router, path, count: sizes.count })
    };
    (0..config.layers()).filter_map(of).collect()
}
