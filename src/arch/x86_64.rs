//! x86-64, System V calling convention.

use super::{Cpu, Link, SignalReturn, Stub};
use heaptap_platform::Architecture;

/// System V psABI AMD64 1.0: figure 3.4 for what is preserved, figure 3.36 for the numbers.
pub const X86_64: Cpu = Cpu {
    architecture: Architecture::X86_64,
    stack_pointer: 7,
    frame_pointer: 6,
    program_counter: 16,
    // rbx, rbp, r12 to r15
    preserved: 1 << 3 | 1 << 6 | 0b1111 << 12,
    link: Link::Stack,
    red_zone_bytes: 128,
    code_address_mask: u64::MAX,
    signal_returns: &[SignalReturn {
        // mov $15, %rax; syscall
        code: &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
        saved: SIGNAL_CONTEXT,
    }],
    stub: Stub { entry_bytes: 16, pushed_from: 11 },
};

/// `struct sigcontext_64` in `struct ucontext` (Linux, `arch/x86/include/uapi/asm/sigcontext.h`), which lies
/// where the stack pointer points once the handler has returned. Its first register is at 40.
const SIGNAL_CONTEXT: &[(u8, i32)] = &[
    (8, 40),
    (9, 48),
    (10, 56),
    (11, 64),
    (12, 72),
    (13, 80),
    (14, 88),
    (15, 96),
    (5, 104),
    (4, 112),
    (6, 120),
    (3, 128),
    (1, 136),
    (0, 144),
    (2, 152),
    (7, 160),
    (16, 168),
];
