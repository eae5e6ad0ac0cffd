//! What an address space tells about itself: for `/proc/<pid>/maps` and friends, and for those who read another task's memory.

use cloudpilot_abi::{Errno, PAGE_SIZE, raw};
use cloudpilot_platform::Protection;

use super::policy::Policy;
use super::{Area, Mm};
use std::sync::Arc;

use crate::vfs::{File, Path};

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
    /// What else is known of it, as `VmFlags` of `smaps` tells.
    pub marks: Marks,
}

/// What a mapping has beside its protection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// May become writable.
    pub may_write: bool,
    /// Grows downwards.
    pub grows_down: bool,
    /// Stays in memory.
    pub locked: bool,
    /// Not for children.
    pub keep_from_fork: bool,
    /// Empty for children.
    pub wipe_on_fork: bool,
    /// Cannot be changed.
    pub sealed: bool,
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
        let state = self.state.read();
        let mut result: Vec<AreaInfo> = state.areas.iter().map(|(start, area)| describe(&state, *start, area)).collect();
        if let Some((start, end, header)) = self.limits.vdso {
            result.push(platform_area(start, header, "[vvar]", raw::PROT_READ));
            result.push(platform_area(header, end, "[vdso]", raw::PROT_READ | raw::PROT_EXEC));
        }
        result
    }

    /// The mapped files that `select` chooses, once for each area.
    pub fn mapped_files(&self, select: impl Fn(&File) -> bool) -> Vec<*const File> {
        let state = self.state.read();
        let files = state.areas.values().filter_map(|area| area.file.as_ref());
        files.filter(|(file, _)| select(file)).map(|(file, _)| Arc::as_ptr(file)).collect()
    }

    /// The file whose first byte is mapped at an address where an area starts.
    pub fn file_at_start(&self, address: u64) -> Option<Arc<File>> {
        let state = self.state.read();
        let (file, offset) = state.areas.get(&address)?.file.as_ref()?;
        (*offset == 0).then(|| Arc::clone(file))
    }

    /// Start and length of each area of a file.
    pub fn ranges_of(&self, file: &Arc<File>) -> Vec<(u64, u64)> {
        let state = self.state.read();
        let is_of = |area: &Area| area.file.as_ref().is_some_and(|(other, _)| Arc::ptr_eq(other, file));
        state.areas.iter().filter(|(_, area)| is_of(area)).map(|(start, area)| (*start, area.end - start)).collect()
    }

    /// Where exec put things.
    pub fn layout(&self) -> Layout {
        self.state.read().layout
    }

    /// The auxiliary vector that exec made, `/proc/<pid>/auxv`.
    pub fn auxiliary_vector(&self) -> Vec<u64> {
        self.state.read().auxiliary_vector.clone()
    }

    /// Bytes that are locked, of a range or (none) of all.
    pub fn locked_bytes(&self, range: Option<(u64, u64)>) -> u64 {
        let (start, end) = range.unwrap_or((0, u64::MAX));
        let state = self.state.read();
        let within = |(at, area): (&u64, &Area)| area.end.min(end).saturating_sub((*at).max(start));
        state.areas.iter().filter(|(_, area)| area.locked).map(within).sum()
    }

    /// Whether what is mapped from now on is locked.
    pub fn locks_future(&self) -> bool {
        self.state.read().lock_future
    }

    /// The memory policy of an address; none where nothing is mapped.
    pub fn policy_at(&self, address: u64) -> Option<Option<Policy>> {
        self.state.read().area_at(address).map(|(_, area)| area.policy)
    }

    /// The policies of a range's areas that have one.
    pub fn policies(&self, start: u64, length: u64) -> Vec<Policy> {
        let state = self.state.read();
        let end = start.saturating_add(length);
        state.areas.iter().filter(|(at, area)| **at < end && area.end > start).filter_map(|(_, area)| area.policy).collect()
    }

    /// Which pages of a range exist (`mincore(2)`); `ENOMEM` where nothing is mapped.
    pub fn residency(&self, start: u64, end: u64) -> Result<Vec<u8>, Errno> {
        let state = self.state.read();
        if super::map::covered_until(&state, start, end) < end {
            return Err(Errno::ENOMEM);
        }
        let mut pages = vec![0; ((end - start) / PAGE_SIZE) as usize];
        for (from, extent) in state.extents.within(start, end) {
            pages[((from - start) / PAGE_SIZE) as usize..((extent.end - start) / PAGE_SIZE) as usize].fill(1);
        }
        Ok(pages)
    }
}

fn describe(state: &super::State, start: u64, area: &Area) -> AreaInfo {
    let resident = state.extents.within(start, area.end).iter().map(|(from, extent)| extent.end - from).sum();
    let attributes = area.file.as_ref().and_then(|(file, _)| file.inode.attributes().ok());
    let is_shared_memory = area.shared && area.file.is_none();
    AreaInfo {
        start,
        end: area.end,
        protection: area.protection,
        shared: area.shared,
        file: area.file.as_ref().and_then(|(file, _)| file.path.clone()),
        offset: area.file.as_ref().map_or(0, |(_, offset)| *offset),
        device: attributes.map_or(0, |attributes| attributes.device),
        inode: attributes.map_or(0, |attributes| attributes.inode),
        name: area.name.clone().or_else(|| is_shared_memory.then(|| "/dev/zero (deleted)".to_owned())),
        resident,
        marks: Marks {
            may_write: area.may_write,
            grows_down: area.grows_down,
            locked: area.locked,
            keep_from_fork: area.keep_from_fork,
            wipe_on_fork: area.wipe_on_fork,
            sealed: area.sealed,
        },
    }
}

fn platform_area(start: u64, end: u64, name: &str, protection: Protection) -> AreaInfo {
    AreaInfo {
        start,
        end,
        protection,
        shared: false,
        file: None,
        offset: 0,
        device: 0,
        inode: 0,
        name: Some(name.to_owned()),
        resident: 0,
        marks: Marks::default(),
    }
}
