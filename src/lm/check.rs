//! Whether a model can be made of named tensors, by their names and shapes alone.

use super::Config;
use super::embedding_head::EmbeddingHead;
use super::load::Reader;
use super::relative::Bias;
use crate::Result;
use crate::io::Weights;
use ndarray::{ArrayD, IxDyn};

/// Holds weights against a config: every tensor is there in the shape that the config asks for, and none belongs to no part. No numbers
/// are read; one block of zeros is in memory at a time.
///
/// # Errors
/// As [`LanguageModel::load`](super::LanguageModel::load), for a decoder and for an encoder-decoder.
pub fn check(weights: &dyn Weights, config: &Config) -> Result<()> {
    let (shapes, recipe) = (Shapes(weights), config.recipe());
    let reader = Reader::new(&shapes, config);
    reader.depth()?;
    EmbeddingHead::read(&reader, config)?;
    for block in 0..config.layers() {
        reader.block(block)?;
    }
    if let Some(relative) = recipe.relative {
        for (i, stack) in recipe.stacks.iter().enumerate() {
            stack.final_norm.map(|norm| reader.norm(&reader.name(norm))).transpose()?;
            Bias::read(&reader, stack.path, relative, recipe.layers[0].heads.queries, i == 0)?;
        }
    }
    reader.finish()
}

/// Tensors of zeros in the shapes of others.
struct Shapes<'a>(&'a dyn Weights);

impl Weights for Shapes<'_> {
    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.0.shape(name)
    }

    fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        self.shape(name).map(|shape| ArrayD::zeros(IxDyn(&shape)))
    }
}
