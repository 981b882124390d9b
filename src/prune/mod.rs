//! The driver: scores, allocates, selects, and holds the masks; at once, in steps, unit by unit, or weight by weight.
//!
//! Nothing here changes its input: a pruned network is a new one.

mod oneshot;
mod language;
mod quantized;
mod checkpoint;
mod schedule;
mod shrink;
mod structured;
mod experts;
mod surgeon;
mod units;

pub use checkpoint::{LeftAlone, PrunedTensor, left_alone, prunable, prune_checkpoint};
pub use experts::{ExpertRecord, ExpertRemoval, ExpertRun, ExpertScore, remove_experts};
pub use language::{
    ActivationMemory, BlockOutliers, BlockReconstruction, CalibrationInputs, ChosenOnTexts, Correction, Cost, Generalisation,
    LanguageLayer, LanguagePruning, LanguageRun, LayerLevel, LayerRanking, LayerRecord, LevelSettings, Levels, Progress,
    PrunedFolder, ReadProgress, SequenceGradients, Sequential, allocated, allocated_with, check_measurable, language_layers,
    of_blocks, outliers, prune_language, unfinished_settings,
};
pub(crate) use language::{layer_kind, matches};
pub use oneshot::{NamedMasks, Outcome, Pruning, choose, compensated, one_shot, prune_layers, prune_layers_by};
pub(crate) use oneshot::{ToPrune, check_pruning, ranks, wanted};
pub(crate) use quantized::whole_layers;
pub use quantized::{LanguageQuantizing, QuantRecord, QuantizeRun, QuantizedFolder, quantize_language};
pub use schedule::{Schedule, iterative};
pub use shrink::shrink;
pub use structured::{
    Aggregate, Aggregation, BlockWidths, DecodeCost, DepthScore, HalfErrors, HiddenScore, LanguageShrinking, LayerChoice,
    OutputMetrics, PartSize, ScoredUnits, SearchRecord, ShrinkRecord, ShrinkRun, ShrinkSizes, ShrunkFolder, SizeAmount,
    SizeSearch, SizeTarget, SubLayer, SubLayerChoice, SubLayerKind, Tried, UnitCurve, UnitMethod, UnitRecord, UnitScores,
    VocabularyCut, search_sizes, shrink_language, spread_widths,
};
pub use surgeon::{Criterion, Removed, Surgeon};
pub use units::prune_units;
