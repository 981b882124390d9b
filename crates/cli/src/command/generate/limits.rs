//! Where a text ends: at tokens that end one, and at the positions and the memory that there are.

use super::args::Args;
use lacuna::io::Folder;
use lacuna::lm::Config;
use lacuna::text::Tokenizer;
use lacuna::{Error, Result};

/// The tokens that end a text, by config.json and generation_config.json; in a chat that of the tokenizer too, which ends a turn; and texts
/// of `--stop` that are tokens for control, which have no text when they come.
pub fn ends(args: &Args, folder: &Folder, config: &Config, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut ends: Vec<u32> = args.stop.iter().filter_map(|text| tokenizer.control(text)).collect();
    if args.ignore_end {
        return Ok(ends);
    }
    ends.extend(config.eos());
    if let Some(named) = folder.json("generation_config.json")?.as_ref().and_then(|g| g.get("eos_token_id")) {
        let listed = named.as_array().map_or(std::slice::from_ref(named), Vec::as_slice);
        ends.extend(listed.iter().filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())));
    }
    ends.extend(tokenizer.eos(folder.config()).filter(|_| args.chat));
    Ok(ends)
}

/// Refuses more tokens than the model has positions for, or the machine memory. Where positions go on behind what the model was trained
/// for, says so.
pub fn check_room(tokens: usize, prompt: usize, config: &Config) -> Result<()> {
    let whole = prompt.saturating_add(tokens);
    let asked = format!("{tokens} tokens behind a prompt of {prompt}");
    if let Some(learned) = config.max_positions().filter(|n| *n < whole) {
        return Err(Error::invalid_option("tokens", format!("{asked}; the model has learned {learned} positions")));
    }
    let width = |i: usize| config.widths(i).kv_heads * config.widths(i).head_dim;
    let each: usize = (0..config.layers()).map(|i| 2 * size_of::<f32>() * width(i)).sum();
    let needed = whole as f64 * each as f64;
    if let Some(memory) = lacuna::eval::machine_memory().filter(|memory| needed > *memory as f64) {
        let (needed, memory) = (needed / 1e9, memory as f64 / 1e9);
        let reason = format!("{asked} need {needed:.1} GB for keys and values; this machine has {memory:.1} GB of memory");
        return Err(Error::invalid_option("tokens", reason));
    }
    if let Some(stated) = config.stated_context().filter(|n| *n < whole && !config.is_encoder_decoder()) {
        eprintln!(
            "note: {asked} may go beyond the context of {stated} that config.json states, for which the model was not trained"
        );
    }
    Ok(())
}
