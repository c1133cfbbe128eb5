//! `heaptap stacks`: where all threads of a process are.

use super::exit::Exit;
use super::failure::Failure;
use super::progress::Progress;
use super::setting::Setting;
use crate::report::{json, stacks};
use crate::stacks::schema::Stacks;
use crate::target::Target;
use clap::Args;
use std::io::Write;
use std::time::Instant;

/// Show the call stacks of all threads of a process
///
/// Threads that stand at the same place by the same way are listed once, with
/// their names and ids. Frames are found by the call frame information of the
/// code, also in stripped programs; a frame that was found by something weaker
/// (the chain of frame pointers, for one) is marked, and where a stack ends
/// before its first function, that is said and the exit code is 1.
///
/// Functions have their names from symbol tables and debug information, the
/// program's own or below its /usr/lib/debug. A place without a name stays
/// module+0xoffset with the build id: `heaptap symbolize` names it later, on
/// any machine that has the file with the symbols.
///
///   $ heaptap stacks 4121
///   $ heaptap stacks 4121 --json > stacks.json
///   $ heaptap symbolize stacks.json --file build/server
///
/// The target is stopped once, while registers and stacks are copied, and the
/// pause is printed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct StacksArgs {
    /// Process id, capture or core
    #[arg(value_name = "PID")]
    target: String,
    /// Fetch missing debug files from the servers in `DEBUGINFOD_URLS`
    #[arg(long)]
    debuginfod: bool,
}

impl StacksArgs {
    /// Reports where the threads are.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let stacks = {
            let _progress = Progress::begin(format!("reading {}", self.target));
            let target = Target::open(&self.target)?.below(&setting.sysroot);
            let begun = Instant::now();
            let stacks = target.stacks(&setting.options(), self.debuginfod)?;
            setting.tell_time(&format!("take the stacks of process {}", self.target), begun.elapsed());
            stacks
        };
        if setting.json {
            json::write(out, &stacks)
        } else {
            stacks::write(out, &setting.page, &stacks, Some(setting.budget_ms()))
        }
        .map_err(Failure::Report)?;
        Ok(exit_after(&stacks))
    }
}

/// How a command ends that has reported these stacks.
pub(super) fn exit_after(stacks: &Stacks) -> Exit {
    let is_whole = stacks.missing.is_empty() && stacks.groups.iter().all(|group| group.ends.is_none());
    if is_whole { Exit::Done } else { Exit::Partial }
}
