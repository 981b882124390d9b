//! Masks that are found before training or while training.
//!
//! Everything is written against the traits of [`nn`](crate::nn): a chain of layers and a language model are trained by the same calls.
//!
//! | | | masks | source |
//! |---|---|---|---|
//! | [`winning_tickets`] | lottery tickets, with rewinding and [`Control`]s | shrink between runs of training | Frankle, Carbin 2019 |
//! | [`prune::iterative`](crate::prune::iterative) with a recovery | magnitude pruning with retraining | shrink between runs of training | Han et al. 2015 |
//! | [`prune_before_training`] | SNIP, iterative SNIP, GraSP, SynFlow | found at initialisation | Lee 2019, Wang 2020, Tanaka 2020 |
//! | [`FixedMask`] | static sparse training | drawn at random, never change | |
//! | [`SparseEvolution`] | SET | the smallest weights for random ones | Mocanu et al. 2018 |
//! | [`Rigl`] | RigL | the smallest weights for those of the largest gradients | Evci et al. 2020 |
//! | [`GradualMagnitude`] | gradual magnitude pruning | shrink by a cubic schedule | Zhu, Gupta 2017 |
//! | [`Acdc`] | AC/DC | dense and sparse phases in turns | Peste et al. 2021 |
//! | [`TopKast`] | Top-KAST | the largest weights, anew every few steps | Jayakumar et al. 2020 |
//! | [`Movement`] | movement pruning | by scores that are learnt | Sanh et al. 2020 |
//! | [`SoftThreshold`] | STR | by thresholds that are learnt | Kusupati et al. 2020 |
//! | [`HardConcrete`] | L0 | by gates that are learnt, of weights or units | Louizos et al. 2018 |
//! | [`EdgePopup`] | supermasks | by scores that are learnt, of random weights | Ramanujan et al. 2020 |
//! | [`GumbelPattern`] | MaskLLM | N:M, each group's among all candidates | Fang et al. 2024 |
//!
//! [`train_sparse`] trains by any [`SparseMethod`] and counts [`TrainingFlops`]. Methods that run on other weights than those that they train
//! are a [`Reparametrization`], which [`Reparametrized`] makes a method of. All products are dense here: what is sparse is counted, not
//! faster.

mod method;
mod flops;
mod choice;
mod run;
mod lottery;
mod controls;
mod before;
mod fixed;
mod exchange;
mod evolution;
mod rigl;
mod gradual;
mod acdc;
mod reparametrized;
mod top_kast;
mod movement;
mod soft_threshold;
mod hard_concrete;
mod edge_popup;
mod gumbel;

pub use acdc::Acdc;
pub use before::prune_before_training;
pub use choice::MaskChoice;
pub use controls::{Control, controlled};
pub use edge_popup::EdgePopup;
pub use evolution::SparseEvolution;
pub use exchange::exchange;
pub use fixed::FixedMask;
pub use flops::TrainingFlops;
pub use gradual::GradualMagnitude;
pub use gumbel::GumbelPattern;
pub use hard_concrete::HardConcrete;
pub use lottery::{LotteryTickets, Ticket, winning_tickets};
pub use method::{Prunable, SparseMethod, UsedWeights};
pub use movement::{Movement, SoftMovement};
pub use reparametrized::{Effective, OwnTraining, Reparametrization, Reparametrized};
pub use rigl::Rigl;
pub use run::{SparseTraining, train_sparse};
pub use soft_threshold::SoftThreshold;
pub use top_kast::TopKast;
