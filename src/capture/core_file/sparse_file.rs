//! A file in which zeros take no room.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Zeros shorter than this are written as they are.
const HOLE_BYTES_MIN: usize = 1 << 14;

/// A file that is written from its start; long stretches of zeros become holes.
#[derive(Debug)]
pub(super) struct SparseFile {
    file: File,
    len_bytes: u64,
}

impl SparseFile {
    /// A file that is empty.
    pub const fn new(file: File) -> Self {
        Self { file, len_bytes: 0 }
    }

    /// Makes the file as long as all that was written, also where it ends in a hole.
    pub fn finish(self) -> io::Result<()> {
        self.file.set_len(self.len_bytes)
    }
}

impl Write for SparseFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_hole = |piece: &&[u8]| piece.len() == HOLE_BYTES_MIN && piece.iter().all(|byte| *byte == 0);
        let mut pieces = bytes.chunks(HOLE_BYTES_MIN);
        let holes_bytes: usize = pieces.by_ref().take_while(is_hole).map(<[u8]>::len).sum();
        if holes_bytes > 0 {
            self.len_bytes += holes_bytes as u64;
            self.file.seek(SeekFrom::Start(self.len_bytes))?;
            return Ok(holes_bytes);
        }
        let pieces = bytes.chunks(HOLE_BYTES_MIN);
        let data_bytes: usize = pieces.take_while(|piece| !is_hole(piece)).map(<[u8]>::len).sum();
        let written = self.file.write(bytes.get(..data_bytes).unwrap_or(bytes))?;
        self.len_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_take_no_room_and_are_read_as_zeros() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 1 << 20];
        bytes[0] = 1;
        bytes[300_000] = 2;
        let mut sparse = SparseFile::new(file.try_clone().unwrap());
        sparse.write_all(&bytes).unwrap();
        sparse.finish().unwrap();
        let mut file = file;
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 17);
    }
}
