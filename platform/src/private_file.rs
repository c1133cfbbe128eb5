//! New files that no other user can read.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Creates a file for reading and writing, for this user alone; fails where the name is taken.
///
/// # Errors
///
/// Those of the system call.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
