//! The command line: what was typed, what it means, and one file for each command.
//!
//! Commands get moments from [`crate::target`], compare them with [`crate::growth`] and print them with
//! [`crate::report`]. They know nothing of allocators or of the operating system.

pub mod args;
pub mod capture;
mod comparison;
#[cfg(feature = "demo")]
pub mod demo;
pub mod diff;
pub mod duration;
pub mod exit;
pub mod failure;
pub mod generate;
pub mod info;
pub mod interrupt;
mod moment;
pub mod outputs;
pub mod profile;
mod progress;
pub mod record;
mod recording_line;
pub mod report;
pub mod setting;
pub mod show;
pub mod snap;
pub mod stacks;
pub mod symbolize;
pub mod watch;

use args::{Command, Typed};
use clap::{CommandFactory, Parser};
use exit::Exit;
use failure::Failure;
use setting::{Setting, Surroundings};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// The command line as clap knows it: for help, completions and manual pages.
pub fn command() -> clap::Command {
    Typed::command()
}

/// Runs what this process was called with.
pub fn main() -> ExitCode {
    let typed = match Typed::try_parse() {
        Ok(typed) => typed,
        Err(text) => {
            // Help and version go to standard output; where that is closed there is no one to tell.
            let _ = text.print();
            return if text.use_stderr() { Exit::WrongUse.into() } else { Exit::Done.into() };
        }
    };
    let setting = Setting::resolve(&typed.common, Surroundings::present());
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = run(typed.command, &setting, &mut out);
    let flushed = out.flush().map_err(Failure::Report);
    match outcome.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell(setting.is_stderr_colored);
            failure.exit().into()
        }
    }
}

fn run(command: Command, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
    match command {
        Command::Info(args) => args.run(setting, out),
        Command::Snap(args) => args.run(setting, out),
        Command::Diff(args) => args.run(setting, out),
        Command::Watch(args) => args.run(setting, out),
        Command::Record(args) => args.run(setting, out),
        Command::Profile(args) => args.run(setting, out),
        Command::Report(args) => args.run(setting, out),
        Command::Capture(args) => args.run(setting, out),
        Command::Show(args) => args.run(setting, out),
        Command::Stacks(args) => args.run(setting, out),
        Command::Symbolize(args) => args.run(setting, out),
        #[cfg(feature = "demo")]
        Command::Demo(args) => args.run(setting, out),
        Command::Generate(args) => args.run(out),
    }
}
