//! What FreeBSD's sysctl tells of a process: `kinfo_proc`, `kinfo_vmentry`, `kinfo_file`.
//!
//! The records of `kinfo_proc` have their full size; the others are packed, each begins with its own size (FreeBSD,
//! `lib/libutil/kinfo_getvmmap.c`). Nothing here makes a heap allocation but where a list is returned.

use super::freebsd_layout::{
    KF_FD, KF_PATH, KF_STRUCTSIZE, KI_COMM, KI_COMM_BYTES, KI_EMUL, KI_EMUL_BYTES, KI_FLAG, KI_JID,
    KI_NUMTHREADS, KI_PID, KI_PPID, KI_RSSIZE, KI_START, KI_STAT, KI_STRUCTSIZE, KI_TDFLAGS, KI_TDNAME,
    KI_TDNAME_BYTES, KI_TID, KI_TRACER, KI_UID, KINFO_PROC_BYTES, KVE_END, KVE_FLAGS, KVE_OFFSET, KVE_PATH,
    KVE_PROTECTION, KVE_RESIDENT, KVE_START, KVE_STRUCTSIZE, KVE_TYPE, KVE_VN_FILEID, KVE_VN_FSID,
    KVME_FLAG_COW, KVME_FLAG_GROWS_DOWN, KVME_FLAG_POSIXSHM, KVME_FLAG_SYSVSHM, KVME_PROT_EXEC,
    KVME_PROT_READ, KVME_PROT_WRITE, KVME_TYPE_DEAD, KVME_TYPE_DEVICE, KVME_TYPE_GUARD, KVME_TYPE_MGTDEVICE,
    KVME_TYPE_SG, KVME_TYPE_VNODE, P_INEXEC, P_KPROC, P_STOPPED_SIG, P_SUGID, P_SYSTEM, P_TRACED, P_WEXIT,
    SSLEEP, SZOMB, TDF_SINTR,
};
use super::linux_core::{i32_at, text_of, u64_at};
use super::maps::path_from_bytes;
use crate::{AddressRange, Mapping, MappingKind};
use std::path::PathBuf;

/// Most records that a list is believed to have.
const RECORDS_MAX: usize = 1 << 22;

/// One thread of a process, or the process as its first thread shows it: `struct kinfo_proc`.
#[derive(Clone, Copy, Debug)]
pub struct ProcessRecord<'a> {
    bytes: &'a [u8],
}

impl<'a> ProcessRecord<'a> {
    /// The records in `bytes`; ends at the first that is cut short or has another size.
    pub fn all(bytes: &'a [u8]) -> impl Iterator<Item = Self> + 'a {
        bytes
            .chunks_exact(KINFO_PROC_BYTES)
            .take_while(|record| i32_at(record, KI_STRUCTSIZE) == Some(KINFO_PROC_BYTES as i32))
            .map(|bytes| Self { bytes })
    }

    /// The process's id.
    pub fn pid(self) -> i32 {
        self.number(KI_PID)
    }

    /// The thread's id.
    pub fn tid(self) -> i32 {
        self.number(KI_TID)
    }

    /// The parent's id.
    pub fn parent_pid(self) -> i32 {
        self.number(KI_PPID)
    }

    /// The effective user.
    pub fn uid(self) -> u32 {
        self.number(KI_UID).cast_unsigned()
    }

    /// The process that traces it, or 0. Kernels before 11 do not tell and give 0.
    pub fn tracer_pid(self) -> i32 {
        self.number(KI_TRACER)
    }

    /// The jail that it lives in, or 0.
    pub fn jail_id(self) -> i32 {
        self.number(KI_JID)
    }

    /// The process's number of threads.
    pub fn thread_count(self) -> usize {
        usize::try_from(self.number(KI_NUMTHREADS)).unwrap_or(0)
    }

    /// When the process started, in microseconds since 1970.
    pub fn start_us(self) -> u64 {
        let seconds = u64_at(self.bytes, KI_START).unwrap_or(0);
        let microseconds = u64_at(self.bytes, KI_START + 8).unwrap_or(0);
        seconds.wrapping_mul(1_000_000).wrapping_add(microseconds)
    }

    /// Pages in memory, by the counter of its page table.
    pub fn resident_pages(self) -> u64 {
        u64_at(self.bytes, KI_RSSIZE).unwrap_or(0)
    }

    /// The process's name.
    pub fn name(self) -> String {
        self.text(KI_COMM, KI_COMM_BYTES)
    }

    /// The thread's name.
    pub fn thread_name(self) -> String {
        self.text(KI_TDNAME, KI_TDNAME_BYTES)
    }

    /// The system whose calls the program makes, as in `FreeBSD ELF64`.
    pub fn emulation(self) -> String {
        self.text(KI_EMUL, KI_EMUL_BYTES)
    }

    /// It has ended, and waits for its parent.
    pub fn is_zombie(self) -> bool {
        self.state() == SZOMB
    }

    /// It is ending.
    pub fn is_ending(self) -> bool {
        self.has(P_WEXIT)
    }

    /// It belongs to the kernel.
    pub fn is_kernel(self) -> bool {
        self.has(P_SYSTEM | P_KPROC)
    }

    /// Somebody traces it.
    pub fn is_traced(self) -> bool {
        self.has(P_TRACED)
    }

    /// A stop signal has stopped it.
    pub fn is_stopped_by_signal(self) -> bool {
        self.has(P_STOPPED_SIG)
    }

    /// It is about to execute another program.
    pub fn is_executing(self) -> bool {
        self.has(P_INEXEC)
    }

    /// It changed its user since it was executed, so that its own user may not look into it.
    pub fn has_changed_user(self) -> bool {
        self.has(P_SUGID)
    }

    /// The thread sleeps in the kernel where no signal reaches it.
    pub fn sleeps_uninterruptibly(self) -> bool {
        self.state() == SSLEEP && u64_at(self.bytes, KI_TDFLAGS).unwrap_or(0) & TDF_SINTR == 0
    }

    fn state(self) -> u8 {
        self.bytes.get(KI_STAT).copied().unwrap_or(0)
    }

    fn has(self, flags: u64) -> bool {
        u64_at(self.bytes, KI_FLAG).unwrap_or(0) & flags != 0
    }

    fn number(self, at: usize) -> i32 {
        i32_at(self.bytes, at).unwrap_or(0)
    }

    fn text(self, at: usize, len_bytes: usize) -> String {
        self.bytes.get(at..at + len_bytes).map(text_of).unwrap_or_default()
    }
}

/// A mapping, and what the kernel counts in it: `struct kinfo_vmentry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmEntry {
    /// The mapping.
    pub mapping: Mapping,
    /// Pages of its object that are in memory, whoever brought them in.
    pub resident_pages: u64,
    /// Whether reading there gives memory: not a device, whose reading may act on it, and no guard.
    pub is_memory: bool,
}

/// The mappings of `KERN_PROC_VMMAP`, as far as they go.
pub fn parse_vm_entries(bytes: &[u8]) -> Vec<VmEntry> {
    records(bytes, KVE_STRUCTSIZE, KVE_PATH).filter_map(vm_entry).collect()
}

/// The path of the process's root folder in `KERN_PROC_FILEDESC`.
pub fn parse_root_folder(bytes: &[u8]) -> Option<PathBuf> {
    let mut files = records(bytes, KF_STRUCTSIZE, KF_PATH);
    let root = files.find(|file| i32_at(file, KF_FD) == Some(super::freebsd_layout::KF_FD_TYPE_ROOT))?;
    let path = text_bytes(root.get(KF_PATH..)?);
    (!path.is_empty()).then(|| path_from_bytes(path))
}

/// Packed records: each tells its size at `size_at` and has more than `len_bytes_min`.
fn records(bytes: &[u8], size_at: usize, len_bytes_min: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let size = i32_at(rest, size_at).and_then(|size| usize::try_from(size).ok())?;
        let (record, behind) = rest.split_at_checked(size).filter(|_| size >= len_bytes_min)?;
        rest = behind;
        Some(record)
    })
    .take(RECORDS_MAX)
}

fn text_bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

fn vm_entry(entry: &[u8]) -> Option<VmEntry> {
    let flags = i32_at(entry, KVE_FLAGS)?;
    let rights = i32_at(entry, KVE_PROTECTION)?;
    let object = i32_at(entry, KVE_TYPE)?;
    let path = text_bytes(entry.get(KVE_PATH..)?);
    let is_file = object == KVME_TYPE_VNODE;
    let writable = rights & KVME_PROT_WRITE != 0;
    let kind = if is_file && path.is_empty() {
        // The kernel has forgotten the name, or the file has none any more; modules are told apart by number.
        let number = u64_at(entry, KVE_VN_FILEID)?;
        MappingKind::File { path: format!("file number {number}").into(), deleted: true }
    } else if is_file {
        MappingKind::File { path: path_from_bytes(path), deleted: false }
    } else if flags & KVME_FLAG_GROWS_DOWN != 0 {
        MappingKind::Stack
    } else {
        MappingKind::Anonymous { name: None }
    };
    let is_shared_memory = flags & (KVME_FLAG_SYSVSHM | KVME_FLAG_POSIXSHM) != 0;
    let file_system = u64_at(entry, KVE_VN_FSID).filter(|_| is_file).unwrap_or(0);
    let mapping = Mapping {
        range: AddressRange::new(u64_at(entry, KVE_START)?, u64_at(entry, KVE_END)?)?,
        readable: rights & KVME_PROT_READ != 0,
        writable,
        executable: rights & KVME_PROT_EXEC != 0,
        shared: is_shared_memory || (is_file && writable && flags & KVME_FLAG_COW == 0),
        file_offset: if is_file { u64_at(entry, KVE_OFFSET)? } else { 0 },
        // The file system's number in two halves.
        device: ((file_system >> 32) as u32, file_system as u32),
        inode: if is_file { u64_at(entry, KVE_VN_FILEID)? } else { 0 },
        kind,
    };
    let refused = [KVME_TYPE_DEVICE, KVME_TYPE_DEAD, KVME_TYPE_SG, KVME_TYPE_MGTDEVICE, KVME_TYPE_GUARD];
    Some(VmEntry {
        is_memory: mapping.readable && !refused.contains(&object),
        resident_pages: u64::from(i32_at(entry, KVE_RESIDENT)?.cast_unsigned()),
        mapping,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record of `len_bytes` with words of 4 or 8 bytes and texts put in at offsets written out here, not taken from the
    /// layout: those of FreeBSD 15.1, `sys/sys/user.h`.
    fn record(
        len_bytes: usize,
        numbers: &[(usize, i32)],
        words: &[(usize, u64)],
        texts: &[(usize, &str)],
    ) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes];
        for &(at, number) in numbers {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        for &(at, word) in words {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for &(at, text) in texts {
            bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        bytes
    }

    fn process(flags: u64, state: u8, thread_flags: u64) -> Vec<u8> {
        let numbers =
            [(0, 1088), (72, 801), (76, 1), (168, 1001), (576, 77), (592, 3), (596, 4), (600, 100_123)];
        let words = [(264, 25), (336, 1_700_000_000), (344, 5), (368, flags), (1080, thread_flags)];
        let mut bytes =
            record(1088, &numbers, &words, &[(394, "worker"), (447, "adserver"), (467, "FreeBSD ELF64")]);
        bytes[388] = state;
        bytes
    }

    #[test]
    fn a_process_tells_who_it_is() {
        let bytes = process(0, 2, 0);
        let found = ProcessRecord::all(&bytes).next().unwrap();
        assert_eq!((found.pid(), found.parent_pid(), found.uid(), found.tid()), (801, 1, 1001, 100_123));
        assert_eq!((found.tracer_pid(), found.jail_id(), found.thread_count()), (77, 3, 4));
        assert_eq!((found.start_us(), found.resident_pages()), (1_700_000_000_000_005, 25));
        assert_eq!((found.name().as_str(), found.thread_name().as_str()), ("adserver", "worker"));
        assert_eq!(found.emulation(), "FreeBSD ELF64");
        assert!(!found.is_zombie() && !found.is_kernel() && !found.is_traced() && !found.is_executing());
        assert!(!found.is_stopped_by_signal() && !found.has_changed_user() && !found.is_ending());
    }

    #[test]
    fn flags_tell_its_state() {
        let of = |flags, state, thread_flags, asked: fn(ProcessRecord<'_>) -> bool| {
            asked(ProcessRecord::all(&process(flags, state, thread_flags)).next().unwrap())
        };
        assert!(of(0x800, 2, 0, |found| found.is_traced()));
        assert!(of(0x20000, 4, 0, |found| found.is_stopped_by_signal()));
        assert!(of(0x0400_0000, 2, 0, |found| found.is_executing()));
        assert!(of(0x200, 2, 0, |found| found.is_kernel()));
        assert!(of(0x100, 2, 0, |found| found.has_changed_user()));
        assert!(of(0x2000, 2, 0, |found| found.is_ending()));
        assert!(of(0, 5, 0, |found| found.is_zombie()));
        // Sleeping: state 3, and 8 where a signal wakes it up. Running threads have no such flag either.
        assert!(of(0, 3, 0, |found| found.sleeps_uninterruptibly()));
        assert!(!of(0, 3, 8, |found| found.sleeps_uninterruptibly()));
        assert!(!of(0, 2, 0, |found| found.sleeps_uninterruptibly()));
    }

    #[test]
    fn records_of_another_size_are_not_read() {
        let mut bytes = process(0, 2, 0);
        assert_eq!(ProcessRecord::all(&bytes[..1087]).count(), 0);
        bytes[0] = 0;
        assert_eq!(ProcessRecord::all(&bytes).count(), 0);
    }

    fn entry(kind: i32, flags: i32, rights: i32, path: &str) -> Vec<u8> {
        let len_bytes = (136 + path.len() + 1).next_multiple_of(8);
        let numbers = [(0, len_bytes as i32), (4, kind), (44, flags), (48, 7), (56, rights)];
        let words = [(8, 0x1000), (16, 0x9000), (24, 0x2000), (32, 4711), (88, 0x1_0000_0002)];
        record(len_bytes, &numbers, &words, &[(136, path)])
    }

    #[test]
    fn mappings_of_files_anonymous_memory_devices_and_guards() {
        let bytes = [
            entry(2, 1, 5, "/lib/libc.so.7"),
            entry(3, 0, 3, ""),
            entry(4, 0, 3, "/dev/dri/card0"),
            entry(9, 0, 0, ""),
            entry(3, 0x20, 3, ""),
            entry(3, 0x100, 3, ""),
        ]
        .concat();
        let found = parse_vm_entries(&bytes);
        assert_eq!(found.len(), 6);
        let file = &found[0].mapping;
        assert_eq!(file.path().unwrap().to_str(), Some("/lib/libc.so.7"));
        assert_eq!((file.inode, file.device, file.file_offset), (4711, (1, 2), 0x2000));
        assert_eq!((file.readable, file.writable, file.executable, file.shared), (true, false, true, false));
        assert_eq!(
            found.iter().map(|entry| entry.is_memory).collect::<Vec<_>>(),
            [true, true, false, false, true, true]
        );
        assert!(found.iter().all(|entry| entry.resident_pages == 7));
        assert!(found[1].mapping.is_private_anonymous());
        assert_eq!(found[4].mapping.kind, MappingKind::Stack);
        assert!(found[5].mapping.shared);
        assert_eq!(parse_vm_entries(&bytes[..bytes.len() - 1]).len(), 5);
    }

    #[test]
    fn the_root_folder_is_among_the_files() {
        let file = |descriptor: i32, path: &str| {
            let len_bytes = (368 + path.len() + 1).next_multiple_of(8);
            record(len_bytes, &[(0, len_bytes as i32), (8, descriptor)], &[], &[(368, path)])
        };
        let bytes =
            [file(-5, "/bin/sh"), file(-1, "/tmp"), file(-2, "/jails/www"), file(0, "/dev/null")].concat();
        assert_eq!(parse_root_folder(&bytes), Some(PathBuf::from("/jails/www")));
        assert_eq!(parse_root_folder(&file(-1, "/tmp")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2500)) {
            let _ = (parse_vm_entries(&bytes), parse_root_folder(&bytes));
            for found in ProcessRecord::all(&bytes) {
                let _ = (found.name(), found.start_us(), found.sleeps_uninterruptibly());
            }
        }
    }
}
