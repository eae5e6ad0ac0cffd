//! Areas: what `mmap(2)` made, before any page of it exists.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::raw;
use cloudpilot_memory::Object;
use cloudpilot_platform::Protection;

use super::policy::Policy;
use crate::vfs::File;

/// What an area shows.
#[derive(Clone)]
pub enum Content {
    /// Zeroes until written.
    Anonymous,
    /// An object's pages, from this offset on.
    Object(Arc<Object>, u64),
    /// A host file, from this offset on.
    Host(Arc<OwnedFd>, u64),
    /// Pages that the platform put there (vDSO): listed, never touched.
    Platform,
}

/// Counts, by being there, something that may write to a memfd.
#[derive(Clone, Default)]
pub struct WriterMark(Arc<()>);

impl WriterMark {
    /// Whether there is another one of the same memfd.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// One area; its start is its key in the address space's map.
#[derive(Clone)]
pub struct Area {
    /// One past the last address.
    pub end: u64,
    /// `PROT_*`.
    pub protection: Protection,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Whether `mprotect` may add `PROT_WRITE` (shared mappings of files opened without it must not become writable).
    pub may_write: bool,
    /// Grows towards lower addresses when touched below its start, `MAP_GROWSDOWN`.
    pub grows_down: bool,
    /// What it shows.
    pub content: Content,
    /// The mapped file and the offset in it of the area's start.
    pub file: Option<(Arc<File>, u64)>,
    /// Held by shared mappings of a memfd that may write to it: what stands in the way of `F_SEAL_WRITE`.
    pub writer: Option<WriterMark>,
    /// `[heap]`, `[stack]`, ….
    pub name: Option<String>,
    /// `MADV_DONTFORK`.
    pub keep_from_fork: bool,
    /// `MADV_WIPEONFORK`.
    pub wipe_on_fork: bool,
    /// `mlock(2)`.
    pub locked: bool,
    /// `mseal(2)`: neither unmapped nor changed until the end of the address space.
    pub sealed: bool,
    /// `mbind(2)`.
    pub policy: Option<Policy>,
}

impl Area {
    /// Whether an access of this kind is allowed.
    pub fn allows(&self, access: cloudpilot_platform::Access) -> bool {
        use cloudpilot_platform::Access;
        let wanted = match access {
            // On this processor, memory that can be written or executed can be read.
            Access::Read => raw::PROT_READ | raw::PROT_WRITE | raw::PROT_EXEC,
            Access::Write => raw::PROT_WRITE,
            Access::Execute => raw::PROT_EXEC,
        };
        self.protection & wanted != 0
    }

    /// Whether it is memory of its own that no file stands behind.
    pub fn is_private_memory(&self) -> bool {
        !self.shared && matches!(self.content, Content::Anonymous)
    }

    /// Protection of the stub's mapping of pages that a write must not reach directly.
    pub fn read_only(&self) -> Protection {
        self.protection & !raw::PROT_WRITE
    }

    /// The same area from `by` bytes further on.
    pub fn advance(&mut self, by: u64) {
        match &mut self.content {
            Content::Object(_, offset) | Content::Host(_, offset) => *offset += by,
            Content::Anonymous | Content::Platform => {}
        }
        if let Some((_, offset)) = &mut self.file {
            *offset += by;
        }
    }

    /// Whether `next`, which starts where this one ends, is its seamless continuation.
    pub fn continues_in(&self, start: u64, next: &Self) -> bool {
        let length = self.end - start;
        let same_content = match (&self.content, &next.content) {
            (Content::Anonymous, Content::Anonymous) => true,
            (Content::Object(one, at), Content::Object(other, other_at)) => Arc::ptr_eq(one, other) && at + length == *other_at,
            (Content::Host(one, at), Content::Host(other, other_at)) => Arc::ptr_eq(one, other) && at + length == *other_at,
            _ => false,
        };
        let same_file = match (&self.file, &next.file) {
            (None, None) => true,
            (Some((one, _)), Some((other, _))) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let flags = |area: &Self| {
            let forked = (area.keep_from_fork, area.wipe_on_fork);
            (area.protection, area.shared, area.may_write, area.grows_down, forked, area.locked, area.sealed, area.policy)
        };
        same_content && same_file && flags(self) == flags(next) && self.name == next.name
    }
}
