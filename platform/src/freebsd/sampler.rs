//! Samples of what one thread does at one place: not offered on this system.
//!
//! Hardware breakpoints can be set here by ptrace alone, so that the process would have to stay traced for as long as it is sampled,
//! stand still as a whole at each hit, and be killed where both this tool and its guardian are. That is more than a running process
//! may be asked for, so every request is refused.

use super::{Process, system_call};
use crate::{Architecture, Hit, SamplerError};
use std::convert::Infallible;
use std::time::Duration;

/// What a thread is sampled at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// Writes to a word of 1, 2, 4 or 8 bytes at an address that is a multiple of that.
    Writes {
        /// Its address.
        address: u64,
        /// Its length.
        len_bytes: u64,
    },
    /// The instruction at an address is about to be executed.
    Execution {
        /// Its address.
        address: u64,
    },
    /// A page is touched that is not there yet; needs no register.
    PageFaults {
        /// One of so many is sampled.
        period: u64,
        /// Those that the kernel meets on the thread's behalf, too.
        with_kernel: bool,
    },
}

/// A breakpoint in one thread. There is none: no value of this type exists.
#[derive(Debug)]
pub struct ThreadSampler {
    none: Infallible,
}

impl ThreadSampler {
    /// Refuses.
    ///
    /// # Errors
    ///
    /// Always [`SamplerError::NoSampler`].
    pub const fn open(_: &Process, _: i32, _: Aim, _: u32) -> Result<Self, SamplerError> {
        Err(SamplerError::NoSampler)
    }

    /// The thread.
    pub const fn tid(&self) -> i32 {
        match self.none {}
    }

    /// Aims at another place.
    ///
    /// # Errors
    ///
    /// None: there is no sampler.
    pub const fn aim(&mut self, _: Aim) -> Result<(), SamplerError> {
        match self.none {}
    }

    /// Lets hits happen.
    ///
    /// # Errors
    ///
    /// None: there is no sampler.
    pub const fn enable(&self) -> Result<(), SamplerError> {
        match self.none {}
    }

    /// Lets no more hits happen.
    ///
    /// # Errors
    ///
    /// None: there is no sampler.
    pub const fn disable(&self) -> Result<(), SamplerError> {
        match self.none {}
    }

    /// Hits since it was made.
    ///
    /// # Errors
    ///
    /// None: there is no sampler.
    pub const fn hit_count(&self) -> Result<u64, SamplerError> {
        match self.none {}
    }

    /// Bytes of records that wait to be taken.
    pub const fn waiting_len_bytes(&self) -> u64 {
        match self.none {}
    }

    /// Sleeps until there is a record.
    pub const fn wait(&self, _: Duration) -> bool {
        match self.none {}
    }

    /// Hits that were lost.
    pub const fn lost(&self) -> u64 {
        match self.none {}
    }

    /// Takes all hits.
    pub const fn take(&mut self) -> Vec<Hit> {
        match self.none {}
    }
}

/// Nanoseconds of the clock that hits would be stamped with.
pub fn sampler_clock_ns() -> u64 {
    system_call::clock_ns()
}

/// Refuses.
///
/// # Errors
///
/// Always [`SamplerError::NoSampler`].
pub const fn hit_cost(_: Architecture, _: u32) -> Result<Duration, SamplerError> {
    Err(SamplerError::NoSampler)
}
