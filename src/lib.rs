//! heaptap shows, from outside, what grows in the heap of a running process.
//!
//! The flow has one direction: a [`target`] is stopped for milliseconds and the allocator's own records are
//! copied into a [`capture`]; an [`allocator`] walks that copy; the [`census`] adds up; a [`snapshot`] keeps
//! the sum of one moment; [`growth`] is the difference of two; a [`report`] prints it. Nothing after the
//! capture touches the target.
//!
//! This crate knows allocators and file formats and refuses to know the operating system: everything that
//! needs a system call is in `heaptap-platform`.

pub mod allocator;
pub mod arch;
pub mod attribution;
pub mod capture;
pub mod census;
pub mod cli;
pub mod content;
pub mod growth;
pub mod inspection;
pub mod memory;
pub mod module;
pub mod profile;
pub mod recording;
pub mod report;
pub mod snapshot;
pub mod stacks;
pub mod symbolize;
pub mod target;
pub mod unwind;
