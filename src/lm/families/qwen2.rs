//! Qwen2 and Qwen2.5: Yang et al., "Qwen2 Technical Report", arXiv:2407.10671; "Qwen2.5 Technical Report", arXiv:2412.15115.
//!
//! Llama's blocks with biases of queries, keys and values. Where `use_sliding_window` is true, blocks from `max_window_layers` on see a window.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockList, Defaults, Definition, Keys, LLAMA, windows};

pub(super) static FAMILY: Definition = Definition {
    model_type: "qwen2",
    about: "Qwen2, Qwen2.5",
    architecture: recipe,
    lists: &[BlockList::Windows],
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let usual = Architecture::usual(keys, Defaults { kv_heads: Some(32), ..LLAMA })?;
    let mut recipe = Architecture { attention_bias: true, ..usual };
    late_windows(keys, &mut recipe)?;
    Ok(recipe)
}

/// The window that a config of Qwen asks for.
pub(super) fn asked_window(keys: Keys<'_>) -> Result<Option<usize>> {
    match keys.flag("use_sliding_window", false)? {
        true if keys.0.contains_key("sliding_window") => keys.window("sliding_window"),
        true => Ok(Some(4096)),
        false => Ok(None),
    }
}

/// The windows of Qwen's configs: of no block, or of those from a number on.
pub(super) fn late_windows(keys: Keys<'_>, recipe: &mut Architecture) -> Result<()> {
    let window = asked_window(keys)?;
    let first = keys.size_if("max_window_layers")?.unwrap_or(28);
    windows(keys, recipe, window, |i| window.is_some() && i >= first)
}
