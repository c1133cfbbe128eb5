//! jemalloc's version string, as it stands in the read-only data of every build.

use super::layout::Version;
use std::ops::Range;

/// A literal of every jemalloc since 2.0: the start of its error messages.
const MARK: &[u8] = b"<jemalloc>";

/// Where `bytes` show that they belong to a module with jemalloc in it, if they do.
pub fn mark(bytes: &[u8]) -> Option<Range<usize>> {
    memchr::memmem::find(bytes, MARK).map(|at| at..at + MARK.len())
}

/// The version in `bytes`, in the form of `git describe --long`: `5.3.0-0-g54eaed1d`, and where its text is.
///
/// Packages that are not built from git give `g0` as the hash.
pub fn find(bytes: &[u8]) -> Option<(Range<usize>, Version)> {
    memchr::memmem::find_iter(bytes, b"-g").find_map(|at| {
        let hash = bytes.get(at + 2..)?;
        let digits = hash.iter().take(41).take_while(|byte| byte.is_ascii_hexdigit()).count();
        let text = std::str::from_utf8(ascii_tail(bytes.get(at.saturating_sub(24)..at)?)).ok()?;
        let version = if (1..=40).contains(&digits) { parse(text) } else { None };
        Some((at - text.len()..at + 2 + digits, version?))
    })
}

/// Parses `5.3.0-12`, wherever it begins in `text`, as long as it ends with it.
fn parse(text: &str) -> Option<Version> {
    let (release, commits) = text.rsplit_once('-')?;
    let start = release.rfind(|char: char| !char.is_ascii_digit() && char != '.').map_or(0, |at| at + 1);
    let mut numbers = release.get(start..)?.split('.');
    let mut number = || numbers.next()?.parse::<u16>().ok();
    let version =
        Version { major: number()?, minor: number()?, patch: number()?, commits: commits.parse().ok()? };
    (numbers.next().is_none() && (2..=9).contains(&version.major)).then_some(version)
}

fn ascii_tail(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().rposition(|byte| !byte.is_ascii_graphic()).map_or(0, |at| at + 1);
    bytes.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_among_other_text() {
        let text = b"x-g\0 1.2-3-gx\0<jemalloc>\x005.3.1-47-g295e48944b2\0";
        let (place, version) = find(text).unwrap();
        assert_eq!(version, Version { major: 5, minor: 3, patch: 1, commits: 47 });
        assert_eq!(&text[place], b"5.3.1-47-g295e48944b2");
        let short = Version { major: 5, minor: 3, patch: 0, commits: 0 };
        assert_eq!(find(b"5.3.0-0-g0\0"), Some((0..10, short)));
        assert_eq!(find(b"jemalloc-5.3.0 -gcc"), None);
    }
}
