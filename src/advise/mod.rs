//! When does sparse beat dense, on this machine and for these shapes?
//!
//! A [`Profile`] is what was measured of a machine once: the fastest dense product and the fastest sparse storage at the points of a [`MeasurementGrid`] of
//! shapes, tokens, sparsities and patterns, all in turns ([`measure`]). It is a plain value, kept in a file ([`ProfileFile`]). [`Profile::advise`] answers
//! a [`Query`] from it in microseconds: a storage, the speed-up over dense with its spread, and the sparsity from which on sparse wins.
//!
//! Between the points the time of a weight and token is interpolated, in logarithms, by straight lines: along the logarithms of tokens and of
//! the number of weights, and along the sparsity. Weights that are not square are corrected by those of their ratio that were measured. Beyond
//! the points the nearest one is taken, and the answer says of what it is extrapolated.
//!
//! A [`SpeedTrial`] times whole language models in turns.
//!
//! ```
//! use lacuna::advise::{ShapeTimings, MeasurementGrid, Key, Median, Profile, Query, Sparse};
//! let us = |us: f64| Median { us, low: 0.98 * us, high: 1.02 * us };
//! let sparse = |sparsity, time| Sparse { pattern: "unstructured".parse().unwrap(), sparsity, format: "bitmask:128".into(), time: us(time) };
//! let cell = ShapeTimings {
//!     shape: (1024, 1024), tokens: 1, from_memory: false, dense: us(100.0), dense_kernel: "lacuna".into(),
//!     sparse: vec![sparse(0.5, 125.0), sparse(0.9, 50.0)],
//! };
//! let profile = Profile { key: Key::here(1), grid: MeasurementGrid::quick(), seconds: 1.0, last_cache: 32 << 20, cells: vec![cell] };
//! let advice = profile.advise(&Query::new((1024, 1024), 1, 0.9))?;
//! assert!((advice.speedup.median - 2.0).abs() < 1e-9 && advice.storage == "bitmask:128" && advice.extrapolated.is_empty());
//! // Between 0.8 at a sparsity of 0.5 and 2 at 0.9: the straight line of logarithms passes 1 at 0.597.
//! assert_eq!(advice.wins_from.map(|s| (s * 1000.0).round()), Some(597.0));
//! # Ok::<(), lacuna::Error>(())
//! ```

mod round_robin;
mod grid;
mod profile;
mod measure;
mod line;
mod estimate;
mod advice;
mod profile_file;
mod model;
mod speed;

pub use advice::{Advice, Query, Speedup};
pub use grid::MeasurementGrid;
pub use measure::{in_pool, measure};
pub use model::{LayerShape, ModelAdvice, Row, layers_of};
pub use profile::{Key, Median, Profile, ShapeTimings, Sparse};
pub use profile_file::ProfileFile;
pub use round_robin::{Contender, RoundRobin, Timed};
pub use speed::{Rate, Speed, SpeedTrial, memory_bandwidth};
