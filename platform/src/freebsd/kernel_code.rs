//! The code that the kernel maps into every process.

/// The kernel's code as this process has it: not read here. It lies in the middle of a page that the kernel shares with all
/// processes, and where is told by no call; frames of the kernel's code are found without it or not at all.
pub const fn own_kernel_code() -> Option<Vec<u8>> {
    None
}
