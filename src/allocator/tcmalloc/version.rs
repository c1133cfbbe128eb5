//! The release, as the library's text for `tc_version` names it.

use super::layout::Version;

const NAME: &[u8] = b"gperftools ";

/// The version in `bytes`, as in `gperftools 2.18.1`.
pub fn find(bytes: &[u8]) -> Option<Version> {
    memchr::memmem::find_iter(bytes, NAME).find_map(|at| {
        let text = bytes.get(at + NAME.len()..)?;
        let end = text.iter().take(16).position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let text = std::str::from_utf8(text.get(..end)?).ok()?;
        let mut numbers = text.split('.').map(str::parse);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        Some(Version { major, minor, patch: numbers.next().and_then(Result::ok).unwrap_or(0) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_release_in_the_text() {
        let version = |minor, patch| Some(Version { major: 2, minor, patch });
        assert_eq!(find(b"\0gperftools 2.10\0"), version(10, 0));
        assert_eq!(find(b"see gperftools docs\0gperftools 2.18.1\0"), version(18, 1));
        assert_eq!(find(b"gperftools "), None);
    }
}
