//! One moment of what the user named: a process, a capture, a core, or a snapshot file.

use super::exit::Exit;
use super::failure::Failure;
use super::progress::Progress;
use super::setting::Setting;
use crate::capture::core_file;
use crate::report::doubt;
use crate::snapshot::{self, Snapshot, Summary};
use crate::target::{Options, Target};
use std::path::Path;
use std::time::Instant;

/// What a word on the command line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    /// A snapshot.
    File(&'a Path),
    /// A process, or a file with the memory of one.
    Target(&'a str),
}

impl<'a> Source<'a> {
    /// A number is a process; what looks like a path or exists is a file; anything else is for
    /// [`Target::open`] to refuse.
    fn of(word: &'a str) -> Self {
        let path = Path::new(word);
        let is_file = word.contains('/') || path.extension().is_some() || path.exists();
        let is_snapshot = pid(word).is_none() && is_file && !core_file::is_core(path);
        if is_snapshot { Self::File(path) } else { Self::Target(word) }
    }
}

/// Takes or reads the moment that `word` names, with all of its blocks.
///
/// # Errors
/// What [`Target`] or the file says.
pub fn take(word: &str, setting: &Setting) -> Result<Snapshot, Failure> {
    take_with(word, setting, &setting.options())
}

/// The same, as `options` want it.
///
/// # Errors
/// What [`Target`] or the file says.
pub fn take_with(word: &str, setting: &Setting, options: &Options) -> Result<Snapshot, Failure> {
    let _progress = (!setting.is_quiet).then(|| Progress::begin(format!("reading {word}")));
    let begun = Instant::now();
    match Source::of(word) {
        Source::File(path) => {
            let snapshot = snapshot::read(path)?;
            setting.tell_time(&format!("read {word}"), begun.elapsed());
            Ok(snapshot)
        }
        Source::Target(word) => {
            let target = Target::open(word)?.below(&setting.sysroot);
            let what = if pid(word).is_some() { format!("process {word}") } else { word.to_owned() };
            setting.tell_time(&format!("open {what}"), begun.elapsed());
            let opened = Instant::now();
            let snapshot = target.snapshot(options)?;
            setting.tell_time(&format!("take a snapshot of {what}"), opened.elapsed());
            Ok(snapshot)
        }
    }
}

/// Takes or reads the summary of the moment that `word` names, also if it has only heaps that are never walked.
///
/// # Errors
/// What [`Target`] or the file says.
pub fn take_summary(word: &str, setting: &Setting) -> Result<Summary, Failure> {
    match Source::of(word) {
        Source::File(path) => Ok(snapshot::read_summary(path)?),
        Source::Target(_) => {
            let options = Options { known_suffices: true, ..setting.options() };
            Ok(take_with(word, setting, &options)?.summary)
        }
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
        assert_eq!(Source::of("4121"), Source::Target("4121"));
        assert_eq!(Source::of("./4121"), Source::File(Path::new("./4121")));
        assert_eq!(Source::of("gone.heaptap"), Source::File(Path::new("gone.heaptap")));
        assert_eq!(Source::of("redis-server"), Source::Target("redis-server"));
        assert_eq!(Source::of("Cargo.toml"), Source::File(Path::new("Cargo.toml")));
        assert_eq!(pid("0"), None);
        assert_eq!(pid("-1"), None);
    }
}
