//! What a family takes where its config says nothing.

/// What differs between the defaults of families that share their keys.
pub(super) struct Defaults {
    /// Heads of keys and values; as many as of queries if there is none.
    pub(super) kv_heads: Option<usize>,
    /// Width of a head; the hidden size is shared out if there is none.
    pub(super) head_dim: Option<usize>,
    /// Key and default of the norms' ε.
    pub(super) epsilon: (&'static str, f64),
    pub(super) activation: (&'static str, &'static str),
    pub(super) tied: bool,
    /// Share of a head that is turned, where a config may say another; none where whole heads are.
    pub(super) rotary: Option<f64>,
    /// The context of the first training, for positions that are stretched beyond it.
    pub(super) original: Option<usize>,
}

/// Llama's own.
pub(super) const LLAMA: Defaults = Defaults {
    kv_heads: None,
    head_dim: None,
    epsilon: ("rms_norm_eps", 1e-6),
    activation: ("hidden_act", "silu"),
    tied: false,
    rotary: None,
    original: None,
};
