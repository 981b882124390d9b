//! The families of this crate, one file each: its report, its block as equations, its keys.

mod bert;
mod bloom;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod mixtral;
mod nemotron;
mod olmo2;
mod opt;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen_moe;
mod olmoe;
mod smollm3;
mod stablelm;
mod t5;

use super::architecture::Definition;

/// All of them, in the order in which messages and tables name them.
pub(super) static STANDARD: [&Definition; 23] = [
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &smollm3::FAMILY,
    &olmo2::FAMILY,
    &phi::FAMILY,
    &phi3::FAMILY,
    &nemotron::FAMILY,
    &stablelm::FAMILY,
    &gpt2::FAMILY,
    &opt::FAMILY,
    &gpt_neox::FAMILY,
    &bloom::FAMILY,
    &mixtral::FAMILY,
    &qwen_moe::QWEN2,
    &qwen_moe::QWEN3,
    &olmoe::FAMILY,
    &bert::FAMILY,
    &t5::FAMILY,
];
