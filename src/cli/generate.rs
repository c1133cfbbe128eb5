//! `heaptap generate`: shell completions and manual pages, for those who package heaptap.

use super::exit::Exit;
use super::failure::Failure;
use clap::{Args, Subcommand};
use clap_complete::Shell;
use std::io::Write;

/// Print shell completions or the manual page
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the completions of a shell
    ///
    ///   $ heaptap generate completions bash > /usr/share/bash-completion/completions/heaptap
    #[command(verbatim_doc_comment)]
    Completions {
        /// The shell that reads them
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page of heaptap, or of one of its commands
    ///
    ///   $ heaptap generate man > heaptap.1
    ///   $ heaptap generate man diff > heaptap-diff.1
    #[command(verbatim_doc_comment)]
    Man {
        /// The command; without, the page of heaptap itself
        command: Option<String>,
    },
}

impl GenerateArgs {
    /// Prints what was asked for.
    pub(super) fn run(self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let mut text = Vec::new();
        match self.what {
            What::Completions { shell } => {
                clap_complete::generate(shell, &mut super::command(), "heaptap", &mut text);
            }
            What::Man { command } => {
                let page = page(command.as_deref())?;
                clap_mangen::Man::new(page).render(&mut text).map_err(Failure::Report)?;
            }
        }
        out.write_all(&text).map_err(Failure::Report)?;
        Ok(Exit::Done)
    }
}

/// The command that a manual page is about.
fn page(name: Option<&str>) -> Result<clap::Command, Failure> {
    let mut whole = super::command();
    whole.build();
    let Some(name) = name else { return Ok(whole) };
    let has_page = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
    let found = whole.get_subcommands().filter(has_page).find(|command| command.get_name() == name);
    let Some(found) = found else {
        let names: Vec<&str> =
            whole.get_subcommands().filter(has_page).map(clap::Command::get_name).collect();
        return Err(Failure::WrongUse {
            what: format!("there is no command `{name}`"),
            hint: format!("the commands are {}", names.join(", ")),
        });
    };
    Ok(found.clone().version(env!("CARGO_PKG_VERSION")))
}
