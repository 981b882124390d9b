//! Mistral and Mistral NeMo: Jiang et al., "Mistral 7B", arXiv:2310.06825.
//!
//! Llama's blocks, where a token sees at most a window of positions, itself among them; in NeMo `heads · head_dim` is not the
//! hidden size.

use crate::Result;
use crate::lm::architecture::{Architecture, Defaults, Definition, Keys, LLAMA};

/// The window of a config in which the key is absent; `null` is no window.
const WINDOW: usize = 4096;

pub(super) static FAMILY: Definition =
    Definition { model_type: "mistral", about: "Mistral, Mistral NeMo", architecture: recipe, ..Definition::USUAL };

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let mut recipe = Architecture::usual(keys, Defaults { kv_heads: Some(8), ..LLAMA })?;
    let absent = !keys.0.contains_key("sliding_window");
    let window = if absent { Some(WINDOW) } else { keys.window("sliding_window")? };
    recipe.layers.iter_mut().for_each(|layer| layer.rule.window = window);
    Ok(recipe)
}
