//! Which blocks see a window: `layer_types`, or a rule by their number.

use super::keys::{Keys, setting};
use super::parts::Architecture;
use crate::Result;

/// Gives each block a window or none: as `layer_types` says, and where the config has no such list as `sliding(block)` says.
///
/// # Errors
/// If an entry of the list is neither `sliding_attention` nor `full_attention`, or a block sees a window and `window` is none.
pub fn windows(
    keys: Keys<'_>,
    architecture: &mut Architecture,
    window: Option<usize>,
    sliding: impl Fn(usize) -> bool,
) -> Result<()> {
    let kinds = keys.list_if("layer_types", architecture.layers.len())?;
    for (i, layer) in architecture.layers.iter_mut().enumerate() {
        let sliding = match kinds.map(|kinds| kinds[i].as_str().unwrap_or_default()) {
            None => sliding(i),
            Some("sliding_attention") => true,
            Some("full_attention") => false,
            Some(other) => {
                let reason = format!("{} is neither sliding_attention nor full_attention", crate::io::quoted(other));
                return Err(setting("layer_types", reason));
            }
        };
        layer.rule.window = match (sliding, window) {
            (true, None) => return Err(setting("sliding_window", format!("block {i} sees a window, and none is given"))),
            (true, window) => window,
            (false, _) => None,
        };
    }
    Ok(())
}
