//! What a pass through a layer keeps.

/// What a layer keeps from its forward pass for its derivatives, besides input and output.
#[derive(Debug, Clone)]
pub enum Saved {
    /// Nothing more.
    Nothing,
    /// Max pooling: for each output the input it was, within the sample.
    Chosen(Vec<u32>),
    /// Batch normalisation: what it subtracted and divided by, and over how many numbers of a channel that was measured
    /// (0: running statistics).
    Norm {
        /// μ of each channel.
        mean: Vec<f32>,
        /// σ² of each channel.
        variance: Vec<f32>,
        /// 1/√(σ² + ε) of each channel.
        inverse: Vec<f32>,
        /// Numbers of a channel.
        count: usize,
    },
}
