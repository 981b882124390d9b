//! Which layers of a language model are pruned.

use crate::io::Folder;
use crate::lm::{Config, Outline, Outlined};
use crate::{Error, Result};

/// A linear layer of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageLayer {
    /// Its name.
    pub name: String,
    /// Number of its block.
    pub block: usize,
    /// `(out, in)`.
    pub shape: (usize, usize),
}

/// The linear layers of all blocks whose names match one of `only` (all, if there are none) and none of `skip`. In a pattern `*` stands
/// for any characters; a pattern without it matches any name that contains it. Embedding, head, norms and biases are not among them.
///
/// # Errors
/// If the model cannot be read, or a pattern matches no layer.
pub fn language_layers(folder: &Folder, config: &Config, only: &[String], skip: &[String]) -> Result<Vec<LanguageLayer>> {
    let outline = Outline::of(folder, config)?;
    let layer = |l: Outlined| Some(LanguageLayer { block: l.block?, name: l.name, shape: l.shape });
    let mut all: Vec<LanguageLayer> = outline.layers.into_iter().filter_map(layer).collect();
    for pattern in only.iter().chain(skip) {
        if !all.iter().any(|l| matches(pattern, &l.name)) {
            return Err(Error::unknown_layer(pattern, all.iter().map(|l| l.name.as_str())));
        }
    }
    all.retain(|l| (only.is_empty() || only.iter().any(|p| matches(p, &l.name))) && !skip.iter().any(|p| matches(p, &l.name)));
    if all.is_empty() {
        return Err(Error::invalid_option("skip", "no layer is left to prune"));
    }
    Ok(all)
}

/// Whether a name matches a pattern: contains it, or is it with `*` for any characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return name.contains(pattern);
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (i, part) in parts.iter().enumerate() {
        if i + 1 == parts.len() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The kind of a layer: its name behind the number of its block, `mlp.down_proj`.
pub(crate) fn layer_kind(layer: &str) -> String {
    let behind: Vec<&str> = layer.split('.').skip_while(|part| part.parse::<usize>().is_err()).skip(1).collect();
    if behind.is_empty() { layer.to_string() } else { behind.join(".") }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_anything_and_plain_patterns_for_a_part_of_the_name() {
        let name = "model.layers.3.mlp.down_proj";
        for yes in ["down_proj", "*", "*.mlp.*", "model.layers.3.*", "*down_proj", "model*mlp*proj", "layers.3."] {
            assert!(matches(yes, name), "{yes}");
        }
        for no in ["up_proj", "model.layers.30.*", "*mlp", "layers.3*", "*proj.*", "model*attn*"] {
            assert!(!matches(no, name), "{no}");
        }
    }
}
