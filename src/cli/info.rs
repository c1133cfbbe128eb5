//! `heaptap info`: which allocators a target has, and where its resident memory goes.

use super::exit::Exit;
use super::failure::Failure;
use super::moment;
use super::setting::Setting;
use crate::report::{info, json};
use clap::Args;
use std::io::Write;

/// Tell which allocators a process has and where its resident memory goes
///
/// Says which allocator was found and in which version, how it was found (debug
/// information, symbols, or the shape of its structures) and how sure that is:
/// how many structures were checked, how many cells were compared with the
/// allocator's own counters, and every contradiction met. Then it breaks
/// resident memory down: live blocks, blocks in thread caches, free space in
/// slabs, memory that is free but not given back, the allocator's own records,
/// stacks, mapped files, shared memory, and what remains unexplained. The parts
/// sum to the kernel's figure; where they do not, that is said.
///
///   $ heaptap info 4121
///   $ heaptap info before.heaptap --bytes
///
/// The target is stopped once, for milliseconds, and the pause is printed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct InfoArgs {
    /// Process id, or a file that was captured or snapped before
    #[arg(value_name = "PID")]
    target: String,
}

impl InfoArgs {
    /// Reports the target.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let summary = moment::take_summary(&self.target, setting)?;
        if setting.json {
            json::write(out, &summary)
        } else {
            info::write(out, &setting.page, &summary, moment::budget_ms(&self.target, setting))
        }
        .map_err(Failure::Report)?;
        Ok(moment::exit_after(&summary, setting))
    }
}
