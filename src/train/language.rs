//! What language models train on: sequences of packed documents in the order of a seed, and what is learnt from them.

use super::divergence::TeacherLoss;
use super::hidden::{HiddenProjections, HiddenStates, HiddenTargets};
use super::teacher_cache::{CachedDistillation, TeacherCache};
use super::trainer::{Feed, Pass};
use crate::data::{PackedDocuments, SequenceOrder, Sequences};
use crate::lm::{LanguageModel, NextToken, next_tokens};
use crate::nn::{Gradients, Mode, Model, Objective, Parameters};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;

/// What is learnt from a text.
#[derive(Debug, Clone, Copy)]
pub enum LanguageGoal<'a> {
    /// The token that follows.
    CrossEntropy,
    /// What a teacher says of the token that follows, run beside.
    Teacher {
        /// The teacher, of the same vocabulary.
        model: &'a LanguageModel,
        /// How it is learnt from.
        loss: TeacherLoss,
    },
    /// What a teacher said of it, out of a file.
    Cache {
        /// The file.
        cache: &'a TeacherCache,
        /// The weight of the text's own cross-entropy, in [0, 1].
        hard: f32,
    },
}

/// A teacher's distributions over the tokens of one batch, as an objective: [`TeacherLoss`] of each token that is followed by one.
#[derive(Debug)]
pub struct TokenDistillation<'a> {
    teacher: &'a LanguageModel,
    /// What the teacher's last block gives, `(tokens, hidden)`.
    hidden: Array2<f32>,
    targets: Vec<Option<u32>>,
    loss: TeacherLoss,
    states: Option<HiddenTargets<'a>>,
}

impl<'a> TokenDistillation<'a> {
    /// Runs the teacher on a batch.
    ///
    /// # Errors
    /// As [`TeacherLoss::check`]; if the teacher does not know a token, or has not so many positions.
    pub fn new(teacher: &'a LanguageModel, batch: &Sequences, loss: TeacherLoss) -> Result<Self> {
        loss.check()?;
        let hidden = teacher.hidden_states(batch.ids(), batch.length(), &mut ())?;
        Ok(TokenDistillation { teacher, hidden, targets: next_tokens(batch.ids(), batch.length()), loss, states: None })
    }

    /// The same, with hidden states of the teacher's blocks that are learnt too: the student's are held against them, through the projections where
    /// widths differ. The loss that is told is that of the predictions.
    ///
    /// # Errors
    /// As [`TokenDistillation::new`].
    ///
    /// # Panics
    /// If the teacher has no such block.
    pub fn with_hidden(
        teacher: &'a LanguageModel,
        batch: &Sequences,
        loss: TeacherLoss,
        projections: &'a HiddenProjections,
    ) -> Result<Self> {
        loss.check()?;
        let tape = Model::forward(teacher, batch, Mode::Eval, &mut ())?;
        let states = projections.how().pairs.iter().map(|pair| tape.behind(pair.teacher).clone()).collect();
        let (hidden, targets) = (tape.hidden_states().clone(), next_tokens(batch.ids(), batch.length()));
        Ok(TokenDistillation { teacher, hidden, targets, loss, states: Some(HiddenTargets::new(projections, states)) })
    }
}

impl Objective for TokenDistillation<'_> {
    fn dim(&self) -> (usize, usize) {
        (self.targets.len(), self.teacher.config().vocab())
    }

    fn count(&self, rows: &[usize]) -> usize {
        rows.iter().filter(|row| self.targets[**row].is_some()).count()
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        let mut logits = self.teacher.embedding_head().logits(&self.hidden.select(Axis(0), rows));
        let scale = 1.0 / count as f32;
        let losses = each_row(outputs, &mut logits, |t, z, v| match self.targets[rows[t]] {
            Some(y) => self.loss.row(z, v, y, scale),
            None => {
                z.fill(0.0);
                0.0
            }
        });
        let sum: f64 = losses.iter().sum();
        self.states.iter().for_each(|states| states.predicted(sum));
        sum
    }

    fn taps(&self) -> &[usize] {
        self.states.as_ref().map(HiddenTargets::taps).unwrap_or_default()
    }

    /// Adds the slope of the scaled loss of hidden states; 0, since the loss that is told is that of the predictions.
    fn hidden_loss(&self, layer: usize, _: &[usize], hidden: &ArrayRef2<f32>, slope: &mut ArrayRef2<f32>, count: usize) -> f64 {
        self.states.iter().for_each(|states| {
            states.learn(layer, hidden, slope, count);
        });
        0.0
    }

    fn own_gradients(&self) -> Gradients {
        self.states.as_ref().map_or_else(Gradients::default, HiddenTargets::gradients)
    }
}

/// Calls `f` with the number of each row and the two rows, in parallel; what it gives, in order.
fn each_row(z: &mut Array2<f32>, v: &mut Array2<f32>, f: impl Fn(usize, &mut [f32], &mut [f32]) -> f64 + Sync) -> Vec<f64> {
    for array in [&mut *z, &mut *v] {
        if !array.is_standard_layout() {
            *array = array.as_standard_layout().into_owned();
        }
    }
    let width = z.ncols();
    let (z, v) = (z.as_slice_mut().expect("in standard layout"), v.as_slice_mut().expect("in standard layout"));
    z.par_chunks_mut(width).zip(v.par_chunks_mut(width)).enumerate().map(|(t, (z, v))| f(t, z, v)).collect()
}

/// Sequences of packed documents, `batch` a pass and `passes` passes a step, each epoch in another order.
#[derive(Debug)]
pub struct LanguageFeed<'a> {
    packed: &'a PackedDocuments,
    order: SequenceOrder,
    batch: usize,
    passes: usize,
    goal: LanguageGoal<'a>,
    vocab: usize,
    projections: Option<HiddenProjections>,
}

impl<'a> LanguageFeed<'a> {
    /// Of the first `sequences` of the packed documents, for a model of `vocab` tokens.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if batch or passes are 0, or there are not so many sequences or none; if a teacher has another vocabulary, with
    /// both; as [`TeacherLoss::check`] and [`TeacherCache::check`].
    pub fn new(
        packed: &'a PackedDocuments,
        sequences: usize,
        (batch, passes): (usize, usize),
        (goal, vocab): (LanguageGoal<'a>, usize),
        seed: Seed,
    ) -> Result<Self> {
        if sequences == 0 || sequences > packed.len() {
            let reason = format!("{sequences} of {} sequences are left to train on", packed.len());
            return Err(Error::invalid_option("text", reason));
        }
        for (option, value) in [("batch", batch), ("accumulate", passes)] {
            if value == 0 {
                return Err(Error::invalid_option(option, "0 is not at least 1"));
            }
        }
        match goal {
            LanguageGoal::CrossEntropy => {}
            LanguageGoal::Teacher { model, loss } => {
                loss.check()?;
                same_vocabulary(model.config().vocab(), vocab)?;
            }
            LanguageGoal::Cache { cache, hard } => {
                TeacherLoss::default().hard(hard).check()?;
                cache.check(packed, vocab)?;
            }
        }
        Ok(LanguageFeed { packed, order: SequenceOrder::new(sequences, seed), batch, passes, goal, vocab, projections: None })
    }

    /// The same, where a student of so many blocks and hidden features learns hidden states of its teacher too; `seed` draws projections.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if no teacher runs beside; as [`HiddenStates::check`].
    pub fn hidden_states(self, how: HiddenStates, (blocks, width): (usize, usize), seed: Seed) -> Result<Self> {
        let LanguageGoal::Teacher { model, .. } = self.goal else {
            return Err(Error::invalid_option("hidden-states", "is for a teacher that runs beside"));
        };
        how.check(blocks, model.blocks().len())?;
        let projections = HiddenProjections::new(how, width, model.config().hidden(), seed);
        Ok(LanguageFeed { projections: Some(projections), ..self })
    }

    /// The numbers of the sequences of one pass of a step, in order.
    pub fn sequences(&mut self, step: usize, pass: usize) -> Vec<usize> {
        let first = (step as u64 * self.passes as u64 + pass as u64) * self.batch as u64;
        (first..first + self.batch as u64).map(|n| self.order.at(n)).collect()
    }
}

/// Refuses a teacher that knows other tokens than the student.
pub(crate) fn same_vocabulary(teacher: usize, student: usize) -> Result<()> {
    if teacher == student {
        return Ok(());
    }
    let reason = format!(
        "has a vocabulary of {teacher} tokens, the model one of {student}; a student learns from a teacher with the same tokenizer: take one, \
         or train without a teacher"
    );
    Err(Error::invalid_option("teacher", reason))
}

impl Feed for LanguageFeed<'_> {
    type Batch = Sequences;

    fn passes(&self) -> usize {
        self.passes
    }

    fn count(&mut self, _: usize) -> usize {
        self.passes * self.batch * (self.packed.context() - 1)
    }

    fn pass(&mut self, step: usize, pass: usize) -> Result<Pass<'_, Sequences>> {
        let numbers = self.sequences(step, pass);
        let batch = self.packed.sequences(&numbers)?;
        let rows: Vec<usize> = (0..batch.tokens()).collect();
        let objective: Box<dyn Objective> = match self.goal {
            LanguageGoal::CrossEntropy => Box::new(NextToken::of(next_tokens(batch.ids(), batch.length()), self.vocab)?),
            LanguageGoal::Teacher { model, loss } => Box::new(match &self.projections {
                Some(projections) => TokenDistillation::with_hidden(model, &batch, loss, projections)?,
                None => TokenDistillation::new(model, &batch, loss)?,
            }),
            LanguageGoal::Cache { cache, hard } => {
                Box::new(CachedDistillation::new(cache.read(&numbers)?, &batch, self.vocab, hard))
            }
        };
        Ok(Pass { batch, rows, objective })
    }

    fn own(&mut self) -> Option<&mut dyn Parameters> {
        self.projections.as_mut().map(|p| p as &mut dyn Parameters)
    }

    fn describe(&mut self, step: usize) -> String {
        let numbers: Vec<String> = (0..self.passes).flat_map(|pass| self.sequences(step, pass)).map(|n| n.to_string()).collect();
        let shown = numbers.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        format!("sequences {shown}{}", if numbers.len() > 8 { ", …" } else { "" })
    }
}
