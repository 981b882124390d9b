//! Which tensors of a file are a model's embedding and head.
//!
//! The config says whether the head is the embedding; a file may hold either of them, both, or the embedding under other names. What is
//! read is what the newer reference library reads: the one that is there, and of two that differ each for itself.

use super::architecture::Architecture;
use crate::io::{Weights, quoted};
use crate::{Error, Result};

/// The ends of a model in a file.
#[derive(Debug, Clone)]
pub(super) struct Tie {
    /// The name of the embedding, which may be that of the head.
    pub(super) embedding: String,
    /// Whether the head is the embedding.
    pub(super) tied: bool,
    /// Tensors that are the embedding over again.
    pub(super) copies: Vec<String>,
    /// What a user should know: file and config do not say the same.
    pub(super) remark: Option<String>,
}

fn tensor(name: &str) -> String {
    format!("{name}.weight")
}

/// Looks at the names; numbers are read only where there are two tensors that may be one.
pub(super) fn find(name: impl Fn(&str) -> String, weights: &dyn Weights, recipe: &Architecture) -> Result<Tie> {
    let names = &recipe.names;
    let head = names.head;
    let here: Vec<String> = names.embedding.iter().map(|part| name(part)).collect();
    let mut present = here.iter().filter(|name| weights.contains(&tensor(name))).cloned();
    let head_is_there = weights.contains(&tensor(head));
    let Some(embedding) = present.next() else {
        let (tied, embedding) = match recipe.tied && head_is_there {
            true => (true, head.to_string()),
            false => (recipe.tied, here.into_iter().next().unwrap_or_default()),
        };
        return Ok(Tie { embedding, tied, copies: Vec::new(), remark: None });
    };
    let mut copies = Vec::new();
    for other in present {
        let [a, b] = [tensor(&embedding), tensor(&other)];
        if !weights.same(&a, &b)? {
            let reason = format!("tensor {} differs from {}; they are one embedding here", quoted(&b), quoted(&a));
            return Err(Error::invalid_option("weights", reason));
        }
        copies.push(b);
    }
    let (mut tied, mut remark) = (recipe.tied, None);
    if !head_is_there && !recipe.tied && recipe.own_head {
        tied = true;
        let (head, embedding) = (quoted(&tensor(head)), quoted(&tensor(&embedding)));
        remark = Some(format!("tie_word_embeddings is false, but there is no {head}: the head is {embedding}"));
    } else if head_is_there && recipe.tied {
        let [here, there] = [tensor(&embedding), tensor(head)];
        let (shape, found) = (weights.shape(&here)?, weights.shape(&there)?);
        tied = shape != found || weights.same(&here, &there)?;
        let (embedding, head) = (quoted(&here), quoted(&there));
        if shape != found {
            remark = Some(format!("{head} has shape {found:?}, which is not that of {embedding}: it is passed over"));
        } else if tied {
            copies.push(there);
        } else if !recipe.own_head {
            remark = Some(format!(
                "tie_word_embeddings is true, but {head} differs from {embedding}: each is used as it is (transformers 4 would take \
                 the embedding for both)"
            ));
        }
    }
    Ok(Tie { embedding, tied, copies, remark })
}
