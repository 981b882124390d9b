//! Arrays that are used one after another: in memory up to a limit, beyond it in a file that has no name.

use crate::{Error, Result};
use ndarray::Array2;
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::rc::Rc;

/// Bytes of memory that several streams share.
#[derive(Clone)]
pub(super) struct Room(Rc<Cell<usize>>);

impl Room {
    /// So many bytes.
    pub fn new(bytes: usize) -> Room {
        Room(Rc::new(Cell::new(bytes)))
    }

    /// Whether there were so many left; they are taken.
    fn take(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes);
        left.inspect(|left| self.0.set(*left)).is_some()
    }

    fn give_back(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
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
pub(super) struct Stream {
    parts: Vec<Kept>,
    room: Room,
    file: Option<File>,
    end: u64,
    /// Where the part that is away lies in the file, if it has a place there.
    places: Vec<Option<u64>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let held = |part: &Kept| if let Kept::Memory(array) = part { array.len() * 4 } else { 0 };
        self.room.give_back(self.parts.iter().map(held).sum());
    }
}

impl Stream {
    /// `parts` parts that are not there yet, which stay in memory as long as there is room.
    pub fn new(parts: usize, room: &Room) -> Self {
        let away = (0..parts).map(|_| Kept::Away).collect();
        Stream { parts: away, room: room.clone(), file: None, end: 0, places: vec![None; parts] }
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
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(array.as_slice_mut().unwrap_or_default());
                let file = self.file.as_mut().ok_or_else(|| refused(std::io::ErrorKind::NotFound.into()))?;
                file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(bytes)).map_err(refused)?;
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
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile().map_err(refused)?);
        }
        let place = self.places[part].unwrap_or(self.end);
        if place == self.end {
            self.end += bytes as u64;
        }
        let standard = array.as_standard_layout();
        let numbers: &[u8] = bytemuck::cast_slice(standard.as_slice().unwrap_or_default());
        let file = self.file.as_mut().ok_or_else(|| refused(std::io::ErrorKind::NotFound.into()))?;
        file.seek(SeekFrom::Start(place)).and_then(|_| file.write_all(numbers)).map_err(refused)?;
        self.places[part] = Some(place);
        self.parts[part] = Kept::Disk(array.dim(), place);
        Ok(())
    }
}

fn refused(e: std::io::Error) -> Error {
    Error::io(std::env::temp_dir(), e)
}

#[cfg(test)]
mod tests {
    use super::{Room, Stream};
    use ndarray::Array2;

    #[test]
    fn parts_come_back_as_they_were_put_whether_in_memory_or_on_the_disk() {
        let part = |i: usize, round: usize| Array2::from_shape_fn((3, 4), |(r, c)| (100 * round + 12 * i + 4 * r + c) as f32);
        for limit in [0, 100, 1000] {
            let room = Room::new(limit);
            let mut stream = Stream::new(5, &room);
            (0..5).for_each(|i| stream.put(i, part(i, 0)).unwrap());
            for round in 1..4 {
                for i in 0..5 {
                    assert_eq!(stream.take(i).unwrap(), part(i, round - 1), "limit {limit}");
                    stream.put(i, part(i, round)).unwrap();
                }
            }
            assert!(stream.end <= 5 * 48 && room.0.get() == limit - (limit / 48).min(5) * 48, "limit {limit}");
            let other = Stream::new(1, &room);
            drop((stream, other));
            assert_eq!(room.0.get(), limit, "what streams held is given back");
        }
    }
}
