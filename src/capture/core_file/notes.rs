//! Notes as bytes: what a core says beside the memory.

/// Adds one note to `bytes`: both its owner and its descriptor are padded to whole words of 32 bits.
pub fn push(bytes: &mut Vec<u8>, owner: &[u8], kind: u32, descriptor: &[u8]) {
    let length = |part: usize| u32::try_from(part).unwrap_or(u32::MAX).to_le_bytes();
    bytes.extend(length(owner.len() + 1));
    bytes.extend(length(descriptor.len()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(owner);
    bytes.push(0);
    pad(bytes);
    bytes.extend(descriptor);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
