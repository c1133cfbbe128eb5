//! One moment of what the user named: a process or a snapshot file.

use super::exit::Exit;
use super::failure::Failure;
use super::progress::Progress;
use super::setting::Setting;
use crate::report::doubt;
use crate::snapshot::{self, Snapshot, Summary};
use crate::target::Target;
use std::path::Path;
use std::time::Instant;

/// What a word on the command line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    File(&'a Path),
    Process(&'a str),
}

impl<'a> Source<'a> {
    /// A number is a process; what looks like a path or exists is a file; anything else is for
    /// [`Target::open`] to refuse.
    fn of(word: &'a str) -> Self {
        let path = Path::new(word);
        let is_file = word.contains('/') || path.extension().is_some() || path.exists();
        if pid(word).is_none() && is_file { Self::File(path) } else { Self::Process(word) }
    }
}

/// Takes or reads the moment that `word` names, with all of its blocks.
///
/// # Errors
/// What [`Target`] or the file says.
pub fn take(word: &str, setting: &Setting) -> Result<Snapshot, Failure> {
    let _progress = (!setting.is_quiet).then(|| Progress::begin(format!("reading {word}")));
    let begun = Instant::now();
    match Source::of(word) {
        Source::File(path) => {
            let snapshot = snapshot::read(path)?;
            setting.tell_time(&format!("read {word}"), begun.elapsed());
            Ok(snapshot)
        }
        Source::Process(word) => {
            let target = Target::open(word)?;
            setting.tell_time(&format!("open process {word}"), begun.elapsed());
            let opened = Instant::now();
            let snapshot = target.snapshot(&setting.options())?;
            setting.tell_time(&format!("take a snapshot of process {word}"), opened.elapsed());
            Ok(snapshot)
        }
    }
}

/// Takes or reads the summary of the moment that `word` names.
///
/// # Errors
/// What [`Target`] or the file says.
pub fn take_summary(word: &str, setting: &Setting) -> Result<Summary, Failure> {
    match Source::of(word) {
        Source::File(path) => Ok(snapshot::read_summary(path)?),
        Source::Process(_) => Ok(take(word, setting)?.summary),
    }
}

/// How a command ends that has reported this moment; where only JSON was printed, what is missing is told on
/// standard error as well.
pub fn exit_after(summary: &Summary, setting: &Setting) -> Exit {
    let is_whole = !doubt::is_partial(summary);
    if setting.json && (!is_whole || summary.allocators.is_empty()) {
        for sentence in doubt::of_summary(summary, &setting.page) {
            setting.warn(&sentence);
        }
    }
    match (summary.allocators.is_empty(), is_whole) {
        (true, _) => Exit::Unsupported,
        (false, true) => Exit::Done,
        (false, false) => Exit::Partial,
    }
}

/// The pause budget where a process is named; what was taken before is not held to it.
pub fn budget_ms(word: &str, setting: &Setting) -> Option<f64> {
    pid(word).map(|_| setting.budget_ms())
}

/// The process id, if that is what was named.
pub fn pid(word: &str) -> Option<i32> {
    word.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_processes_and_paths_are_files() {
        assert_eq!(Source::of("4121"), Source::Process("4121"));
        assert_eq!(Source::of("./4121"), Source::File(Path::new("./4121")));
        assert_eq!(Source::of("gone.heaptap"), Source::File(Path::new("gone.heaptap")));
        assert_eq!(Source::of("redis-server"), Source::Process("redis-server"));
        assert_eq!(Source::of("Cargo.toml"), Source::File(Path::new("Cargo.toml")));
        assert_eq!(pid("0"), None);
        assert_eq!(pid("-1"), None);
    }
}
