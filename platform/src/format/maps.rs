//! The text of Linux `/proc/PID/maps`.
//!
//! Format: Linux, `Documentation/filesystems/proc.rst` and `show_map_vma` in `fs/proc/task_mmu.c`. It is read as
//! bytes: paths need not be UTF-8.

use crate::{AddressRange, Mapping, MappingKind};
use std::path::PathBuf;

/// All mappings in `text`, and the number of lines that could not be understood.
pub fn parse_maps(text: &[u8]) -> (Vec<Mapping>, usize) {
    let mut mappings = Vec::new();
    let mut bad_line_count = 0;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match parse_line(line) {
            Some(mapping) => mappings.push(mapping),
            None => bad_line_count += 1,
        }
    }
    (mappings, bad_line_count)
}

/// One line: `start-end rwxp offset major:minor inode   path`.
pub fn parse_line(line: &[u8]) -> Option<Mapping> {
    let (addresses, rest) = next_field(line)?;
    let (rights, rest) = next_field(rest)?;
    let (offset, rest) = next_field(rest)?;
    let (device, rest) = next_field(rest)?;
    let (inode, rest) = next_field(rest)?;
    let name = rest.trim_ascii_start();

    let (start, end) = split_at(addresses, b'-')?;
    let (major, minor) = split_at(device, b':')?;
    let &[read, write, execute, share, ..] = rights else { return None };
    Some(Mapping {
        range: AddressRange::new(number(start, 16)?, number(end, 16)?)?,
        readable: read == b'r',
        writable: write == b'w',
        executable: execute == b'x',
        shared: share == b's',
        file_offset: number(offset, 16)?,
        device: (u32::try_from(number(major, 16)?).ok()?, u32::try_from(number(minor, 16)?).ok()?),
        inode: number(inode, 10)?,
        kind: kind_of(name),
    })
}

/// The same text for `mappings`, as [`parse_maps`] reads it.
pub fn format_maps(mappings: &[Mapping]) -> Vec<u8> {
    let mut text = Vec::new();
    for mapping in mappings {
        let right = |given: bool, letter: char| if given { letter } else { '-' };
        let head = format!(
            "{:x}-{:x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
            mapping.range.start,
            mapping.range.end,
            right(mapping.readable, 'r'),
            right(mapping.writable, 'w'),
            right(mapping.executable, 'x'),
            if mapping.shared { 's' } else { 'p' },
            mapping.file_offset,
            mapping.device.0,
            mapping.device.1,
            mapping.inode,
        );
        text.extend(head.into_bytes());
        text.extend(name_of(&mapping.kind));
        text.push(b'\n');
    }
    text
}

fn name_of(kind: &MappingKind) -> Vec<u8> {
    let bracketed = |name: &str| name.as_bytes().to_vec();
    match kind {
        MappingKind::File { path, deleted } => {
            let mut name = Vec::new();
            for byte in path.as_os_str().as_encoded_bytes() {
                if *byte == b'\n' { name.extend(b"\\012") } else { name.push(*byte) }
            }
            name.extend(if *deleted { &b" (deleted)"[..] } else { b"" });
            name
        }
        MappingKind::Heap => bracketed("[heap]"),
        MappingKind::Stack => bracketed("[stack]"),
        MappingKind::Vdso => bracketed("[vdso]"),
        MappingKind::Vvar => bracketed("[vvar]"),
        MappingKind::Vsyscall => bracketed("[vsyscall]"),
        MappingKind::Anonymous { name: None } => Vec::new(),
        MappingKind::Anonymous { name: Some(name) } => format!("[anon:{name}]").into_bytes(),
        MappingKind::Other(name) => bracketed(name),
    }
}

fn kind_of(name: &[u8]) -> MappingKind {
    match name {
        b"" => MappingKind::Anonymous { name: None },
        b"[heap]" => MappingKind::Heap,
        b"[stack]" => MappingKind::Stack,
        b"[vdso]" => MappingKind::Vdso,
        b"[vvar]" | b"[vvar_vclock]" => MappingKind::Vvar,
        b"[vsyscall]" => MappingKind::Vsyscall,
        [b'[', ..] => bracketed(name),
        _ => file(name),
    }
}

fn bracketed(name: &[u8]) -> MappingKind {
    let text = String::from_utf8_lossy(name);
    match text.strip_prefix("[anon:").and_then(|rest| rest.strip_suffix(']')) {
        Some(given) => MappingKind::Anonymous { name: Some(given.to_owned()) },
        None => MappingKind::Other(text.into_owned()),
    }
}

fn file(name: &[u8]) -> MappingKind {
    let (name, deleted) = match name.strip_suffix(b" (deleted)") {
        Some(stripped) => (stripped, true),
        None => (name, false),
    };
    MappingKind::File { path: path_from_bytes(unescape(name)), deleted }
}

/// The kernel writes a newline in a path as `\012`, and nothing else is changed.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        match rest.strip_prefix(b"\\012") {
            Some(after) => {
                plain.push(b'\n');
                rest = after;
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(unix)]
pub(super) fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(not(unix))]
pub(super) fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

fn next_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii_start();
    let length = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    (length > 0).then(|| line.split_at(length))
}

fn split_at(field: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let position = field.iter().position(|&byte| byte == separator)?;
    Some((field.get(..position)?, field.get(position + 1..)?))
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_with_blanks_in_its_path() {
        let mapping =
            parse_line(b"7f0000001000-7f0000003000 r-xs 00002000 103:0a 131 /opt/a b/c (deleted)").unwrap();
        assert_eq!(mapping.range, AddressRange::new(0x7f00_0000_1000, 0x7f00_0000_3000).unwrap());
        assert!(mapping.readable && !mapping.writable && mapping.executable && mapping.shared);
        assert_eq!((mapping.file_offset, mapping.device, mapping.inode), (0x2000, (0x103, 10), 131));
        assert_eq!(mapping.kind, MappingKind::File { path: "/opt/a b/c".into(), deleted: true });
    }

    #[test]
    fn names_in_brackets() {
        let kind = |name: &str| {
            parse_line(format!("1000-2000 rw-p 00000000 00:00 0      {name}").as_bytes()).unwrap().kind
        };
        assert_eq!(kind(""), MappingKind::Anonymous { name: None });
        assert_eq!(kind("[heap]"), MappingKind::Heap);
        assert_eq!(kind("[stack]"), MappingKind::Stack);
        assert_eq!(kind("[anon:arena 3]"), MappingKind::Anonymous { name: Some("arena 3".into()) });
        assert_eq!(kind("[uprobes]"), MappingKind::Other("[uprobes]".into()));
    }

    #[test]
    fn an_escaped_newline_is_a_newline() {
        let mapping = parse_line(b"1000-2000 r--p 00000000 00:01 7 /a\\012b\\").unwrap();
        assert_eq!(mapping.kind, MappingKind::File { path: "/a\nb\\".into(), deleted: false });
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = b"1000-2000 rwxs 00000000 08:0a 7 /a\\012b\\ (deleted)\n\
            2000-3000 ---p 00000000 00:00 0 [heap]\n3000-4000 r--p 00001000 00:00 0 [anon:arena 3]\n\
            4000-5000 r--p 00001000 00:00 0 [uprobes]\n5000-6000 rw-p 00000000 00:00 0 \n";
        let (mappings, bad_line_count) = parse_maps(text);
        assert_eq!((mappings.len(), bad_line_count), (5, 0));
        assert_eq!(
            String::from_utf8(format_maps(&mappings)).unwrap(),
            String::from_utf8(text.to_vec()).unwrap()
        );
    }

    #[test]
    fn bad_lines_are_counted() {
        let (mappings, bad_line_count) =
            parse_maps(b"1000-2000 rw-p 0 0:0 0\nnonsense\n2000-1000 rw-p 0 0:0 0\n");
        assert_eq!((mappings.len(), bad_line_count), (1, 2));
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse_line(&line);
        }
    }
}
