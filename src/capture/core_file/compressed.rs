//! Compressed cores: unpacked into a file without a name, which is mapped then.
//!
//! Pages of zeros, of which cores are full, take no room there.

use super::error::CoreFileError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Most bytes that a file is unpacked to: cores of the largest processes have fewer.
const UNPACKED_BYTES_MAX: u64 = 1 << 42;

/// Bytes that are unpacked at a time, and the size of the holes.
const PIECE_BYTES: usize = 1 << 16;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// By zstd.
    Zstd,
    /// By gzip.
    Gzip,
    /// By xz.
    Xz,
    /// By lz4, in its frame format.
    Lz4,
}

/// An unpacked file.
#[derive(Debug)]
pub struct Unpacked {
    /// The bytes.
    pub file: File,
    /// Why it is not whole, if it is not.
    pub cut_short: Option<String>,
}

impl Compression {
    /// The compression that `start`, the first bytes of a file, shows.
    pub fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
        }
    }

    /// Unpacks `packed`, the file at `path`, as far as it goes.
    ///
    /// # Errors
    /// There is no room for it, or not even its beginning can be unpacked.
    pub fn unpack(self, packed: &[u8], path: &Path) -> Result<Unpacked, CoreFileError> {
        let io_error = |source| CoreFileError::io(path, "unpack", source);
        let mut source: Box<dyn Read + '_> = match self {
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(packed).map_err(io_error)?),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(packed)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        };
        let mut file = tempfile::tempfile().map_err(io_error)?;
        let (length, failure) = copy(&mut *source, &mut file).map_err(io_error)?;
        file.set_len(length).map_err(io_error)?;
        match failure {
            Some(error) if length == 0 => {
                Err(CoreFileError::corrupt(path, 0, format!("{} data: {error}", self.name())))
            }
            None if length == 0 => Err(CoreFileError::NotCore {
                path: path.to_owned(),
                found: "it unpacks to nothing".to_owned(),
            }),
            failure => {
                let sentence = |error| format!("unpacking ended at byte {length} ({}: {error})", self.name());
                Ok(Unpacked { file, cut_short: failure.map(sentence) })
            }
        }
    }
}

/// Copies until the source ends or fails: how many bytes it had, and why it failed. Zeros become holes.
fn copy(source: &mut dyn Read, file: &mut File) -> io::Result<(u64, Option<io::Error>)> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0_u64;
    loop {
        let (filled, failure) = fill(source, &mut piece);
        let bytes = piece.get(..filled).unwrap_or_default();
        if bytes.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(length))?;
            file.write_all(bytes)?;
        }
        length += filled as u64;
        if length > UNPACKED_BYTES_MAX {
            return Ok((length, Some(io::Error::other(format!("more than {UNPACKED_BYTES_MAX} bytes")))));
        }
        if failure.is_some() || filled < piece.len() {
            return Ok((length, failure));
        }
    }
}

/// Fills `piece` as far as the source goes.
fn fill(source: &mut dyn Read, piece: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}
