//! The banner that the library prints when it is run as a program; statically linked programs have none.

use super::layout::Version;

const NAME: &[u8] = b"GNU C Library";
const BEFORE: &[u8] = b"version ";

/// The version in `bytes`, as in `GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.`
pub fn find(bytes: &[u8]) -> Option<Version> {
    memchr::memmem::find_iter(bytes, NAME).find_map(|at| {
        let line = bytes.get(at..bytes.len().min(at + 256))?;
        let line = line.split(|byte| matches!(byte, 0 | b'\n')).next()?;
        let number = memchr::memmem::rfind(line, BEFORE)? + BEFORE.len();
        let text = std::str::from_utf8(line.get(number..)?).ok()?;
        let (major, rest) = text.split_once('.')?;
        let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        Some(Version { major: major.parse().ok()?, minor: rest.get(..digits)?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_release_in_the_banner() {
        let banner =
            b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright\0";
        assert_eq!(find(banner), Some(Version { major: 2, minor: 36 }));
        let old = b"GNU C Library (GNU libc) stable release version 2.17, by Roland McGrath et al.\n";
        assert_eq!(find(old), Some(Version { major: 2, minor: 17 }));
        assert_eq!(find(b"GNU C Library\0version 2.9"), None);
    }
}
