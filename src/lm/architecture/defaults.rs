//! What a family takes where its config says nothing.

/// What differs between the defaults of families that share their keys.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Heads of keys and values; as many as of queries if there is none.
    pub kv_heads: Option<usize>,
    /// Width of a head; the hidden size is shared out if there is none.
    pub head_dim: Option<usize>,
    /// Key and default of the norms' ε.
    pub epsilon: (&'static str, f64),
    /// Key and default of the activation.
    pub activation: (&'static str, &'static str),
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether positions are rotary.
    pub turned: bool,
    /// The base of rotary frequencies.
    pub theta: f64,
    /// Share of a head that is turned, where a config may say another; none where whole heads are.
    pub rotary: Option<f64>,
    /// The context of the first training, for positions that are stretched beyond it.
    pub original: Option<usize>,
}

/// Llama's own.
pub const LLAMA: Defaults = Defaults {
    kv_heads: None,
    head_dim: None,
    epsilon: ("rms_norm_eps", 1e-6),
    activation: ("hidden_act", "silu"),
    tied: false,
    turned: true,
    theta: 1e4,
    rotary: None,
    original: None,
};
