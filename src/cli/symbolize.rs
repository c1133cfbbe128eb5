//! `heaptap symbolize`: names for places that had none where they were seen.

use super::exit::Exit;
use super::failure::Failure;
use super::setting::Setting;
use crate::module::{Image, OpenImage, image};
use crate::profile::schema::Profile;
use crate::recording::{self, schema::Recording};
use crate::report::{json, profile, record, stacks};
use crate::stacks::schema::{SCHEMA, Stacks};
use crate::symbolize::later::{self, Namer};
use clap::Args;
use heaptap_platform::Mapping;
use serde::Serialize;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Name places that had no name where they were seen
///
/// Reads the JSON of `heaptap stacks`, `record`, `report` or `profile`, or any
/// text with places written module+0xoffset with a build id, and prints it with the names of functions,
/// inlined functions and source lines. Names are taken from a file with the
/// same build id: from those given with --file, from below /usr/lib/debug, or
/// from the module itself where it is installed here. A place without a build
/// id is looked up in the file given with --file, if that is one alone.
///
///   $ heaptap symbolize stacks.json --file build/server
///   $ heaptap stacks 4121 | heaptap symbolize -
///
/// The exit code is 1 if places stay without a name.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct SymbolizeArgs {
    /// JSON of stacks, or text; - is standard input
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Take names from this unstripped program, library or debug file
    #[arg(long = "file", value_name = "ELF")]
    files: Vec<PathBuf>,
    /// Fetch missing debug files from the servers in `DEBUGINFOD_URLS`
    #[arg(long)]
    debuginfod: bool,
}

/// Text that is read at most.
const INPUT_BYTES_MAX: u64 = 1 << 30;

/// Files of this machine alone.
#[derive(Debug)]
struct Here;

impl OpenImage for Here {
    fn open_module(&self, mapping: &Mapping) -> Option<Image> {
        image::open_here(mapping.path()?)
    }

    fn open_in_root(&self, path: &Path) -> Option<Image> {
        image::open_here(path)
    }
}

impl SymbolizeArgs {
    /// Prints the input with names.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let namer = namer(&self.files, self.debuginfod)?;
        let text = self.read()?;
        if let Ok(mut stacks) = serde_json::from_str::<Stacks>(&text)
            && stacks.schema == SCHEMA
        {
            let nameless = namer.name_stacks(&mut stacks);
            return printed(nameless, setting, out, &stacks, |out| {
                stacks::write(out, &setting.page, &stacks, None)
            });
        }
        if let Ok(mut recording) = serde_json::from_str::<Recording>(&text)
            && recording.schema == recording::schema::SCHEMA
        {
            namer.learn_frames(recording.sites.iter().flat_map(|site| &site.frames));
            let frames = recording.sites.iter_mut().map(|site| &mut site.frames);
            let nameless = frames.map(|frames| namer.name_frames(frames)).sum();
            return printed(nameless, setting, out, &recording, |out| {
                record::write(out, &setting.page, &recording)
            });
        }
        if let Ok(mut found) = serde_json::from_str::<Profile>(&text)
            && found.schema == crate::profile::schema::SCHEMA
        {
            namer.learn_frames(found.sites.iter().flat_map(|site| &site.frames));
            let frames = found.sites.iter_mut().map(|site| &mut site.frames);
            let nameless = frames.map(|frames| namer.name_frames(frames)).sum();
            return printed(nameless, setting, out, &found, |out| {
                profile::write(out, &setting.page, &found, None)
            });
        }
        name_lines(&namer, &text, out)
    }

    fn read(&self) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let read = if self.input.as_os_str() == "-" {
            std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(&self.input)
                .and_then(|file| file.take(INPUT_BYTES_MAX).read_to_end(&mut bytes))
        };
        read.map_err(|error| Failure::Unreadable {
            path: self.input.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A namer that looks into these files first.
pub(super) fn namer(files: &[PathBuf], ask_network: bool) -> Result<Namer<'static>, Failure> {
    let mut given = Vec::new();
    for path in files {
        let image = image::open_here(path).ok_or_else(|| Failure::Unreadable {
            path: path.display().to_string(),
            reason: "it is no ELF file that can be read".to_owned(),
        })?;
        given.push(image);
    }
    Ok(Namer::new(&Here, given, ask_network))
}

/// Prints what was named, as JSON or as text, and tells whether all of it has names.
fn printed<T: Serialize>(
    nameless: usize,
    setting: &Setting,
    out: &mut dyn Write,
    named: &T,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Exit, Failure> {
    if setting.json { json::write(out, named) } else { write(out) }.map_err(Failure::Report)?;
    Ok(if nameless == 0 { Exit::Done } else { Exit::Partial })
}

fn name_lines(namer: &Namer<'_>, text: &str, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    namer.learn(text.lines().filter_map(later::place_in));
    for line in text.lines() {
        let named = namer.name_line(line);
        if named == line && later::place_in(line).is_some() {
            exit = Exit::Partial;
        }
        writeln!(out, "{}", crate::report::page::harmless(&named)).map_err(Failure::Report)?;
    }
    Ok(exit)
}
