//! Files: read back as written, refused in one line when damaged, whole or not at all.

#[path = "io/atomic.rs"]
mod atomic;
#[path = "io/common.rs"]
mod common;
#[path = "io/data.rs"]
mod data;
#[path = "io/foreign_masks.rs"]
mod foreign_masks;
#[path = "io/small_sets.rs"]
mod small_sets;
#[path = "io/safetensors.rs"]
mod safetensors;
#[path = "io/storages.rs"]
mod storages;
