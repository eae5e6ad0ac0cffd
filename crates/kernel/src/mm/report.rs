//! What an address space tells about itself: for `/proc/<pid>/maps` and friends, and for those who read another task's memory.

use cloudpilot_abi::Errno;
use cloudpilot_platform::Protection;

use super::Mm;
use crate::vfs::Path;

/// One area, as `/proc/<pid>/maps` shows it.
pub struct AreaInfo {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// `PROT_*`.
    pub protection: Protection,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// The mapped file's place in the tree.
    pub file: Option<Path>,
    /// Offset in the file.
    pub offset: u64,
    /// The file's device number.
    pub device: u64,
    /// The file's inode number.
    pub inode: u64,
    /// `[heap]`, `[stack]`, `[vdso]`, `[anon: …]`, or what stands for a file without a path (`/memfd:x (deleted)`).
    pub name: Option<String>,
    /// Bytes that are present.
    pub resident: u64,
}

/// Where exec put things, `/proc/<pid>/stat` and `prctl(PR_SET_MM)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Program code.
    pub code: (u64, u64),
    /// Program data.
    pub data: (u64, u64),
    /// The heap: where it starts, and its present end.
    pub brk: (u64, u64),
    /// Stack pointer at the program's start.
    pub stack: u64,
    /// `argv` strings.
    pub arguments: (u64, u64),
    /// `environ` strings.
    pub environment: (u64, u64),
}

impl Mm {
    /// All areas, ascending.
    pub fn areas(&self) -> Vec<AreaInfo> {
        Vec::new()
    }

    /// Where exec put things.
    pub fn layout(&self) -> Layout {
        Layout::default()
    }

    /// The auxiliary vector that exec made, `/proc/<pid>/auxv`.
    pub fn auxiliary_vector(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Copies bytes out of this address space for another task, protection not asked; answers how many came before the first unmapped one.
    pub fn read_foreign(&self, _address: u64, _buffer: &mut [u8]) -> usize {
        0
    }

    /// Copies bytes into this address space for another task; `EIO` where nothing is mapped.
    pub fn write_foreign(&self, _address: u64, _bytes: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EIO)
    }
}
