//! What every entry asks before it works.

use super::Sequential;
use crate::lm::Config;
use crate::{Error, Result};

/// Refuses a model whose layers' inputs are not measured: an encoder-decoder, where a layer of the decoder sees two texts. Criteria that need
/// the weights alone prune it like any other.
///
/// # Errors
/// [`Error::InvalidOption`] that says what does work.
pub fn check_measurable(config: &Config) -> Result<()> {
    if !config.is_encoder_decoder() {
        return Ok(());
    }
    let reason = "an encoder-decoder, whose layers' inputs and gradients are not measured; it is pruned by its weights alone: \
                  magnitude, magnitude-l2 or random, allocated by uniform, global, er, erk or lamp";
    Err(Error::invalid_option("model", reason))
}

/// Refuses to train blocks of experts where their layers follow one another: an expert sees some of the tokens, and not all experts are in memory.
///
/// # Errors
/// [`Error::InvalidOption`] that says what does work.
pub(in crate::prune) fn check_trained(config: &Config, sequential: Sequential) -> Result<()> {
    if config.experts().is_none() || sequential == Sequential::Block {
        return Ok(());
    }
    let reason = "blocks of experts are trained whole, and not where their layers are taken in turn: give --turn block";
    Err(Error::invalid_option("reconstruct-blocks", reason))
}

/// Refuses what needs more bytes of memory than are free, where the system says how many are.
pub(super) fn fits_memory(option: &str, what: &str, bytes: Option<u64>) -> Result<()> {
    let (Some(free), gigabytes) = (crate::eval::available_memory(), |n: u64| n as f64 / 1e9) else { return Ok(()) };
    match bytes {
        Some(bytes) if bytes <= free => Ok(()),
        _ => {
            let needed = bytes.map_or("more than can be counted".to_string(), |n| format!("{:.1} GB", gigabytes(n)));
            Err(Error::invalid_option(option, format!("{what} need {needed} of memory; {:.1} GB are free", gigabytes(free))))
        }
    }
}
