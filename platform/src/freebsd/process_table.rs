//! What sysctl tells of a process.

use super::system_call;
use crate::format::freebsd_kinfo::{self, ProcessRecord, VmEntry};
use crate::format::freebsd_layout::{
    CTL_KERN, KERN_PROC, KERN_PROC_AUXV, KERN_PROC_FILEDESC, KERN_PROC_INC_THREAD, KERN_PROC_PATHNAME,
    KERN_PROC_PID, KERN_PROC_VMMAP, KINFO_PROC_BYTES,
};
use std::path::PathBuf;

/// Times that a list which grows is asked for anew.
const TRIES_MAX: usize = 8;

/// A process as the kernel lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub pid: i32,
    pub name: String,
    pub parent_pid: i32,
    pub tracer_pid: i32,
    pub uid: u32,
    pub jail_id: i32,
    pub start_us: u64,
    pub thread_count: usize,
    pub resident_pages: u64,
    pub emulation: String,
    pub is_zombie: bool,
    pub is_ending: bool,
    pub is_kernel: bool,
    pub is_traced: bool,
    pub has_changed_user: bool,
}

/// The process that this id, or the id of one of its threads, belongs to; the system's error number where there is none.
pub fn find(pid: i32) -> Result<Listed, i32> {
    let mut bytes = [0; KINFO_PROC_BYTES];
    let len_bytes = system_call::sysctl(&[CTL_KERN, KERN_PROC, KERN_PROC_PID, pid], &mut bytes)?;
    let mut records = ProcessRecord::all(bytes.get(..len_bytes).unwrap_or_default());
    let found = records.next().ok_or(libc::ESRCH)?;
    Ok(Listed {
        pid: found.pid(),
        name: found.name(),
        parent_pid: found.parent_pid(),
        tracer_pid: found.tracer_pid(),
        uid: found.uid(),
        jail_id: found.jail_id(),
        start_us: found.start_us(),
        thread_count: found.thread_count(),
        resident_pages: found.resident_pages(),
        emulation: found.emulation(),
        is_zombie: found.is_zombie(),
        is_ending: found.is_ending(),
        is_kernel: found.is_kernel(),
        is_traced: found.is_traced(),
        has_changed_user: found.has_changed_user(),
    })
}

/// The same, or `None` where there is none that can be seen.
pub fn process(pid: i32) -> Option<Listed> {
    find(pid).ok()
}

/// The ids and names of its threads.
pub fn threads(pid: i32) -> Result<Vec<(i32, String)>, i32> {
    let bytes = list(&[CTL_KERN, KERN_PROC, KERN_PROC_PID | KERN_PROC_INC_THREAD, pid])?;
    Ok(ProcessRecord::all(&bytes).map(|thread| (thread.tid(), thread.thread_name())).collect())
}

/// Its mappings.
pub fn mappings(pid: i32) -> Result<Vec<VmEntry>, i32> {
    list(&[CTL_KERN, KERN_PROC, KERN_PROC_VMMAP, pid]).map(|bytes| freebsd_kinfo::parse_vm_entries(&bytes))
}

/// The bytes of its auxiliary vector.
pub fn auxiliary_vector(pid: i32) -> Result<Vec<u8>, i32> {
    list(&[CTL_KERN, KERN_PROC, KERN_PROC_AUXV, pid])
}

/// The path of its program, where the kernel knows one.
pub fn program_path(pid: i32) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = list(&[CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, pid]).ok()?;
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    (!bytes.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// The folder that it has for its root, as this tool sees it.
pub fn root_folder(pid: i32) -> Option<PathBuf> {
    freebsd_kinfo::parse_root_folder(&list(&[CTL_KERN, KERN_PROC, KERN_PROC_FILEDESC, pid]).ok()?)
}

/// A number by its name.
pub fn number(name: &std::ffi::CStr) -> Option<i32> {
    let mut bytes = [0; 4];
    let len_bytes = system_call::sysctl_by_name(name, &mut bytes).ok()?;
    (len_bytes == 4).then(|| i32::from_ne_bytes(bytes))
}

/// A text by its name.
pub fn text(name: &std::ffi::CStr) -> Option<String> {
    let mut bytes = [0; 256];
    let len_bytes = system_call::sysctl_by_name(name, &mut bytes).ok()?;
    let text: Vec<u8> = bytes.into_iter().take(len_bytes).take_while(|byte| *byte != 0).collect();
    String::from_utf8(text).ok()
}

/// A list that may grow between the question how long it is and the next.
fn list(name: &[i32]) -> Result<Vec<u8>, i32> {
    let mut room_bytes = system_call::sysctl_len_bytes(name)?;
    for _ in 0..TRIES_MAX {
        room_bytes = room_bytes.saturating_add(room_bytes / 3).saturating_add(4096);
        let mut bytes = vec![0; room_bytes];
        match system_call::sysctl(name, &mut bytes) {
            // What fills the room to its end may have been cut.
            Ok(len_bytes) if len_bytes + KINFO_PROC_BYTES <= room_bytes => {
                bytes.truncate(len_bytes);
                return Ok(bytes);
            }
            Ok(_) | Err(libc::ENOMEM) => room_bytes = room_bytes.saturating_mul(2),
            Err(error) => return Err(error),
        }
    }
    Err(libc::ENOMEM)
}
