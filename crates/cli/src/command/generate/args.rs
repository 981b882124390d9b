//! The options of `lacuna generate`.

use clap::Parser;
use std::path::PathBuf;

/// Continues a text, or answers one.
#[derive(Parser)]
pub struct Args {
    /// The model's folder
    pub dir: PathBuf,
    /// The text to continue (for an encoder-decoder and with --chat: the text to answer); - is standard input, without the line break at its
    /// end
    #[arg(long, required_unless_present = "many")]
    pub prompt: Option<String>,
    /// The prompt is what a user says, and the model answers: by the chat template of its folder
    #[arg(long)]
    pub chat: bool,
    /// What the model is told before the user speaks
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// The text ends before this one; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Tokens at most
    #[arg(long, default_value_t = 100)]
    pub tokens: usize,
    /// Writes N texts of the model's own side by side, as lines of JSON, to calibrate on: each behind the token that stands between documents, the
    /// first four tokens drawn from the whole distribution, the others as --temperature, --top-k and --top-p say, by default likewise; text i is
    /// drawn from --seed + i
    #[arg(long, value_name = "N", conflicts_with_all = ["prompt", "chat", "stop", "greedy", "ignore_end"], requires = "out")]
    pub many: Option<usize>,
    /// The file of lines of JSON of --many: text, tokens, seed, perplexity
    #[arg(long, value_name = "FILE.jsonl", requires = "many")]
    pub out: Option<PathBuf>,
    /// Of the texts of --many so large a fraction is written too and dropped: that of highest perplexity; in [0, 1)
    #[arg(long, value_name = "X", requires = "many", allow_negative_numbers = true, default_value_t = 0.2)]
    pub drop: f64,
    /// Texts of --many side by side
    #[arg(long, value_name = "N", requires = "many", default_value_t = 32)]
    pub batch: usize,
    /// Always the likeliest token; so it is unless one of the next three is given
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    pub greedy: bool,
    /// Divides the logits before a token is drawn; 0 is greedy [default: 1 with --top-k or --top-p]
    #[arg(long, allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Draws from the likeliest K tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draws from the fewest tokens that hold this share of the probability, in (0, 1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Goes on after a token that ends a text
    #[arg(long)]
    pub ignore_end: bool,
    /// In which storage pruned layers run: auto, dense, or one of those of bench
    #[arg(long, default_value = "auto")]
    pub format: String,
    /// Bits of activations in products with weights of 4 and 8 bits: 32, or 8, which is faster
    #[arg(long, value_name = "BITS", default_value = "32")]
    pub activation_bits: String,
    /// Replaces the file of --many that is there
    #[arg(long, requires = "many")]
    pub force: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}
