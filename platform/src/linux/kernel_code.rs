//! The code that the kernel maps into every process (the vDSO). It is the same in all processes of one architecture.

use super::proc_file;
use crate::MappingKind;
use crate::format::maps;
use nix::unistd::getpid;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Far more than the two or four pages that it has.
const LEN_BYTES_MAX: u64 = 1 << 20;

/// The kernel's code as this process has it: an ELF image. `None` where the kernel gives none.
pub fn own_kernel_code() -> Option<Vec<u8>> {
    let pid = getpid().as_raw();
    let (mappings, _) = maps::parse_maps(&proc_file::read(pid, "maps").ok()?);
    let range = mappings.into_iter().find(|mapping| mapping.kind == MappingKind::Vdso)?.range;
    let mut bytes = vec![0; usize::try_from(range.len_bytes().min(LEN_BYTES_MAX)).ok()?];
    File::open(proc_file::path(pid, "mem")).ok()?.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}
