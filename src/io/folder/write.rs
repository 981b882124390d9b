//! Writes a model folder tensor by tensor, in any order, whole or not at all.
//!
//! The files are laid out at once, with their headers, in a working folder beside the final one; each tensor then goes to its
//! place. When all are there the working folder is flushed to the disk and gets its name. At most one tensor's numbers are in
//! memory, and those are the caller's. What may be removed of a working folder, [`super::working`] says.

mod read_back;

use super::layout::Layout;
use super::names::{CONFIG, JOURNAL};
use super::output::Output;
use super::read::Folder;
use super::shard::CHUNK;
use super::working::{self, PACKED};
use crate::io::atomic;
use crate::io::place::write_all_at;
use crate::io::safetensors::{Dtype, Element};
use crate::io::{one_line, quoted};
use crate::{Error, Result};
use ndarray::{ArrayRef, Dimension};
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

#[derive(Debug)]
struct Slot {
    file: usize,
    element: Element,
    shape: Vec<usize>,
    start: u64,
    bytes: u64,
}

/// A folder that is being written.
///
/// ```
/// use lacuna::io::{Dtype, Folder, FolderWriter, Layout};
/// use ndarray::{Array2, array};
/// # let folder = tempfile::tempdir().unwrap();
/// # let out = folder.path().join("model");
/// let layout = Layout::new([("fc.weight".to_string(), Dtype::BF16, vec![1, 2])], 5 << 30)?;
/// let mut writer = FolderWriter::create(&out, layout)?;
/// writer.write("fc.weight", &array![[0.5, -2.0]])?;
/// writer.config(serde_json::json!({"model_type": "llama"}).as_object().unwrap())?;
/// writer.finish()?; // only now is there a folder of this name
/// assert_eq!(Folder::open(&out)?.matrix("fc.weight", (1, 2))?, array![[0.5, -2.0]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug)]
pub struct FolderWriter {
    out: Output,
    part: PathBuf,
    layout: Layout,
    files: Vec<File>,
    slots: HashMap<String, Slot>,
    written: BTreeSet<String>,
    /// The names of all files of the working folder that writers have made or may make.
    own: RefCell<BTreeSet<String>>,
    /// Whether the working folder outlives a run that fails, and says what in it is its own.
    kept: bool,
    finished: bool,
}

impl FolderWriter {
    /// Begins a folder. What is written goes to a working folder beside `out`, which disappears if the writer is dropped
    /// before [`FolderWriter::finish`].
    ///
    /// # Errors
    /// [`Error::Malformed`] if `out` exists, is not an empty folder and makes no room ([`Output`]); [`Error::Io`] if the folder above it is missing or may
    /// not be written.
    pub fn create(out: impl Into<Output>, layout: Layout) -> Result<FolderWriter> {
        let out = out.into();
        let parent = out.check()?;
        let builder = tempfile::Builder::new().prefix(".lacuna-").suffix(".part").make_in(&parent, |path| fs::create_dir(path));
        let part =
            builder.and_then(|made| made.into_temp_path().keep().map_err(|e| e.error)).map_err(|e| Error::io(out.path(), e))?;
        FolderWriter::lay(out, part, layout, false)
    }

    /// As [`FolderWriter::create`], but the working folder has a fixed name ([`FolderWriter::working_folder`]) and stays if the
    /// run ends before its time, for [`FolderWriter::resume`]. One that is empty, or in which a writer has noted nothing yet, is taken over.
    ///
    /// # Errors
    /// As [`FolderWriter::create`]; [`Error::Malformed`] if a working folder of an earlier run is there, or what no writer has made.
    pub fn create_resumable(out: impl Into<Output>, layout: Layout) -> Result<FolderWriter> {
        let out = out.into();
        out.check()?;
        let part = FolderWriter::working_folder(out.path());
        FolderWriter::begin(out, part, layout, true)
    }

    /// A writer of the folder that this one is to become, whose working folder lies within this one's: a run that is killed leaves one folder,
    /// and the next takes both over. This one is to be discarded once the other is finished.
    pub(super) fn create_within(&self, layout: Layout) -> Result<FolderWriter> {
        self.out.check()?;
        FolderWriter::begin(self.out.clone(), self.part.join(PACKED), layout, false)
    }

    /// Takes the place of a working folder and lays the files in it.
    fn begin(out: Output, part: PathBuf, layout: Layout, kept: bool) -> Result<FolderWriter> {
        working::claim(&part)?;
        let own = working::own(&layout);
        let laid = working::mark(&part, &own).and_then(|()| FolderWriter::lay(out, part.clone(), layout, kept));
        // Nothing was done yet that is worth keeping.
        laid.inspect_err(|_| working::clear(&part, &own))
    }

    /// Whether an unfinished run lies beside `out`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if what lies in the place of its working folder was made by no writer; [`Error::Io`] if it cannot be read.
    pub fn is_unfinished(out: impl AsRef<Path>) -> Result<bool> {
        working::is_begun(&FolderWriter::working_folder(out.as_ref()))
    }

    /// Removes what a run that was killed at its very end has left: the working folder beside the finished `out`, in it what was for the
    /// writer alone, and an older folder that it has replaced. What no writer has made stays, and is no error: the run is finished.
    ///
    /// # Errors
    /// [`Error::Io`] if `out` cannot be read.
    pub fn tidy(out: impl AsRef<Path>) -> Result<()> {
        let (out, part) = (out.as_ref(), FolderWriter::working_folder(out.as_ref()));
        Output::from(out).check_aside()?;
        if working::is_marked(out) {
            working::clear_hidden(out, &working::marked(out)).map_err(|e| Error::io(out, e))?;
        }
        if working::is_marked(&part) {
            working::clear(&part, &BTreeSet::new());
        }
        Ok(())
    }

    /// Takes an unfinished run up again: what [`FolderWriter::sync`] said was on the disk counts as written.
    ///
    /// # Errors
    /// As [`FolderWriter::create`]; [`Error::Io`] if there is no unfinished run, [`Error::Malformed`] if it has another layout.
    pub fn resume(out: impl Into<Output>, layout: Layout) -> Result<FolderWriter> {
        let out = out.into();
        out.check()?;
        let part = FolderWriter::working_folder(out.path());
        let own = working::own(&layout).into_iter().chain(working::marked(&part)).collect();
        let mut writer = FolderWriter::empty(out, part, layout, true);
        for i in 0..writer.layout.files.len() {
            let path = writer.part.join(&writer.layout.files[i].file);
            let mut file = File::options().read(true).write(true).open(&path).map_err(|e| Error::io(&path, e))?;
            let header = writer.slots_of(i, &path)?;
            let mut found = vec![0; header.len()];
            let same = file.read_exact(&mut found).is_ok() && found == header;
            if !same || file.metadata().map_err(|e| Error::io(&path, e))?.len() != writer.length(i, &header) {
                return Err(Error::malformed(&path, "belongs to a run over other tensors; remove its folder to begin anew"));
            }
            writer.files.push(file);
        }
        let journal = writer.part.join(JOURNAL);
        if journal.exists() {
            let text = super::read::read_small(&journal)?;
            let refuse = |e: serde_json::Error| {
                Error::malformed(&journal, format!("is no list of names: {}", one_line(&e.to_string(), 300)))
            };
            let written: BTreeSet<String> = serde_json::from_slice(&text).map_err(refuse)?;
            writer.written = written.into_iter().filter(|name| writer.slots.contains_key(name)).collect();
        }
        // A folder that an older build has made is marked from here on.
        working::mark(&writer.part, &own)?;
        writer.own = RefCell::new(own);
        Ok(writer)
    }

    /// Where a run that may be taken up again keeps what it has: beside `out`, `.NAME.part`. The caller may keep files of its
    /// own there, written by [`FolderWriter::file`] and its like; those whose names begin with a dot are removed at the end.
    pub fn working_folder(out: &Path) -> PathBuf {
        let name = out.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "out".to_string());
        out.with_file_name(format!(".{name}.part"))
    }

    fn empty(out: Output, part: PathBuf, layout: Layout, kept: bool) -> FolderWriter {
        let (files, slots, written, own) = (Vec::new(), HashMap::new(), BTreeSet::new(), RefCell::new(working::own(&layout)));
        FolderWriter { out, part, layout, files, slots, written, own, kept, finished: false }
    }

    /// Makes the files with their headers, as long as they will be.
    fn lay(out: Output, part: PathBuf, layout: Layout, kept: bool) -> Result<FolderWriter> {
        let mut writer = FolderWriter::empty(out, part, layout, kept);
        for i in 0..writer.layout.files.len() {
            let path = writer.part.join(&writer.layout.files[i].file);
            let header = writer.slots_of(i, &path)?;
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            let length = writer.length(i, &header);
            let made = file.and_then(|file| {
                file.set_len(length)?;
                write_all_at(&file, &header, 0)?;
                Ok(file)
            });
            writer.files.push(made.map_err(|e| Error::io(writer.out.path(), e))?);
        }
        Ok(writer)
    }

    /// The header of file `i`; its tensors are entered with their places.
    fn slots_of(&mut self, i: usize, path: &Path) -> Result<Vec<u8>> {
        let (header, places) = self.layout.header(i, path)?;
        for ((name, element, shape), (start, bytes)) in self.layout.files[i].tensors.iter().zip(places) {
            self.slots.insert(name.clone(), Slot { file: i, element: *element, shape: shape.clone(), start, bytes });
        }
        Ok(header)
    }

    fn length(&self, i: usize, header: &[u8]) -> u64 {
        header.len() as u64 + self.slots.values().filter(|s| s.file == i).map(|s| s.bytes).sum::<u64>()
    }

    fn slot(&self, name: &str) -> Result<&Slot> {
        self.slots.get(name).ok_or_else(|| Error::unknown_layer(name, self.slots.keys().map(String::as_str)))
    }

    /// Writes a weight to its place, rounded to its dtype. One that was written before is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if the layout has no such tensor, [`Error::Shape`] if it has another shape there,
    /// [`Error::InvalidOption`] if a finite number is too large for the dtype, [`Error::Io`] if the disk refuses.
    pub fn write<D: Dimension>(&mut self, name: &str, values: &ArrayRef<f32, D>) -> Result<()> {
        let slot = self.slot(name)?;
        if slot.shape != values.shape() {
            return Err(Error::shape(format!("tensor {}", quoted(name)), &slot.shape, values.shape()));
        }
        let Some(dtype) = Dtype::of(slot.element) else {
            return Err(Error::invalid_option(
                "dtype",
                format!("tensor {} is {}, which holds no weights", quoted(name), slot.element),
            ));
        };
        let standard = values.as_standard_layout();
        let numbers = standard.as_slice().expect("the standard layout lies row by row");
        let file = &self.files[slot.file];
        let part = |(i, numbers): (usize, &[f32])| {
            if let Some(at) = dtype.first_too_large(numbers) {
                let place = format!("{} at number {}", numbers[at], i * CHUNK + at);
                return Err(Error::invalid_option("dtype", format!("tensor {}: {place} is too large for {dtype}", quoted(name))));
            }
            let bytes = dtype.bytes_of(numbers);
            let place = slot.start + (i * CHUNK * dtype.bytes()) as u64;
            write_all_at(file, &bytes, place).map_err(|e| Error::io(self.out.path(), e))
        };
        numbers.par_chunks(CHUNK).enumerate().try_for_each(part)?;
        self.written.insert(name.to_string());
        Ok(())
    }

    /// Writes a tensor of bytes.
    pub(super) fn write_bytes(&mut self, name: &str, shape: &[usize], bytes: &[u8]) -> Result<()> {
        let slot = self.slot(name)?;
        if slot.shape != shape || slot.bytes != bytes.len() as u64 {
            return Err(Error::shape(format!("tensor {}", quoted(name)), &slot.shape, shape));
        }
        write_all_at(&self.files[slot.file], bytes, slot.start).map_err(|e| Error::io(self.out.path(), e))?;
        self.written.insert(name.to_string());
        Ok(())
    }

    /// Copies a tensor of any dtype from another folder, byte by byte.
    ///
    /// # Errors
    /// As [`FolderWriter::write`] and [`Folder::read`]; [`Error::InvalidOption`] if the dtypes differ.
    pub fn copy(&mut self, name: &str, from: &Folder) -> Result<()> {
        self.copy_as(name, from, name)
    }

    /// As [`FolderWriter::copy`], of a tensor that has another name there.
    ///
    /// # Errors
    /// As [`FolderWriter::copy`].
    pub fn copy_as(&mut self, name: &str, from: &Folder, there: &str) -> Result<()> {
        let (shard, tensor) = from.find(there)?;
        let slot = self.slot(name)?;
        if slot.shape != tensor.shape {
            return Err(Error::shape(format!("tensor {}", quoted(name)), &slot.shape, &tensor.shape));
        }
        if slot.element != tensor.element {
            let (is, to) = (tensor.element, slot.element);
            return Err(Error::invalid_option("dtype", format!("tensor {} is {is} and cannot be copied as {to}", quoted(name))));
        }
        let mut bytes = vec![0; (4u64 << 20).min(tensor.bytes) as usize];
        let mut at = 0;
        while at < tensor.bytes {
            let part = bytes.len().min((tensor.bytes - at) as usize);
            shard.read_bytes(tensor, at, &mut bytes[..part])?;
            write_all_at(&self.files[slot.file], &bytes[..part], slot.start + at).map_err(|e| Error::io(self.out.path(), e))?;
            at += part as u64;
        }
        self.written.insert(name.to_string());
        Ok(())
    }

    /// Copies every tensor that was not written yet, and the files that go with the weights, as far as they are not there.
    /// `config.json` is copied byte by byte unless [`FolderWriter::config`] wrote one.
    ///
    /// # Errors
    /// As [`FolderWriter::copy`].
    pub fn copy_rest(&mut self, from: &Folder) -> Result<()> {
        self.copy_rest_but(from, &[])
    }

    /// As [`FolderWriter::copy_rest`], without some of the files that go with the weights.
    ///
    /// # Errors
    /// As [`FolderWriter::copy`].
    pub fn copy_rest_but(&mut self, from: &Folder, behind: &[String]) -> Result<()> {
        let rest: Vec<String> = self.missing().filter(|name| from.find(name).is_ok()).map(String::from).collect();
        rest.iter().try_for_each(|name| self.copy(name, from))?;
        let companions = from.companions();
        for path in companions.iter().chain(&[from.path().join(CONFIG)]) {
            let stays = |name: &std::ffi::OsStr| behind.iter().any(|b| name == b.as_str());
            if let Some(name) = path.file_name().filter(|name| !self.part.join(name).exists() && !stays(name)) {
                // Whole or not at all: a run that goes on takes what is there for done.
                let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
                self.file(&name.to_string_lossy(), &bytes)?;
            }
        }
        Ok(())
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn config(&self, config: &Map<String, Value>) -> Result<()> {
        self.json(CONFIG, &Value::Object(config.clone()))
    }

    /// Writes a JSON file of the folder.
    ///
    /// # Errors
    /// As [`FolderWriter::file`].
    pub fn json(&self, name: &str, value: &Value) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::invalid_option(name, e.to_string()))?;
        self.file(name, (text + "\n").as_bytes())
    }

    /// Writes another file of the folder; `name` is a plain file name.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.owns(name)?;
        atomic::write_bytes(self.part.join(name), bytes)
    }

    /// Where a file of the folder lies that its caller writes, whole or not at all ([`atomic`]); it counts among the writer's own.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn own_file(&self, name: &str) -> Result<PathBuf> {
        self.owns(name).map(|()| self.part.join(name))
    }

    /// Enters a file that is to be written among the writer's own, before it is there.
    fn owns(&self, name: &str) -> Result<()> {
        let new = !working::is_internal(name) && self.own.borrow_mut().insert(name.to_string());
        let marked = self.kept || working::is_marked(&self.part);
        if new && marked { working::mark(&self.part, &self.own.borrow()) } else { Ok(()) }
    }

    /// Whether the layout has a tensor of this name.
    pub(super) fn has_place(&self, name: &str) -> bool {
        self.slots.contains_key(name)
    }

    /// Whether a tensor was written.
    pub fn is_written(&self, name: &str) -> bool {
        self.written.contains(name)
    }

    /// The tensors that were not written yet.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let names = self.layout.files.iter().flat_map(|f| f.tensors.iter().map(|(name, _, _)| name.as_str()));
        names.filter(|name| !self.written.contains(*name))
    }

    /// Flushes what was written to the disk and notes it, so that a run that is killed after this call goes on from here.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.note(None)?()
    }

    /// What [`FolderWriter::sync`] does with what was written until now, and then writes a JSON file of the folder, as a function for another
    /// thread. Errors of the disk are its.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no more handles of files.
    pub fn sync_later(&self, (name, value): (&str, &Value)) -> Result<impl FnOnce() -> Result<()> + Send + use<>> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::invalid_option(name, e.to_string()))?;
        self.owns(name)?;
        self.note(Some((self.part.join(name), text + "\n")))
    }

    fn note(&self, then: Option<(PathBuf, String)>) -> Result<impl FnOnce() -> Result<()> + Send + use<>> {
        let (out, journal) = (self.out.path().to_path_buf(), self.part.join(JOURNAL));
        let files = self.files.iter().map(File::try_clone).collect::<io::Result<Vec<_>>>().map_err(|e| Error::io(&out, e))?;
        let written = serde_json::to_vec(&self.written).map_err(|e| Error::invalid_option("journal", e.to_string()))?;
        Ok(move || {
            files.iter().try_for_each(File::sync_all).map_err(|e| Error::io(&out, e))?;
            atomic::write_bytes(journal, &written)?;
            then.map_or(Ok(()), |(path, text)| atomic::write_bytes(path, text.as_bytes()))
        })
    }

    fn flush(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.sync_all()).map_err(|e| Error::io(self.out.path(), e))
    }

    /// Refuses an output in the place of whose working folder something lies that a new run may not take over, before anything that takes
    /// long. Whether the output itself is free, [`FolderWriter::check_free`] says.
    ///
    /// # Errors
    /// As [`FolderWriter::create_resumable`] of the working folder.
    pub fn check_working(out: impl AsRef<Path>) -> Result<()> {
        working::check_begin(&FolderWriter::working_folder(out.as_ref()))
    }

    /// Refuses a path at which no folder may be begun, before anything that takes long.
    ///
    /// # Errors
    /// As [`FolderWriter::create`].
    pub fn check_free(out: impl Into<Output>) -> Result<()> {
        out.into().check().map(|_| ())
    }

    /// Brings everything to the disk and opens the folder where it still lies, before it has its name.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a tensor was not written; [`Error::Io`] if the disk refuses; as [`Folder::open`].
    pub fn complete(&self) -> Result<Folder> {
        self.close()?;
        Folder::open(&self.part)
    }

    fn close(&self) -> Result<()> {
        let (missing, first) = (self.missing().count(), self.missing().next().map(quoted));
        if let Some(first) = first {
            return Err(Error::malformed(
                self.out.path(),
                format!("{missing} tensors were not written, the first of them {first}"),
            ));
        }
        self.flush()?;
        match self.layout.index() {
            Some((name, index)) => self.json(name, &index),
            None => Ok(()),
        }
    }

    /// Gives up what was written. Files in the working folder that no writer has made stay.
    pub fn discard(mut self) {
        self.kept = false;
    }

    /// Gives the folder its name. An older one that makes room ([`Output::replacing`]) is removed then.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a tensor was not written, or something is there by now that makes no room; [`Error::Io`] if the disk refuses.
    pub fn finish(mut self) -> Result<()> {
        self.close()?;
        self.out.take(&self.part)?;
        self.finished = true;
        // Only now: a run that ends before it has its name must still be known for what it is.
        let out = self.out.path();
        working::clear_hidden(out, &self.own.borrow()).map_err(|e| Error::io(out, e))?;
        #[cfg(unix)]
        let _ = out.parent().map(|above| File::open(above).and_then(|above| above.sync_all()));
        self.out.clear()
    }
}

impl Drop for FolderWriter {
    fn drop(&mut self) {
        if !self.finished && !self.kept {
            self.files.clear();
            working::clear(&self.part, &self.own.borrow());
        }
    }
}
