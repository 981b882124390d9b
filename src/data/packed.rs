//! Documents packed into sequences to train on, and the order in which they come.
//!
//! ```text
//! documents   a b c | d e | f g h i …        tokens, one document behind another, in a file without a name
//! sequences   [a b c d] [e f g h] …          of one length; what is left at the end and fills none is dropped
//! order       an own permutation of the sequences for each epoch, of the seed and the epoch alone
//! ```
//!
//! Attention does not know where a document ends within a sequence, as in the packing of GPT-2 and its followers.

use super::Sequences;
use crate::io::place::{read_exact_at, write_all_at};
use crate::rng::Seed;
use crate::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The start of a hash of the kind FNV-1a.
const HASH: u64 = 0xcbf2_9ce4_8422_2325;

fn hash(hash: u64, id: u32) -> u64 {
    (hash ^ u64::from(id)).wrapping_mul(0x100_0000_01b3)
}

/// Takes documents one by one, and holds none of them: their tokens go to a file without a name.
///
/// ```
/// use lacuna::data::DocumentPacker;
/// let mut packing = DocumentPacker::new(std::env::temp_dir())?;
/// packing.document(&[1, 2, 3], Some(0))?;
/// packing.document(&[4, 5], Some(0))?;
/// let packed = packing.finish(3, None)?;
/// assert_eq!((packed.len(), packed.sequence(1)?), (2, vec![0, 4, 5])); // 0 between the documents
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug)]
pub struct DocumentPacker {
    file: File,
    folder: PathBuf,
    tokens: u64,
    documents: usize,
    hash: u64,
}

/// Sequences of one length that lie on the disk: documents, packed.
#[derive(Debug)]
pub struct PackedDocuments {
    file: File,
    folder: PathBuf,
    context: usize,
    first: Option<u32>,
    tokens: u64,
    documents: usize,
    hash: u64,
}

impl DocumentPacker {
    /// No documents yet; their tokens go to the disk of `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] if no file can be made there.
    pub fn new(folder: impl AsRef<Path>) -> Result<DocumentPacker> {
        let folder = folder.as_ref().to_path_buf();
        let file = tempfile::tempfile_in(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(DocumentPacker { file, folder, tokens: 0, documents: 0, hash: HASH })
    }

    /// Adds a document; before all but the first goes `between`, if there is such a token. One without tokens is passed over.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn document(&mut self, ids: &[u32], between: Option<u32>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let between = between.filter(|_| self.documents > 0);
        let bytes: Vec<u8> = between.iter().chain(ids).flat_map(|id| id.to_le_bytes()).collect();
        write_all_at(&self.file, &bytes, 4 * self.tokens).map_err(|e| Error::io(&self.folder, e))?;
        self.hash = between.iter().chain(ids).fold(self.hash, |h, id| hash(h, *id));
        self.tokens += bytes.len() as u64 / 4;
        self.documents += 1;
        Ok(())
    }

    /// Sequences of `context` tokens, each begun by `first` if there is such a token.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a sequence has fewer than 2 tokens, or there are not enough for one.
    pub fn finish(self, context: usize, first: Option<u32>) -> Result<PackedDocuments> {
        let DocumentPacker { file, folder, tokens, documents, hash: ids } = self;
        if context < 2 {
            let reason = format!("{context} tokens leave none to predict; at least 2 are needed");
            return Err(Error::invalid_option("context", reason));
        }
        let packed = PackedDocuments { file, folder, context, first, tokens, documents, hash: ids };
        match packed.len() {
            0 => {
                let reason = format!("{tokens} tokens, fewer than one sequence of {context}: give more text, or lower --context");
                Err(Error::invalid_option("text", reason))
            }
            _ => Ok(packed),
        }
    }
}

impl PackedDocuments {
    /// Tokens of the text in a sequence.
    fn fill(&self) -> usize {
        self.context - usize::from(self.first.is_some())
    }

    /// How many sequences there are.
    #[allow(clippy::len_without_is_empty)] // there is at least one
    pub fn len(&self) -> usize {
        (self.tokens / self.fill() as u64) as usize
    }

    /// Tokens of a sequence.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens of all documents, with those between them and those at the end that fill no sequence.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Documents that have tokens.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// 16 hexadecimal digits that are others where tokens, length of the sequences or their first token differ.
    pub fn digest(&self) -> String {
        let with = [self.context as u32, self.first.unwrap_or(u32::MAX)];
        format!("{:016x}", with.into_iter().fold(self.hash, hash))
    }

    /// One sequence.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn sequence(&self, number: usize) -> Result<Vec<u32>> {
        assert!(number < self.len(), "sequence {number} of {}", self.len());
        let mut bytes = vec![0; 4 * self.fill()];
        let at = number as u64 * bytes.len() as u64;
        read_exact_at(&self.file, &mut bytes, at).map_err(|e| Error::io(&self.folder, e))?;
        let ids = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
        Ok(self.first.into_iter().chain(ids).collect())
    }

    /// Some sequences, in this order.
    ///
    /// # Errors
    /// As [`PackedDocuments::sequence`]; [`Error::InvalidOption`] if none is asked for.
    ///
    /// # Panics
    /// If one is not there.
    pub fn sequences(&self, numbers: &[usize]) -> Result<Sequences> {
        let parts = numbers.iter().map(|n| self.sequence(*n)).collect::<Result<Vec<_>>>()?;
        Sequences::new(parts.concat(), self.context)
    }
}

/// In which order sequences come: all of them once an epoch, each epoch in another order, which the seed and the number of the epoch alone
/// decide. So any step can be found without those before it.
///
/// ```
/// use lacuna::{data::SequenceOrder, rng::Seed};
/// let mut order = SequenceOrder::new(5, Seed(0));
/// let mut first: Vec<usize> = (0..5).map(|n| order.at(n)).collect();
/// first.sort();
/// assert_eq!(first, [0, 1, 2, 3, 4]);
/// assert_eq!(SequenceOrder::new(5, Seed(0)).at(13), (0..14).map(|n| order.at(n)).last().unwrap());
/// ```
#[derive(Debug, Clone)]
pub struct SequenceOrder {
    sequences: usize,
    seed: Seed,
    epoch: (u64, Vec<usize>),
}

impl SequenceOrder {
    /// Of so many sequences.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(sequences: usize, seed: Seed) -> SequenceOrder {
        assert!(sequences > 0, "an order of no sequences");
        SequenceOrder { sequences, seed, epoch: (0, permutation(sequences, seed, 0)) }
    }

    /// The sequence that comes at place `n` of the whole run, counted from 0 over all epochs.
    pub fn at(&mut self, n: u64) -> usize {
        let (epoch, place) = (n / self.sequences as u64, (n % self.sequences as u64) as usize);
        if self.epoch.0 != epoch {
            self.epoch = (epoch, permutation(self.sequences, self.seed, epoch));
        }
        self.epoch.1[place]
    }
}

fn permutation(sequences: usize, seed: Seed, epoch: u64) -> Vec<usize> {
    seed.stream(&format!("order of sequences, epoch {epoch}")).permutation(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(documents: &[&[u32]], context: usize, first: Option<u32>) -> PackedDocuments {
        let mut packing = DocumentPacker::new(std::env::temp_dir()).unwrap();
        documents.iter().for_each(|ids| packing.document(ids, Some(99)).unwrap());
        packing.finish(context, first).unwrap()
    }

    #[test]
    fn sequences_are_the_documents_cut_one_behind_another() {
        let all: Vec<u32> = vec![1, 2, 3, 99, 4, 99, 5, 6, 7, 8];
        for context in [2, 3, 4, 10] {
            let packed = packed(&[&[1, 2, 3], &[], &[4], &[5, 6, 7, 8]], context, None);
            assert_eq!((packed.len(), packed.tokens(), packed.documents()), (10 / context, 10, 3));
            for (n, part) in all.chunks_exact(context).enumerate() {
                assert_eq!(packed.sequence(n).unwrap(), part);
            }
        }
        let begun = packed(&[&all], 4, Some(7));
        assert_eq!(begun.sequences(&[2, 0]).unwrap().ids(), [7, 5, 6, 7, 7, 1, 2, 3]);
        assert_eq!(begun.sequence(1).unwrap(), [7, 99, 4, 99]);
    }

    #[test]
    fn what_is_too_short_for_a_sequence_is_refused_with_the_numbers() {
        let mut packing = DocumentPacker::new(std::env::temp_dir()).unwrap();
        packing.document(&[1, 2], None).unwrap();
        let line = packing.finish(3, None).unwrap_err().to_string();
        assert_eq!(line, "text: 2 tokens, fewer than one sequence of 3: give more text, or lower --context");
    }

    #[test]
    fn the_digest_hangs_on_tokens_context_and_first_token() {
        let digests = [
            packed(&[&[1, 2, 3, 4, 5, 6]], 3, None).digest(),
            packed(&[&[1, 2, 3, 4, 6, 5]], 3, None).digest(),
            packed(&[&[1, 2, 3, 4, 5, 6]], 2, None).digest(),
            packed(&[&[1, 2, 3, 4, 5, 6]], 3, Some(0)).digest(),
        ];
        assert!((1..4).all(|i| digests[i] != digests[0]), "{digests:?}");
        assert_eq!(digests[0], packed(&[&[1, 2, 3, 4, 5, 6]], 3, None).digest());
    }

    #[test]
    fn every_epoch_has_every_sequence_once_in_another_order() {
        let mut order = SequenceOrder::new(50, Seed(3));
        let epochs: Vec<Vec<usize>> = (0..3).map(|e| (0..50).map(|n| order.at(50 * e + n)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
        assert_ne!(epochs[0], (0..50).map(|n| SequenceOrder::new(50, Seed(4)).at(n)).collect::<Vec<_>>(), "another seed");
    }
}
