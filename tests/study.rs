//! Comparisons of methods: against loops by hand, with methods that are not of this crate, on networks, lists of layers and a language model.

#[path = "study/common.rs"]
mod common;
#[path = "study/contracts.rs"]
mod contracts;
#[path = "language/common.rs"]
#[allow(dead_code)]
mod language;
#[path = "study/numbers.rs"]
mod numbers;
#[path = "../examples/own_model.rs"]
mod own_model;
#[path = "study/refused.rs"]
mod refused;
#[path = "study/subjects.rs"]
mod subjects;
#[path = "study/tables.rs"]
mod tables;
