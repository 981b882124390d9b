//! The command as its users run it: what it writes and prints, and one line and exit code 2 for whatever is wrong.

#[path = "cli/advise.rs"]
mod advise;
#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/bench.rs"]
mod bench;
#[path = "../../../tests/checkpoints/build.rs"]
mod build;
#[path = "cli/common.rs"]
mod common;
#[path = "cli/families.rs"]
mod families;
#[path = "cli/few_bits.rs"]
mod few_bits;
#[path = "cli/language.rs"]
mod language;
#[path = "cli/pipelines.rs"]
mod pipelines;
#[path = "cli/places.rs"]
mod places;
#[path = "cli/plain_files.rs"]
mod plain_files;
#[path = "cli/opening.rs"]
mod opening;
#[path = "cli/prune_language.rs"]
mod prune_language;
#[path = "cli/prune_runs.rs"]
mod prune_runs;
#[path = "cli/pruning.rs"]
mod pruning;
#[path = "cli/recipes.rs"]
mod recipes;
#[path = "cli/shrink.rs"]
mod shrink;
#[path = "cli/shrink_scores.rs"]
mod shrink_scores;
#[path = "cli/texts.rs"]
mod texts;
#[path = "cli/train.rs"]
mod train;
#[path = "cli/words.rs"]
mod words;
#[path = "cli/quantize.rs"]
mod quantize;
#[path = "cli/readme.rs"]
mod readme;
