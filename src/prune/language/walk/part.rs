//! The parts of a block in the order in which they are measured.

use crate::nn::Block;

/// The parts of a block whose layers share an input, or follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::prune) enum Part {
    /// The layers that make queries, keys and values.
    Opening,
    /// The one behind attention.
    Output,
    /// The first feed-forward layers.
    Feed,
    /// The last feed-forward layer.
    Down,
}

impl Part {
    /// The names of a block's layers of this part.
    pub fn names(self, block: &Block) -> Vec<String> {
        let feed = block.feed_forward().map_or_else(Vec::new, |feed| feed.linears());
        let attention = block.attention().linears();
        let (layers, last) = match self {
            Part::Opening => (&attention[..attention.len() - 1], false),
            Part::Output => (&attention[..], true),
            // Where experts stand in their place there are none.
            Part::Feed | Part::Down if feed.is_empty() => return Vec::new(),
            Part::Feed => (&feed[..feed.len() - 1], false),
            Part::Down => (&feed[..], true),
        };
        let layers = if last { &layers[layers.len() - 1..] } else { layers };
        layers.iter().map(|l| l.name().to_string()).collect()
    }
}
