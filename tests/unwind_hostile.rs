//! Stacks and call frame information that make no sense: unwinding ends, within its limits, and never panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap::memory::{Fault, Memory};
use heaptap::module::{Image, Module};
use heaptap::unwind::{Limits, Unwinder};
use heaptap_platform::{AddressRange, Architecture, Registers};
use heaptap_test_programs::{CALLS, CALLS_DEBUG_FRAME, CALLS_WITHOUT_HDR};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

const BIAS: u64 = 0x5555_0000_0000;
const STACK: u64 = 0x7fff_0000_0000;
const STACK_BYTES: usize = 8 << 10;
const FRAMES_MAX: usize = 3000;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// A stack, and how often it was read.
struct Stack {
    bytes: Vec<u8>,
    reads: Cell<usize>,
}

impl Memory for Stack {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.reads.set(self.reads.get() + 1);
        let fault = Fault { address };
        let start = usize::try_from(address.checked_sub(STACK).ok_or(fault)?).map_err(|_| fault)?;
        let end = start.checked_add(bytes.len()).ok_or(fault)?;
        bytes.copy_from_slice(self.bytes.get(start..end).ok_or(fault)?);
        Ok(())
    }
}

fn module(bytes: Vec<u8>) -> Module {
    Module {
        path: PathBuf::from("hostile"),
        bias: BIAS,
        range: AddressRange { start: BIAS, end: BIAS + (1 << 20) },
        writable: Vec::new(),
        image: Some(Arc::new(Image::from_bytes(bytes))),
        debug: None,
    }
}

/// Where in the file the sections lie that unwinding reads.
fn sections(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let image = Image::from_bytes(bytes.to_vec());
    let found = image.call_frame_sections();
    let all = [found.eh_frame, found.eh_frame_hdr, found.debug_frame];
    let position = |(_, section): (u64, std::borrow::Cow<'_, [u8]>)| {
        let start = bytes.windows(section.len()).position(|part| part == section.as_ref())?;
        Some(start..start + section.len())
    };
    all.into_iter().flatten().filter_map(position).collect()
}

/// Addresses in the code and in the stack, small numbers, and anything.
fn word(numbers: &mut Numbers, code: &[AddressRange]) -> u64 {
    let anything = numbers.next();
    let range = code.first().unwrap();
    match anything % 8 {
        0..=3 => BIAS + range.start + anything % range.len_bytes(),
        4..=5 => STACK + (anything >> 8) % (STACK_BYTES as u64) / 8 * 8,
        6 => anything % 4096,
        _ => anything,
    }
}

fn registers(numbers: &mut Numbers, code: &[AddressRange]) -> Registers {
    let mut bytes: Vec<u8> = (0..27).flat_map(|_| word(numbers, code).to_le_bytes()).collect();
    let range = code.first().unwrap();
    let counter = BIAS + range.start + numbers.next() % range.len_bytes();
    bytes[16 * 8..17 * 8].copy_from_slice(&counter.to_le_bytes());
    let stack_pointer = STACK + numbers.below(STACK_BYTES / 16) as u64 * 8;
    bytes[19 * 8..20 * 8].copy_from_slice(&stack_pointer.to_le_bytes());
    Registers::from_x86_64_user_regs(&bytes).unwrap()
}

/// Unwinds `rounds` nonsensical stacks; gives the frames found beyond the first of each.
fn unwind_nonsense(modules: &[Module], code: &[AddressRange], numbers: &mut Numbers, rounds: usize) -> usize {
    let limits = Limits { frames: FRAMES_MAX, ..Limits::default() };
    let mut unwinder = Unwinder::new(Architecture::X86_64, modules, &[]).with_limits(limits);
    let mut found = 0;
    for _ in 0..rounds {
        let bytes = (0..STACK_BYTES / 8).flat_map(|_| word(numbers, code).to_le_bytes()).collect();
        let stack = Stack { bytes, reads: Cell::new(0) };
        let unwound = unwinder.unwind(&registers(numbers, code), &stack);
        assert!(!unwound.frames.is_empty() && unwound.frames.len() <= FRAMES_MAX);
        assert!(stack.reads.get() <= unwound.frames.len() * 200, "{} reads", stack.reads.get());
        found += unwound.frames.len() - 1;
    }
    found
}

#[test]
fn nonsense_on_the_stack_ends() {
    let bytes = std::fs::read(CALLS).unwrap();
    let code = Image::from_bytes(bytes.clone()).code();
    let found = unwind_nonsense(&[module(bytes)], &code, &mut Numbers(0x9e37_79b9), 2000);
    assert!(found > 300, "the stacks lead somewhere, or nothing was tried: {found}");
}

#[test]
fn damaged_call_frame_information_ends() {
    let mut numbers = Numbers(0x2545_f491);
    for program in [CALLS, CALLS_WITHOUT_HDR, CALLS_DEBUG_FRAME] {
        let whole = std::fs::read(program).unwrap();
        let code = Image::from_bytes(whole.clone()).code();
        let sections = sections(&whole);
        assert!(!sections.is_empty(), "{program}");
        let mut found = 0;
        for round in 0..500 {
            let mut bytes = whole.clone();
            for _ in 0..=round % 40 {
                let section = sections[numbers.below(sections.len())].clone();
                bytes[section.start + numbers.below(section.len())] = numbers.next().to_le_bytes()[3];
            }
            found += unwind_nonsense(&[module(bytes)], &code, &mut numbers, 2);
        }
        assert!(found > 100, "{program}: {found}");
    }
}

#[test]
fn files_cut_anywhere_are_survived() {
    let whole = std::fs::read(CALLS).unwrap();
    let code = Image::from_bytes(whole.clone()).code();
    let mut numbers = Numbers(0x1234_5678);
    for part in 0..64 {
        let bytes = whole[..whole.len() * part / 64].to_vec();
        unwind_nonsense(&[module(bytes)], &code, &mut numbers, 1);
    }
}
