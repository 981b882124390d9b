//! Lacuna decides which weights of a network may go, removes them, stores what is left compactly, multiplies by it, and
//! reports what was lost.
//!
//! ```
//! use lacuna::criteria::{Evidence, Magnitude, Saliency};
//! use lacuna::mask::{Pattern, Scope, select};
//! use lacuna::sparse::{Compress, Csr, LinearOp, apply};
//! use ndarray::array;
//!
//! let weight = array![[3., -1., 0.5, -4.], [0.1, 2., -0.2, 0.3]]; // (out, in)
//! let scores = Magnitude::default().score(&Evidence::weight_only("fc1", &weight))?;
//! let budget = Pattern::Unstructured.budget(2, 4, 0.5)?; // keep 4 of 8
//! let mask = select(&scores, Pattern::Unstructured, Scope::Layer, budget)?;
//! let sparse = Csr::compress(&weight, &mask)?; // keeps 3, -1, -4 and 2
//! assert_eq!((mask.kept(), sparse.nnz()), (4, 4));
//! assert_eq!(apply(&sparse, &array![[1., 1., 1., 1.]]), array![[-2., 2.]]); // y = x · Wᵀ
//! # Ok::<(), lacuna::Error>(())
//! ```
//!
//! # The way of the data
//!
//! ```text
//! model + samples ─── measure ──► Measured ── evidence ──► Evidence ── Saliency ──► scores
//!                                                                                      │
//! layers + Target ──────────────────────── Allocate ──► Budget (one a layer) ── select ┤ Pattern, Scope
//!                                                                                      ▼
//!                  fit, masks held ◄── Model ◄────────────────── set_mask ◄────────── Mask ──► file
//!                        │                │                                            │
//!                 score, Size          shrink                                       Compress
//!                        ▼                ▼                                            ▼
//!            Table · Figure · Page   a smaller Network                      LinearOp: y = x · Wᵀ
//! ```
//!
//! Each arrow is a function whose result can be looked at and tested alone. Pruning, shrinking and compressing return new values
//! and leave their input as it was; training ([`train::fit`]) changes the network that it is given.
//!
//! # Where to begin
//!
//! | to | begin with |
//! |---|---|
//! | score a weight and choose its mask | [`criteria::Saliency`], [`mask::select`] |
//! | prune several weights under one budget | [`nn::NamedLayers`], [`prune::prune_layers`], [`prune::prune_layers_by`] |
//! | prune a model in memory, at once or in steps | [`prune::one_shot`], [`prune::iterative`] |
//! | prune a model of one's own | the traits [`nn::Parameters`], [`nn::Layers`] and [`nn::Model`] (`examples/own_model.rs`) |
//! | prune a language model's folder, as the command does | [`job::PruneJob`] |
//! | open, run and measure a language model | [`lm::LanguageModel`], [`eval::Perplexity`] |
//! | store what is left and multiply by it | [`sparse::Plan`], [`sparse::LinearOp`] |
//! | ask when sparse beats dense | [`advise::Profile`] |
//! | compare a method with all others | [`study::Compare`] |
//!
//! # Conventions
//!
//! - A weight is `(out, in)`, inputs `x` are `(tokens, in)`, outputs `y = x · Wᵀ` are `(tokens, out)`. A convolution's weight
//!   is `(out channels, in channels * height * width)`.
//! - **true = kept**, and a larger score = keep. N:M *keeps* N of every M consecutive inputs.
//! - A [`Budget`](mask::Budget) is a count of the pattern's units (weights, blocks, rows or columns), rounded once. Selection
//!   meets it exactly; of equal scores the one with the lower row-major index stays; a NaN is an error.
//! - A kept weight that happens to be 0 is stored: `nnz == mask.kept()`. Masks are saved, never inferred from zeros.
//! - Weights, activations and scores are `f32`; Gram matrices, factorisations, losses and sums of scores are `f64`.
//! - The same [`Seed`](rng::Seed) gives the same bits for any number of threads.
//! - Density is the fraction that stays, sparsity the fraction that goes.
//! - What a user or a file can get wrong is an [`Error`] with the numbers in it; a broken contract panics, and is listed under
//!   `# Panics`.
//!
//! # Modules, in the order of dependency
//!
//! | module | what it holds |
//! |---|---|
//! | [`error`], [`mask`], [`sparse`], [`kernels`] | the crate `lacuna-sparse`: errors; masks, patterns, budgets, selection; storages and products with them; SIMD, the only `unsafe` code |
//! | [`rng`] | one seed, from it independent streams known by name |
//! | [`linalg`] | dense products, Gram matrices, factorisations |
//! | [`criteria`] | scores: how much each weight matters |
//! | [`allocate`] | how much of each layer stays |
//! | [`quantize`] | weights of few values |
//! | [`solve`] | masks and the weights that survive, chosen together |
//! | [`structure`] | what hangs together: couplings, and the parts of tensors that stay when units are left out |
//! | [`nn`] | layers with hand-written derivatives, losses, optimisers; the traits that join all models |
//! | [`io`] | checkpoints, model folders, GGUF |
//! | [`data`] | labelled samples, real ones inside the crate; tokens of texts |
//! | [`text`] | tokenizers, chat templates, sampling, generation |
//! | [`lm`] | language models, one file a family |
//! | [`models`] | networks of the literature, networks in files, networks stored sparse |
//! | [`calibrate`] | measures what criteria need |
//! | [`eval`] | accuracy, loss, perplexity, choices, parameters, FLOPs |
//! | [`train`] | training with the masks held |
//! | [`report`] | tables, figures and pages, as strings |
//! | [`advise`] | when sparse beats dense on this machine: measured once, asked for any shape |
//! | [`prune`] | the driver: at once, in steps, by whole units, on plain files |
//! | [`sparse_training`] | masks that are found before or while training: lottery tickets, dynamic sparse training, learned masks |
//! | [`job`] | pruning as one value: checked, run with a callback, written as a recipe, kept in a record |
//! | [`study`] | one's own criterion beside every built-in one, over budgets and seeds |
//! | [`paper`] | what the programs of `papers/` share: claims, rules, options |

#![deny(missing_debug_implementations)]

// In dependency order: a module uses only those above it (`tests/layering.rs`).
pub mod rng;
pub mod linalg;
pub mod criteria;
pub mod allocate;
pub mod quantize;
pub mod solve;
pub mod structure;
pub mod nn;
pub mod io;
pub mod data;
pub mod text;
pub mod lm;
pub mod models;
pub mod calibrate;
pub mod eval;
pub mod train;
pub mod report;
pub mod advise;
pub mod prune;
pub mod sparse_training;
pub mod job;
pub mod study;
pub mod paper;

#[doc(inline)]
pub use lacuna_sparse::{Error, Result, error, kernels, mask, storage as sparse};
pub use ndarray;

/// The examples of the README, compiled and run with the other doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
