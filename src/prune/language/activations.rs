//! Arrays that are used one after another: in memory up to a limit, beyond it in a file that has no name.

use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Where activations, sums of gradients and layers pruned at several levels lie while a run lasts. No result depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationMemory {
    /// Bytes of them that stay in memory.
    pub bytes: usize,
    /// The folder in which the rest lies, in files without names; beside the output is a good place, since what is called temporary often is
    /// memory.
    pub folder: PathBuf,
}

impl ActivationMemory {
    /// So many bytes, and this folder for the rest.
    pub fn new(bytes: usize, folder: impl Into<PathBuf>) -> ActivationMemory {
        ActivationMemory { bytes, folder: folder.into() }
    }
}

/// Bytes of memory that several arrays share, and the folder in whose files the rest lies.
#[derive(Clone)]
pub(in crate::prune) struct MemoryBudget {
    left: Rc<Cell<usize>>,
    scratch: Rc<Path>,
}

impl MemoryBudget {
    /// All of the memory.
    pub fn new(memory: &ActivationMemory) -> MemoryBudget {
        MemoryBudget { left: Rc::new(Cell::new(memory.bytes)), scratch: memory.folder.as_path().into() }
    }

    /// Whether there were so many left; they are taken.
    fn take(&self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes);
        left.inspect(|left| self.left.set(*left)).is_some()
    }

    fn give_back(&self, bytes: usize) {
        self.left.set(self.left.get() + bytes);
    }

    /// What the system said of a file in the folder.
    fn refused(&self, e: std::io::Error) -> Error {
        let reason = format!("activations beyond the memory that they may take: {e}");
        Error::io(&*self.scratch, std::io::Error::new(e.kind(), reason))
    }
}

enum Kept {
    Memory(Array2<f32>),
    /// Shape, and the place in the file.
    Disk((usize, usize), u64),
    /// Handed out.
    Away,
}

/// The parts of one array `(tokens, features)`.
pub(in crate::prune) struct Activations {
    parts: Vec<Kept>,
    room: MemoryBudget,
    file: Option<File>,
    end: u64,
    /// Where the part that is away lies in the file, if it has a place there.
    places: Vec<Option<u64>>,
}

impl Drop for Activations {
    fn drop(&mut self) {
        let held = |part: &Kept| if let Kept::Memory(array) = part { array.len() * 4 } else { 0 };
        self.room.give_back(self.parts.iter().map(held).sum());
    }
}

impl Activations {
    /// `parts` parts that are not there yet, which stay in memory as long as there is room.
    pub fn new(parts: usize, room: &MemoryBudget) -> Self {
        let away = (0..parts).map(|_| Kept::Away).collect();
        Activations { parts: away, room: room.clone(), file: None, end: 0, places: vec![None; parts] }
    }

    /// Takes a part out.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    ///
    /// # Panics
    /// If it is not there.
    pub fn take(&mut self, part: usize) -> Result<Array2<f32>> {
        match std::mem::replace(&mut self.parts[part], Kept::Away) {
            Kept::Memory(array) => {
                self.room.give_back(array.len() * 4);
                Ok(array)
            }
            Kept::Disk((rows, cols), place) => {
                let mut array = Array2::zeros((rows, cols));
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(array.as_slice_mut().expect("zeros lie row by row"));
                let file = self.file.as_mut().expect("what lies on the disk was put into a file");
                let read = file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(bytes));
                read.map_err(|e| self.room.refused(e))?;
                Ok(array)
            }
            Kept::Away => panic!("part {part} is away"),
        }
    }

    /// Puts a part in its place. A part keeps its shape.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn put(&mut self, part: usize, array: Array2<f32>) -> Result<()> {
        let bytes = array.len() * 4;
        if self.places[part].is_none() && self.room.take(bytes) {
            self.parts[part] = Kept::Memory(array);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.room.scratch).map_err(|e| self.room.refused(e))?),
        };
        let place = self.places[part].unwrap_or(self.end);
        if place == self.end {
            self.end += bytes as u64;
        }
        let standard = array.as_standard_layout();
        let numbers: &[u8] = bytemuck::cast_slice(standard.as_slice().expect("the standard layout lies row by row"));
        file.seek(SeekFrom::Start(place)).and_then(|_| file.write_all(numbers)).map_err(|e| self.room.refused(e))?;
        self.places[part] = Some(place);
        self.parts[part] = Kept::Disk(array.dim(), place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ActivationMemory, Activations, MemoryBudget};
    use ndarray::Array2;

    #[test]
    fn parts_come_back_as_they_were_put_whether_in_memory_or_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let part = |i: usize, round: usize| Array2::from_shape_fn((3, 4), |(r, c)| (100 * round + 12 * i + 4 * r + c) as f32);
        for limit in [0, 100, 1000] {
            let room = MemoryBudget::new(&ActivationMemory::new(limit, folder.path()));
            let mut array = Activations::new(5, &room);
            (0..5).for_each(|i| array.put(i, part(i, 0)).unwrap());
            for round in 1..4 {
                for i in 0..5 {
                    assert_eq!(array.take(i).unwrap(), part(i, round - 1), "limit {limit}");
                    array.put(i, part(i, round)).unwrap();
                }
            }
            assert!(array.end <= 5 * 48 && room.left.get() == limit - (limit / 48).min(5) * 48, "limit {limit}");
            let other = Activations::new(1, &room);
            drop((array, other));
            assert_eq!(room.left.get(), limit, "what arrays held is given back");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_by_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let mut array = Activations::new(1, &MemoryBudget::new(&ActivationMemory::new(0, &gone)));
        let line = array.put(0, Array2::zeros((1, 1))).unwrap_err().to_string();
        assert!(line.starts_with(gone.to_str().unwrap()), "{line}");
    }
}
