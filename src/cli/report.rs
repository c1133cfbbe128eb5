//! `heaptap report`: what a recording has come to, from its file.

use super::exit::Exit;
use super::failure::Failure;
use super::outputs::Outputs;
use super::setting::Setting;
use super::symbolize;
use crate::recording::schema::Recording;
use crate::recording::{base, file};
use crate::report::{json, record};
use crate::symbolize::later::Namer;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Print what `heaptap record -o FILE` has kept, in any format
///
/// A recording file holds the exact growth, every sampled allocation with its
/// stack, its time and what became of it. From that the growth is attributed
/// anew, by the heaptap that reads it. The process is not needed, and neither
/// are its files: names are in the recording, and those that it lacks, since
/// the program was stripped, are taken from --file. No byte of the target's
/// data is in it.
///
///   $ heaptap record 4121 --for 30s -o leak.rec
///   $ heaptap report leak.rec --svg leak.svg --pprof leak.pb.gz
///   $ heaptap report leak.rec --file build/server
///   $ heaptap report after.rec --base before.rec
///
/// With --base the sites of an earlier recording are taken off: what is left
/// grows more than before, what has a minus grows less. Where the two are of
/// different length, the earlier one is scaled to the length of the later.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ReportArgs {
    /// Recording file
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// Take off the sites of this earlier recording
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Name places that have no name yet from this unstripped program, library or debug file
    #[arg(long = "file", value_name = "ELF")]
    files: Vec<PathBuf>,
    /// Fetch missing debug files from the servers in `DEBUGINFOD_URLS`
    #[arg(long)]
    debuginfod: bool,
    #[command(flatten)]
    outputs: Outputs,
}

impl ReportArgs {
    /// Prints the recording.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let namer = symbolize::namer(&self.files, self.debuginfod)?;
        let mut recording = read(&self.recording, &namer)?;
        if let Some(path) = &self.base {
            recording = base::less(recording, &read(path, &namer)?, &path.display().to_string());
        }
        write(&recording, &self.outputs, setting, out)
    }
}

fn read(path: &Path, namer: &Namer<'_>) -> Result<Recording, Failure> {
    let mut kept = file::read(path)?;
    namer.learn_frames(kept.stacks.iter().flatten());
    for frames in &mut kept.stacks {
        namer.name_frames(frames);
    }
    kept.join_alike();
    Ok(kept.attribute())
}

/// Prints a recording and writes the files that were asked for.
pub(super) fn write(
    recording: &Recording,
    outputs: &Outputs,
    setting: &Setting,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    outputs.write(&record::weighed(recording), &record::title(recording), &record::about(recording))?;
    if setting.json { json::write(out, recording) } else { record::write(out, &setting.page, recording) }
        .map_err(Failure::Report)?;
    Ok(Exit::Done)
}
