//! `MiniDebugInfo`: a symbol table that distributions leave in stripped programs, packed with xz in
//! `.gnu_debugdata`.

use crate::module::Image;
use std::io::Read;

/// Packed or unpacked bytes at most: those of large programs have some megabytes.
const BYTES_MAX: u64 = 256 << 20;

/// The image inside of an image, if there is one that can be unpacked.
pub fn unpack(image: &Image) -> Option<Image> {
    let packed = image.section(".gnu_debugdata", BYTES_MAX)?;
    let mut unpacked = Vec::new();
    let reader = liblzma::bufread::XzDecoder::new(packed.as_ref());
    reader.take(BYTES_MAX).read_to_end(&mut unpacked).ok()?;
    Some(Image::from_bytes(unpacked)).filter(Image::is_elf)
}
