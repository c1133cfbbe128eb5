//! A capture or a core: what a process was, with the files of its modules as far as this machine has them.

use super::captured::{Captured, Contents};
use super::{Allocators, TargetError, extra};
use crate::capture::core_file::{self, CoreFile, CoreFileError, ModuleNote};
use crate::capture::{Capture, CapturedMemory};
use crate::module::{Image, Module, OpenImage, loaded};
use heaptap_platform::{MappedFile, Mapping, MappingKind};
use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A recorded target.
#[derive(Debug)]
pub struct Recorded {
    pub(super) file: CoreFile,
    /// Where the files of the modules are on this machine.
    pub(super) sysroot: PathBuf,
}

impl Recorded {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, CoreFileError> {
        Ok(Self::of(core_file::open(path)?))
    }

    /// A file that is open.
    pub fn of(file: CoreFile) -> Self {
        Self { file, sysroot: PathBuf::from("/") }
    }

    /// The process id that it had.
    pub const fn pid(&self) -> i32 {
        self.file.origin.pid
    }

    /// Finds the allocators in what was recorded; `contents` is what a file made of it shall hold. Heaps that are
    /// recognised and never walked are enough if `known_suffices`.
    pub fn captured(&self, contents: Contents, known_suffices: bool) -> Result<Captured, TargetError> {
        let CoreFile { kind, origin, mut capture, mappings, modules: noted, auxiliary_vector, thread_names } =
            self.file.clone();
        let files = ModuleFiles::new(self);
        let mut modules = Module::all(&mappings, &files);
        for module in &mut modules {
            if module.image.is_some() {
                module.find_debug(&files);
            }
        }
        let mut found = Allocators::find(origin.pid, &modules, &mappings, &capture.memory, false);
        if noted.is_empty() && matches!(found, Err(TargetError::NoAllocator { .. })) {
            let unnamed = Module::unnamed(&mappings);
            if let Ok(allocators) = Allocators::find(origin.pid, &unnamed, &mappings, &capture.memory, false)
            {
                capture
                    .notes
                    .push("the modules do not show where the allocator is: all data was searched".to_owned());
                modules.extend(unnamed);
                found = Ok(allocators);
            }
        }
        if found.is_err() && known_suffices {
            found = Allocators::find(origin.pid, &modules, &mappings, &capture.memory, true);
        }
        let mut allocators = found.map_err(|error| with_what_is_missing(error, &capture))?;
        if allocators.need_thread_pointers(&capture.memory) {
            allocators.learn_threads(&capture.memory, &capture.thread_pointers());
        }
        capture.notes.extend(files.unchecked_note());
        capture.lacks.extend(files.into_remarks());
        let mut extra = extra(&capture.memory, &mappings, &modules, &auxiliary_vector, &allocators, contents);
        if contents == Contents::Full {
            extra.ranges.extend(extra.writable.iter().copied());
        }
        Ok(Captured {
            kind: Some(kind),
            origin,
            kept: extra.of_capture(&capture),
            capture,
            mappings,
            modules,
            auxiliary_vector,
            thread_names,
            allocators: allocators.walkable,
            known: allocators.known,
            spool: None,
            contents,
        })
    }
}

/// An allocator may be missing because the file is not whole.
fn with_what_is_missing(mut error: TargetError, capture: &Capture) -> TargetError {
    if let TargetError::NoAllocator { others, .. } = &mut error {
        others.extend(capture.lacks.iter().chain(&capture.notes).cloned());
    }
    error
}

/// The files of the modules as this machine has them.
pub(super) struct ModuleFiles<'a> {
    /// The build ids that the modules had.
    notes: &'a [ModuleNote],
    /// What stands before their paths.
    sysroot: &'a Path,
    /// Where their headers may be, if nothing noted those.
    memory: &'a CapturedMemory,
    /// What is wrong with the files found.
    remarks: RefCell<Vec<String>>,
    /// Files that may be others than the target had.
    unchecked: RefCell<Vec<PathBuf>>,
}

impl<'a> ModuleFiles<'a> {
    /// The files of the modules of a recorded target.
    pub(super) fn new(recorded: &'a Recorded) -> Self {
        let file = &recorded.file;
        Self {
            sysroot: &recorded.sysroot,
            notes: &file.modules,
            memory: &file.capture.memory,
            remarks: RefCell::default(),
            unchecked: RefCell::default(),
        }
    }

    /// That files were not used because nothing tells which build the target had.
    fn unchecked_note(&self) -> Option<String> {
        let unchecked = self.unchecked.borrow();
        let first = unchecked.first()?.display();
        Some(format!(
            "{} files of modules were not used, as {first}: the core has no build id",
            unchecked.len()
        ))
    }

    /// What is wrong with the files that were looked for.
    pub(super) fn into_remarks(self) -> Vec<String> {
        self.remarks.into_inner()
    }
}

impl OpenImage for ModuleFiles<'_> {
    fn open_module(&self, mapping: &Mapping) -> Option<Image> {
        let MappingKind::File { path, .. } = &mapping.kind else { return None };
        let image = self.open_in_root(path).filter(Image::is_elf)?;
        let noted = self.notes.iter().find(|note| note.start == mapping.range.start);
        let wanted = match noted {
            Some(note) => note.build_id.clone(),
            None => loaded::build_id(self.memory, mapping.range.start),
        };
        let Some(wanted) = wanted else {
            self.unchecked.borrow_mut().push(path.clone());
            return None;
        };
        if image.build_id().as_ref() == Some(&wanted) {
            return Some(image);
        }
        self.remarks.borrow_mut().push(format!(
            "{} is another build than the target had (build id {wanted}): not used",
            path.display()
        ));
        None
    }

    fn open_in_root(&self, path: &Path) -> Option<Image> {
        let file = File::open(self.sysroot.join(path.strip_prefix("/").unwrap_or(path))).ok()?;
        file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        MappedFile::map(&file).ok().map(Image::new)
    }
}
