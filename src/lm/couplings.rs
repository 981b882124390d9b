//! What hangs together in a language model: the couplings of an architecture, under the names of one file.
//!
//! ```text
//! feed-forward unit   its row of each part of the up-projection with the bias, its column of the down-projection
//! head                its rows of the queries, its columns of the output; of heads that share no keys and values, its rows of those too
//! key-value group     its rows of keys and values, the rows and columns of all its heads
//! hidden feature      its column of the embedding, of the head and of learned positions; of every norm; columns of what reads the hidden
//!                     states, rows of what adds to them
//! layer               everything in its block
//! vocabulary entry    its row of the embedding and of the head
//! ```
//!
//! Norms of queries and keys over each head are every head's and stay; of norms over all heads a head has its part. Where one layer's rows go
//! group by group, a unit is a group. Where the slopes of scores follow from the number of heads (ALiBi), no head is a unit.
//!
//! T5 adds one bias to the scores of all blocks of a stack, by head: a head of such a stack is that head of all its blocks.

use super::Config;
use super::architecture::{Architecture, BlockNames, BlockPlan, ExpertNames, Experts, QkvLayout, QueryKeyNorm, Stack, UpNames};
use super::load::Reader;
use super::tie::Tie;
use crate::Result;
use crate::io::Weights;
use crate::structure::{Coupling, Extent, Member, Side, UnitKind};

/// What hangs together in a model, under the names of these weights: block by block heads (groups of keys and values before the heads within
/// them) and feed-forward units, then hidden features, layers and the vocabulary. Every tensor of the model is in some of them.
///
/// # Errors
/// If the file has two embeddings that differ, or cannot be read. No numbers are read, unless there are two tensors that may be one.
pub fn couplings(weights: &dyn Weights, config: &Config) -> Result<Vec<Coupling>> {
    let reader = Reader::new(weights, config);
    let tie = reader.tie()?;
    let names = Names { recipe: config.recipe(), reader: &reader };
    Ok(names.couplings(&tie))
}

struct Names<'a> {
    recipe: &'a Architecture,
    reader: &'a Reader<'a>,
}

impl Names<'_> {
    fn couplings(&self, tie: &Tie) -> Vec<Coupling> {
        let (mut all, mut layers, mut hidden) = (Vec::new(), Vec::new(), self.ends(tie));
        let mut block = 0;
        for stack in &self.recipe.stacks {
            let blocks: Vec<(usize, String)> =
                (0..stack.blocks).map(|i| (block + i, self.reader.name(&format!("{}.{i}.", stack.path)))).collect();
            if let (Some(_), Some((first, path))) = (self.recipe.relative, blocks.first()) {
                all.push(self.shared_heads(stack, &blocks, *first, path));
            }
            for (number, path) in &blocks {
                all.extend(self.block(stack, *number, path));
                hidden.extend(self.hidden(stack, *number, path));
                layers.extend(self.whole(stack, *number, path));
            }
            block += stack.blocks;
            hidden.extend(stack.final_norm.iter().flat_map(|norm| self.norm(&self.reader.name(norm))));
        }
        let of_all =
            |name: &str, kind, units, members| Coupling { name: name.into(), kind, block: None, units, runs: 1, members };
        all.push(of_all("hidden", UnitKind::Hidden, self.recipe.hidden, hidden));
        all.push(of_all("layers", UnitKind::Layer, self.recipe.layers.len(), layers));
        all.push(of_all("vocabulary", UnitKind::Vocabulary, self.recipe.vocab, self.entries(tie)));
        all
    }

    /// Rows of a layer and entries of its bias.
    fn rows(&self, layer: &str, bias: bool, offset: usize, width: usize) -> Vec<Member> {
        let part = |axis| Extent::Slice { axis, offset, width };
        let weight =
            Member { tensor: format!("{layer}.weight"), part: part(usize::from(self.recipe.transposed)), side: Side::Makes };
        let bias = bias.then(|| Member { tensor: format!("{layer}.bias"), part: part(0), side: Side::Makes });
        [weight].into_iter().chain(bias).collect()
    }

    /// Columns of a layer.
    fn columns(&self, layer: &str, width: usize) -> Member {
        let part = Extent::Slice { axis: usize::from(!self.recipe.transposed), offset: 0, width };
        Member { tensor: format!("{layer}.weight"), part, side: Side::Reads }
    }

    fn norm(&self, name: &str) -> Vec<Member> {
        let part = Extent::Slice { axis: 0, offset: 0, width: 1 };
        let weight = Member { tensor: format!("{name}.weight"), part, side: Side::Scales };
        let bias = self.recipe.norm_bias.then(|| Member { tensor: format!("{name}.bias"), part, side: Side::Shifts });
        [weight].into_iter().chain(bias).collect()
    }

    /// The hidden features outside the blocks.
    fn ends(&self, tie: &Tie) -> Vec<Member> {
        let part = Extent::Slice { axis: 1, offset: 0, width: 1 };
        let makes = |tensor: String| Member { tensor, part, side: Side::Makes };
        let names = &self.recipe.names;
        let mut members = Vec::new();
        let narrow = self.recipe.embedding_width.is_some();
        if narrow {
            // Embedding and head keep their width; the layers between it and that of the hidden states follow.
            let [inward, outward] = names.projections.map(|name| self.reader.name(name));
            members.extend(self.rows(&inward, false, 0, 1));
            members.push(self.columns(&outward, 1));
        } else {
            members.push(makes(format!("{}.weight", tie.embedding)));
            members.extend(tie.copies.iter().cloned().map(makes));
        }
        if self.recipe.token_types.is_some() {
            members.push(makes(format!("{}.weight", self.reader.name(names.token_types))));
        }
        members.extend(names.embedding_norm.iter().flat_map(|norm| self.norm(&self.reader.name(norm))));
        if self.recipe.positions.is_some() {
            members.push(makes(format!("{}.weight", self.reader.name(self.recipe.names.positions))));
        }
        if !tie.tied && !narrow {
            members.push(Member { tensor: format!("{}.weight", self.recipe.names.head), part, side: Side::Reads });
        }
        members
    }

    /// The entries of the vocabulary.
    fn entries(&self, tie: &Tie) -> Vec<Member> {
        let part = Extent::Slice { axis: 0, offset: 0, width: 1 };
        let member = |tensor: String| Member { tensor, part, side: Side::Makes };
        let mut members = vec![member(format!("{}.weight", tie.embedding))];
        members.extend(tie.copies.iter().cloned().map(member));
        if !tie.tied {
            members.push(member(format!("{}.weight", self.recipe.names.head)));
        }
        members.extend(self.recipe.head_bias.then(|| member(format!("{}.bias", self.recipe.names.head))));
        members
    }

    /// Heads and feed-forward units of a block.
    fn block(&self, stack: &Stack, number: usize, path: &str) -> Vec<Coupling> {
        let (parts, layer) = (&stack.parts, &self.recipe.layers[number]);
        let of = |name: &str, kind, units, runs, members| Coupling {
            name: format!("{path}{name}"),
            kind,
            block: Some(number),
            units,
            runs,
            members,
        };
        let heads = layer.heads;
        let mut all = Vec::new();
        if self.recipe.relative.is_none() && !self.recipe.alibi && heads.queries > 0 {
            let grouped = self.recipe.qkv == QkvLayout::Grouped;
            if heads.keys != heads.queries {
                let members = self.attention(path, parts, layer, true);
                all.push(of(parts.output, UnitKind::KvGroup, heads.keys, 1, members));
            }
            if heads.keys == heads.queries || !grouped {
                let members = self.attention(path, parts, layer, false);
                let runs = if heads.keys == heads.queries { 1 } else { heads.keys };
                all.push(of(parts.output, UnitKind::Head, heads.queries, runs, members));
            }
        }
        if let Some([_, q, k, v, output]) = parts.cross {
            let apart = [q, k, v]
                .into_iter()
                .flat_map(|part| self.rows(&format!("{path}{part}"), self.recipe.attention_bias, 0, heads.dim));
            let mut members: Vec<Member> = apart.collect();
            members.push(self.columns(&format!("{path}{}", output), heads.dim));
            // A table that files of the first T5 hold, and that nothing reads.
            let table =
                self.reader.name(&format!("{}.0.{}", stack.path, "layer.1.EncDecAttention.relative_attention_bias.weight"));
            if number == self.recipe.layers.len() - stack.blocks && self.reader.contains(&table) {
                members.push(Member { tensor: table, part: Extent::Slice { axis: 1, offset: 0, width: 1 }, side: Side::Shifts });
            }
            all.push(of(output, UnitKind::Head, heads.queries, 1, members));
        }
        if self.recipe.experts(number).is_some() || layer.intermediate == 0 {
            return all;
        }
        let (bias, width) = (self.recipe.feed_bias, layer.intermediate);
        let mut members = match parts.opening {
            UpNames::Plain(up) => self.rows(&format!("{path}{up}"), bias, 0, 1),
            UpNames::Gated(gate, up) => {
                [gate, up].into_iter().flat_map(|part| self.rows(&format!("{path}{part}"), bias, 0, 1)).collect()
            }
            UpNames::Fused(both) => {
                [0, width].into_iter().flat_map(|offset| self.rows(&format!("{path}{both}"), bias, offset, 1)).collect()
            }
        };
        members.push(self.columns(&format!("{path}{}", parts.down), 1));
        all.push(of(parts.down, UnitKind::FeedForward, width, 1, members));
        all
    }

    /// Where the heads of an attention lie, or its groups of keys and values with all their heads.
    fn attention(&self, path: &str, parts: &BlockNames, layer: &BlockPlan, groups: bool) -> Vec<Member> {
        let heads = layer.heads;
        let bias = self.recipe.attention_bias;
        let share = heads.share();
        let width = if groups { share * heads.dim } else { heads.dim };
        let with_keys = groups || share == 1;
        let (q, kv) = (heads.queries * heads.dim, heads.keys * heads.dim);
        // Of queries, keys and values where they begin, and what a unit has of each.
        let wanted = [Some((0, width)), with_keys.then_some((q, heads.dim)), with_keys.then_some((q + kv, heads.dim))];
        let mut members: Vec<Member> = match parts.inputs {
            [all] if self.recipe.qkv == QkvLayout::Grouped => {
                self.rows(&format!("{path}{all}"), bias, 0, (share + 2) * heads.dim)
            }
            [all] => {
                let name = format!("{path}{all}");
                wanted.into_iter().flatten().flat_map(|(offset, width)| self.rows(&name, bias, offset, width)).collect()
            }
            apart => {
                let each = apart.iter().zip(wanted).filter_map(|(part, wanted)| Some((format!("{path}{part}"), wanted?.1)));
                each.flat_map(|(name, width)| self.rows(&name, bias, 0, width)).collect()
            }
        };
        members.push(self.columns(&format!("{path}{}", parts.output), width));
        if let (Some(QueryKeyNorm::All), Some([queries, keys])) = (self.recipe.query_key, parts.query_key) {
            let part = |name: &str, width| Member {
                tensor: format!("{path}{name}.weight"),
                part: Extent::Slice { axis: 0, offset: 0, width },
                side: Side::Scales,
            };
            members.push(part(queries, width));
            members.extend(with_keys.then(|| part(keys, heads.dim)));
        }
        members
    }

    /// Heads of all blocks of a stack that adds one bias to the scores of all.
    fn shared_heads(&self, stack: &Stack, blocks: &[(usize, String)], first: usize, path: &str) -> Coupling {
        let (parts, layer) = (&stack.parts, &self.recipe.layers[first]);
        let each = |(_, path): &(usize, String)| self.attention(path, parts, layer, false);
        let mut members: Vec<Member> = blocks.iter().flat_map(each).collect();
        let table = format!("{path}layer.0.SelfAttention.relative_attention_bias.weight");
        members.push(Member { tensor: table, part: Extent::Slice { axis: 1, offset: 0, width: 1 }, side: Side::Shifts });
        Coupling {
            name: self.reader.name(stack.path),
            kind: UnitKind::Head,
            block: None,
            units: layer.heads.queries,
            runs: 1,
            members,
        }
    }

    /// The hidden features in a block.
    fn hidden(&self, stack: &Stack, number: usize, path: &str) -> Vec<Member> {
        let parts = &stack.parts;
        let name = |part: &str| format!("{path}{part}");
        let cross = parts.cross.iter().flat_map(|cross| cross[1..4].iter().copied());
        let (opening, lasts) = match (self.recipe.experts(number), parts.opening) {
            (Some((names, sizes)), _) => experts(names, sizes),
            (None, UpNames::Plain(one) | UpNames::Fused(one)) => (vec![one.to_string()], vec![parts.down.to_string()]),
            (None, UpNames::Gated(gate, up)) => (vec![gate.to_string(), up.to_string()], vec![parts.down.to_string()]),
        };
        let readers = parts.inputs.iter().copied().chain(cross).map(str::to_string).chain(opening);
        let mut members: Vec<Member> = readers.map(|part| self.columns(&name(&part), 1)).collect();
        members.extend(self.rows(&name(parts.output), self.recipe.output_bias, 0, 1));
        members.extend(parts.cross.iter().flat_map(|cross| self.rows(&name(cross[4]), self.recipe.output_bias, 0, 1)));
        members.extend(lasts.iter().flat_map(|last| self.rows(&name(last), self.recipe.feed_bias, 0, 1)));
        members.extend(parts.norms().flat_map(|norm| self.norm(&name(norm))));
        members
    }

    /// All tensors of a block, as one unit.
    fn whole(&self, stack: &Stack, number: usize, path: &str) -> Vec<Member> {
        let mut tensors: Vec<String> = self.hidden(stack, number, path).into_iter().map(|m| m.tensor).collect();
        for coupling in self.block(stack, number, path) {
            tensors.extend(coupling.members.into_iter().map(|m| m.tensor));
        }
        // Where no head and no feature is a unit, nothing else names what makes them.
        if self.recipe.experts(number).is_none() {
            let opening = match stack.parts.opening {
                UpNames::Plain(one) | UpNames::Fused(one) => vec![one],
                UpNames::Gated(gate, up) => vec![gate, up],
            };
            let rows = opening.into_iter().flat_map(|part| self.rows(&format!("{path}{part}"), self.recipe.feed_bias, 0, 1));
            tensors.extend(rows.map(|m| m.tensor));
        }
        tensors.extend(
            stack
                .parts
                .inputs
                .iter()
                .flat_map(|part| self.rows(&format!("{path}{part}"), self.recipe.attention_bias, 0, 1))
                .map(|m| m.tensor),
        );
        tensors.extend(stack.parts.query_key.iter().flatten().map(|norm| format!("{path}{norm}.weight")));
        tensors.sort();
        tensors.dedup();
        tensors.into_iter().map(|tensor| Member { tensor, part: Extent::All { unit: number }, side: Side::Whole }).collect()
    }
}

/// The layers of experts that read hidden features, and those that add to them.
fn experts(names: ExpertNames, sizes: Experts) -> (Vec<String>, Vec<String>) {
    let (mut readers, mut lasts) = (vec![names.router.to_string()], Vec::new());
    let mut expert = |path: &str, [gate, up, down]: [&str; 3]| {
        readers.extend([gate, up].map(|part| format!("{path}{part}")));
        lasts.push(format!("{path}{down}"));
    };
    (0..sizes.count).for_each(|e| expert(&format!("{}.{e}.", names.path), names.layers));
    if let Some((layers, gate)) = names.shared.filter(|_| sizes.shared.is_some()) {
        expert("", layers);
        readers.push(gate.to_string());
    }
    (readers, lasts)
}
