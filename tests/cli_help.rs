//! What `--help`, the manual pages and the completions say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use clap::Command;

fn help(path: &[&str]) -> String {
    let mut command = heaptap::cli::command().term_width(100);
    command.build();
    let found: Option<&mut Command> =
        path.iter().try_fold(&mut command, |command, name| command.find_subcommand_mut(name));
    found.expect("the command exists").render_long_help().to_string()
}

#[test]
fn manual_of_every_command() {
    for path in [
        &["info"][..],
        &["snap"],
        &["diff"],
        &["watch"],
        &["capture"],
        &["record"],
        &["show"],
        &["report"],
        &["profile"],
        &["stacks"],
        &["symbolize"],
        &["generate"],
        &["generate", "man"],
    ] {
        insta::assert_snapshot!(format!("help_{}", path.join("_")), help(path));
    }
}

#[test]
#[cfg(feature = "demo")]
fn manual_of_the_whole_with_the_demo() {
    insta::assert_snapshot!("help_demo", help(&["demo"]));
    insta::assert_snapshot!("help_heaptap", help(&[]));
}

#[test]
fn help_fits_100_columns() {
    let command = heaptap::cli::command();
    for command in command.get_subcommands() {
        for line in help(&[command.get_name()]).lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
        }
    }
}

#[test]
fn clap_finds_no_fault_with_the_commands() {
    heaptap::cli::command().debug_assert();
}
