//! Derivatives are held to what they are derivatives of: gradients to central differences of the loss, Hessian-vector products
//! to central differences of gradients, curvature to Hessian-vector products, the Fisher diagonal to gradients of single
//! samples; and what stands on them (convolution, optimisers, thread counts) to naive formulas.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;
#[path = "gradients/activation.rs"]
mod activation;
#[path = "gradients/convolution.rs"]
mod convolution;
#[path = "gradients/curvature.rs"]
mod curvature;
#[path = "gradients/first_order.rs"]
mod first_order;
#[path = "gradients/fisher.rs"]
mod fisher;
#[path = "gradients/flow.rs"]
mod flow;
#[path = "gradients/hessian.rs"]
mod hessian;
#[path = "gradients/nets.rs"]
mod nets;
#[path = "gradients/optimizer.rs"]
mod optimizer;
#[path = "gradients/samples.rs"]
mod samples;
#[path = "gradients/threads.rs"]
mod threads;
