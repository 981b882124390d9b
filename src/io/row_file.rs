//! Rows of numbers that lie on the disk.

use super::place::{read_exact_at, write_all_at};
use crate::{Error, Result};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Rows of `f32` of several lengths in a file without a name: nothing of it is left when the program ends, however it ends.
///
/// A group has so many rows of so many numbers, all 0 at first; what was written is read row by row.
#[derive(Debug)]
pub(crate) struct RowFile {
    file: File,
    folder: PathBuf,
    /// Of each group where it begins, in numbers, and its rows and columns.
    groups: Vec<(u64, usize, usize)>,
}

impl RowFile {
    /// Room for groups of these rows and columns, in a file of the folder.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written, or has not the room.
    pub fn new(folder: &Path, groups: impl IntoIterator<Item = (usize, usize)>) -> Result<RowFile> {
        let mut at = 0u64;
        let place = |(rows, cols): (usize, usize)| {
            let from = at;
            at += rows as u64 * cols as u64;
            (from, rows, cols)
        };
        let groups = groups.into_iter().map(place).collect();
        let file = tempfile::tempfile_in(folder).and_then(|file| file.set_len(at * 4).map(|()| file));
        Ok(RowFile { file: file.map_err(|e| Error::io(folder, e))?, folder: folder.to_path_buf(), groups })
    }

    /// Writes one row of a group.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    ///
    /// # Panics
    /// If there is no such row, or it has another length.
    pub fn write(&self, group: usize, row: usize, numbers: &[f32]) -> Result<()> {
        let place = self.place(group, row, numbers.len());
        let mut bytes = vec![0; numbers.len() * 4];
        bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers).for_each(|(b, v)| *b = v.to_le_bytes());
        write_all_at(&self.file, &bytes, place).map_err(|e| Error::io(&self.folder, e))
    }

    /// Reads one row of a group.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, group: usize, row: usize) -> Result<Vec<f32>> {
        self.part(group, row, 0..self.groups[group].2)
    }

    /// Reads these columns of a row.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    ///
    /// # Panics
    /// If there is no such row, or not so many columns.
    pub fn part(&self, group: usize, row: usize, cols: Range<usize>) -> Result<Vec<f32>> {
        let of = self.groups[group].2;
        assert!(cols.start <= cols.end && cols.end <= of, "columns {cols:?} of {of}");
        let mut bytes = vec![0; cols.len() * 4];
        let place = self.place(group, row, of) + cols.start as u64 * 4;
        read_exact_at(&self.file, &mut bytes, place).map_err(|e| Error::io(&self.folder, e))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    fn place(&self, group: usize, row: usize, len: usize) -> u64 {
        let (from, rows, cols) = self.groups[group];
        assert!(row < rows && len == cols, "row {row} of {len} numbers in a group of {rows} x {cols}");
        (from + row as u64 * cols as u64) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_written_and_others_are_zero() {
        let folder = tempfile::tempdir().unwrap();
        let rows = RowFile::new(folder.path(), [(2, 3), (1, 1), (3, 2)]).unwrap();
        rows.write(2, 1, &[1.5, -2.0]).unwrap();
        rows.write(0, 1, &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!([0, 1, 2].map(|row| rows.row(2, row).unwrap()), [vec![0.0, 0.0], vec![1.5, -2.0], vec![0.0, 0.0]]);
        assert_eq!(rows.part(0, 1, 1..3).unwrap(), [2.0, 3.0]);
        assert_eq!((rows.row(0, 1).unwrap(), rows.row(1, 0).unwrap()), (vec![1.0, 2.0, 3.0], vec![0.0]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        assert!(RowFile::new(&folder.path().join("none"), [(1, 1)]).is_err());
    }
}
