//! The watched process: opened once, and anew when it has executed another program.

use crate::cli::failure::Failure;
use crate::cli::setting::Setting;
use crate::snapshot::Snapshot;
use crate::target::Target;

/// A process that moments are taken of.
#[derive(Debug)]
pub(super) struct Watched {
    word: String,
    target: Option<Target>,
    /// Moments were taken, and the program that they were taken of is not there any more.
    is_anew: bool,
}

/// A moment, and whether it is the first one of another program.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) snapshot: Snapshot,
    pub(super) is_anew: bool,
}

impl Watched {
    /// The process of this id, not yet opened.
    pub(super) fn new(word: String) -> Self {
        Self { word, target: None, is_anew: false }
    }

    /// Takes a moment.
    ///
    /// # Errors
    /// The process has ended, or this moment cannot be taken.
    pub(super) fn take(&mut self, setting: &Setting) -> Result<Seen, Failure> {
        if let Some(target) = self.target.as_ref().filter(|target| target.is_current()) {
            match target.snapshot(&setting.options()) {
                Ok(snapshot) => return Ok(Seen { snapshot, is_anew: std::mem::take(&mut self.is_anew) }),
                Err(error) if target.is_current() => return Err(error.into()),
                // It ended or executed a program in the middle of the moment: opening it anew tells which.
                Err(_) => {}
            }
        }
        self.is_anew |= self.target.take().is_some();
        let target = self.target.insert(Target::open(&self.word)?);
        let snapshot = target.snapshot(&setting.options())?;
        Ok(Seen { snapshot, is_anew: std::mem::take(&mut self.is_anew) })
    }
}
