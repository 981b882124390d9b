//! A family that is not of the crate: OLMo 3, which is OLMo 2 with windows in most blocks (OLMo Team, 2025). Its golden passes every test of the
//! families that are.

use lacuna::Result;
use lacuna::lm::Family;
use lacuna::lm::architecture::{
    Architecture, BlockList, BlockNames, Defaults, Definition, Keys, LLAMA, QueryKeyNorm, USUAL, windows,
};

static OLMO3: Definition =
    Definition { model_type: "olmo3", about: "OLMo 3", architecture, lists: &[BlockList::Windows], ..Definition::USUAL };

fn architecture(keys: Keys<'_>) -> Result<Architecture> {
    let usual = Architecture::usual(keys, Defaults { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA })?;
    let mut architecture = Architecture { query_key: Some(QueryKeyNorm::All), ..usual };
    let window = keys.window("sliding_window")?;
    windows(keys, &mut architecture, window, |i| (i + 1) % 4 != 0)?;
    architecture.stacks[0].parts = BlockNames {
        norm: None,
        query_key: Some(["self_attn.q_norm", "self_attn.k_norm"]),
        attention_after: Some("post_attention_layernorm"),
        feed_norm: None,
        feed_after: Some("post_feedforward_layernorm"),
        ..USUAL
    };
    Ok(architecture)
}

/// Makes it known to this process.
pub fn register() {
    Family::register(&OLMO3).unwrap();
}
