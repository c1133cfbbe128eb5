//! Where stacks with what they hold are written besides the report: files for other tools.

use super::failure::Failure;
use crate::report::folded;
use crate::report::pprof::{self, About};
use crate::report::weighed::WeighedStack;
use clap::Args;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Files for other tools.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files for other tools")]
pub struct Outputs {
    /// Write also folded stacks, of which flame graphs are made
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,
    /// Write also a flame graph, which a browser shows
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write also a profile for `go tool pprof`, Pyroscope and others
    #[arg(long, value_name = "FILE")]
    pprof: Option<PathBuf>,
}

impl Outputs {
    /// Writes what was asked for.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn write(
        &self,
        stacks: &[WeighedStack<'_>],
        title: &str,
        about: &About,
    ) -> Result<(), Failure> {
        if let Some(path) = &self.folded {
            write_file(path, |out| folded::write(out, stacks))?;
        }
        if let Some(path) = &self.svg {
            write_file(path, |out| folded::write_flame_graph(out, stacks, title))?;
        }
        if let Some(path) = &self.pprof {
            write_file(path, |out| pprof::write(out, stacks, about))?;
        }
        Ok(())
    }
}

fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let written = File::create(path).map(BufWriter::new).and_then(|mut file| {
        write(&mut file)?;
        file.flush()
    });
    written.map_err(|source| Failure::Output { path: path.display().to_string(), source })
}
