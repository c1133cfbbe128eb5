//! 64-bit ARM, procedure call standard AAPCS64.

use super::{Cpu, Link, SignalReturn, Stub};
use heaptap_platform::Architecture;

/// AAPCS64, section 6.1.1 for what is preserved; DWARF for the Arm 64-bit Architecture, section 4.1 for the
/// numbers. The program counter has none there: it is 32 in a thread's registers.
pub const AARCH64: Cpu = Cpu {
    architecture: Architecture::Aarch64,
    stack_pointer: 31,
    frame_pointer: 29,
    program_counter: 32,
    // x19 to x29
    preserved: 0x3ff8_0000,
    link: Link::Register(30),
    red_zone_bytes: 0,
    // Code lies below 2^48 (only data that a program asks for may lie above); what signs an address stands in the
    // bits above that.
    code_address_mask: (1 << 48) - 1,
    signal_returns: &[SignalReturn {
        // mov x8, #139; svc #0
        code: &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4],
        saved: SIGNAL_CONTEXT,
    }],
    stub: Stub { entry_bytes: 16, pushed_from: 16 },
};

/// `struct rt_sigframe` (Linux, `arch/arm64/kernel/signal.c`): 128 bytes of `siginfo`, then `struct ucontext`
/// with `struct sigcontext` at 176, whose first word is the fault's address; x0 follows.
const SIGNAL_CONTEXT: &[(u8, i32)] = &[
    (0, 312),
    (1, 320),
    (2, 328),
    (3, 336),
    (4, 344),
    (5, 352),
    (6, 360),
    (7, 368),
    (8, 376),
    (9, 384),
    (10, 392),
    (11, 400),
    (12, 408),
    (13, 416),
    (14, 424),
    (15, 432),
    (16, 440),
    (17, 448),
    (18, 456),
    (19, 464),
    (20, 472),
    (21, 480),
    (22, 488),
    (23, 496),
    (24, 504),
    (25, 512),
    (26, 520),
    (27, 528),
    (28, 536),
    (29, 544),
    (30, 552),
    (31, 560),
    (32, 568),
];
