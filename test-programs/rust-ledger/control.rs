//! What only the C side knows: the allocator's statistics and usable sizes. It is compiled from the folder `ledger`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

#[link(name = "ledger_control", kind = "static")]
unsafe extern "C" {
    fn statistics_write(path: *const c_char, lines: *mut usize) -> bool;
    fn heap_has_control() -> bool;
    fn heap_usable_size(address: *mut c_void) -> usize;
    fn heap_control(
        name: *const c_char,
        old_value: *mut c_void,
        old_length: *mut usize,
        new_value: *mut c_void,
        new_length: usize,
    ) -> c_int;
}

/// Writes jemalloc's statistics and returns the number of lines; none if the file cannot be written.
pub fn write_statistics(path: &CStr) -> Option<usize> {
    let mut lines = 0;
    // SAFETY: the path ends with a zero byte and both pointers outlive the call.
    unsafe { statistics_write(path.as_ptr(), &mut lines) }.then_some(lines)
}

/// Whether the allocator has a mallctl.
pub fn has_control() -> bool {
    // SAFETY: it only compares addresses of functions.
    unsafe { heap_has_control() }
}

/// Usable bytes of a live block.
pub fn usable_size(address: usize) -> usize {
    // SAFETY: the callers pass addresses of blocks that are live in this heap.
    unsafe { heap_usable_size(address as *mut c_void) }
}

/// Empties the thread cache of the calling thread.
pub fn flush_cache() {
    // SAFETY: the name ends with a zero byte; the other parameters are those of a call without a value.
    unsafe {
        heap_control(c"thread.tcache.flush".as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0)
    };
}
