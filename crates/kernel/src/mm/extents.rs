//! Extents: the pages of an address space that exist, as runs of the memory file.

use std::collections::BTreeMap;

use cloudpilot_memory::Range;

/// A run of pages; its address is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// One past the last address.
    pub end: u64,
    /// Where it lies in the memory file.
    pub offset: u64,
    /// Copy before writing: mapped without write permission in the stub.
    pub copy_on_write: bool,
}

/// All of an address space.
#[derive(Default, Clone)]
pub struct Extents {
    map: BTreeMap<u64, Extent>,
    total: u64,
}

impl Extents {
    /// Bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The extent that holds an address, with its start.
    pub fn find(&self, address: u64) -> Option<(u64, Extent)> {
        let (&start, &extent) = self.map.range(..=address).next_back()?;
        (extent.end > address).then_some((start, extent))
    }

    /// Where the first extent at or after `address` starts.
    pub fn next_start(&self, address: u64) -> Option<u64> {
        self.map.range(address..).next().map(|(start, _)| *start)
    }

    /// The parts of extents within `start..end`: (start, extent cut to fit).
    pub fn within(&self, start: u64, end: u64) -> Vec<(u64, Extent)> {
        let first = self.find(start).map_or(start, |(first, _)| first);
        self.map
            .range(first..end)
            .map(|(&at, &extent)| {
                let from = at.max(start);
                (from, Extent { end: extent.end.min(end), offset: extent.offset + (from - at), ..extent })
            })
            .filter(|(from, extent)| *from < extent.end)
            .collect()
    }

    /// Enters a run where none was. Joins it to the one before when they are continuous.
    pub fn insert(&mut self, start: u64, extent: Extent) {
        self.total += extent.end - start;
        if let Some((&before, last)) = self.map.range_mut(..start).next_back()
            && last.end == start
            && last.offset + (start - before) == extent.offset
            && last.copy_on_write == extent.copy_on_write
        {
            last.end = extent.end;
            return;
        }
        self.map.insert(start, extent);
    }

    /// Takes out whatever lies within `start..end`, handing each run of the memory file to `gone`.
    pub fn remove(&mut self, start: u64, end: u64, mut gone: impl FnMut(Range)) {
        self.split(start);
        self.split(end);
        let starts: Vec<u64> = self.map.range(start..end).map(|(at, _)| *at).collect();
        for at in starts {
            if let Some(extent) = self.map.remove(&at) {
                self.total -= extent.end - at;
                gone(Range { start: extent.offset, end: extent.offset + (extent.end - at) });
            }
        }
    }

    /// Sets the copy-on-write mark of everything within `start..end`.
    pub fn mark(&mut self, start: u64, end: u64, copy_on_write: bool) {
        self.split(start);
        self.split(end);
        for (_, extent) in self.map.range_mut(start..end) {
            extent.copy_on_write = copy_on_write;
        }
    }

    fn split(&mut self, at: u64) {
        if let Some((&start, extent)) = self.map.range_mut(..at).next_back()
            && extent.end > at
        {
            let tail = Extent { offset: extent.offset + (at - start), ..*extent };
            extent.end = at;
            self.map.insert(at, tail);
        }
    }
}
