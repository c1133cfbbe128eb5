//! Decoding of what operating systems write: text of `/proc`, page-table entries, wait statuses,
//! notes of core files.
//!
//! Everything here works on bytes that were read elsewhere, on any machine, and never fails on bad input otherwise than
//! by a value that says so.

pub mod auxiliary_vector;
pub mod freebsd_core;
pub mod freebsd_kinfo;
#[allow(dead_code, reason = "each system and architecture uses its part")]
pub(crate) mod freebsd_layout;
pub mod linux_core;
pub mod maps;
pub mod pagemap;
pub mod perf_event;
pub mod wait_status;
