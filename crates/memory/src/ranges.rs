//! Which ranges of the memory file are free, and which have more than one owner.

use std::collections::BTreeMap;

/// Free space and shared ranges. A range that is neither free nor listed as shared has exactly one owner.
pub(crate) struct Ranges {
    /// Free ranges below `top`: start to end.
    free: BTreeMap<u64, u64>,
    /// Everything from here to `limit` was never used.
    top: u64,
    limit: u64,
    /// Owners beyond the first: start to (end, count).
    extra: BTreeMap<u64, (u64, u32)>,
}

impl Ranges {
    pub(crate) fn new(limit: u64) -> Self {
        Self { free: BTreeMap::new(), top: 0, limit, extra: BTreeMap::new() }
    }

    /// Finds `length` bytes: the first free range that is large enough, else untouched space.
    pub(crate) fn allocate(&mut self, length: u64) -> Option<u64> {
        // First fit among a bounded number of candidates, so that a shredded free list cannot make allocation slow.
        const CANDIDATES: usize = 64;
        let fit = self.free.iter().take(CANDIDATES).find(|(start, end)| *end - *start >= length).map(|(start, end)| (*start, *end));
        if let Some((start, end)) = fit {
            self.free.remove(&start);
            if end - start > length {
                self.free.insert(start + length, end);
            }
            return Some(start);
        }
        let start = self.top;
        let top = start.checked_add(length)?;
        if top > self.limit {
            return None;
        }
        self.top = top;
        Some(start)
    }

    /// One owner more for every byte of the range.
    pub(crate) fn retain(&mut self, start: u64, end: u64) {
        self.split(start);
        self.split(end);
        let mut at = start;
        while at < end {
            match self.extra.range(at..end).next().map(|(start, value)| (*start, *value)) {
                Some((found, (found_end, count))) if found == at => {
                    self.extra.insert(found, (found_end, count + 1));
                    at = found_end;
                }
                next => {
                    let gap_end = next.map_or(end, |(found, _)| found);
                    self.extra.insert(at, (gap_end, 1));
                    at = gap_end;
                }
            }
        }
    }

    /// One owner less; answers the ranges that have none left.
    pub(crate) fn release(&mut self, start: u64, end: u64) -> Vec<(u64, u64)> {
        self.split(start);
        self.split(end);
        let mut freed = Vec::new();
        let mut at = start;
        while at < end {
            match self.extra.range(at..end).next().map(|(start, value)| (*start, *value)) {
                Some((found, (found_end, count))) if found == at => {
                    if count == 1 {
                        self.extra.remove(&found);
                    } else {
                        self.extra.insert(found, (found_end, count - 1));
                    }
                    at = found_end;
                }
                next => {
                    let gap_end = next.map_or(end, |(found, _)| found);
                    freed.push((at, gap_end));
                    at = gap_end;
                }
            }
        }
        freed
    }

    /// Gives ranges without owners back for allocation, joined with their free neighbours.
    pub(crate) fn reuse(&mut self, mut start: u64, mut end: u64) {
        if let Some((&before, &before_end)) = self.free.range(..start).next_back()
            && before_end == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(after_end) = self.free.remove(&end) {
            end = after_end;
        }
        if end == self.top {
            self.top = start;
        } else {
            self.free.insert(start, end);
        }
    }

    /// Whether the byte at `at` has several owners, and up to where (at most `end`) the answer holds.
    pub(crate) fn shared(&self, at: u64, end: u64) -> (bool, u64) {
        if let Some((_, &(range_end, _))) = self.extra.range(..=at).next_back()
            && range_end > at
        {
            return (true, range_end.min(end));
        }
        let next = self.extra.range(at..end).next().map_or(end, |(start, _)| *start);
        (false, next)
    }

    /// Makes sure that no shared range reaches across `at`.
    fn split(&mut self, at: u64) {
        if let Some((&start, &(end, count))) = self.extra.range(..at).next_back()
            && end > at
        {
            self.extra.insert(start, (at, count));
            self.extra.insert(at, (end, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    #[test]
    fn sharing_is_counted_by_piece() {
        let mut ranges = Ranges::new(1 << 20);
        let start = ranges.allocate(0x4000).expect("space");
        ranges.retain(start + 0x1000, start + 0x3000);
        ranges.retain(start + 0x2000, start + 0x4000);
        assert_eq!(ranges.shared(start, start + 0x4000), (false, start + 0x1000));
        assert_eq!(ranges.release(start, start + 0x4000), vec![(start, start + 0x1000)]);
        assert_eq!(
            ranges.release(start + 0x1000, start + 0x4000),
            vec![(start + 0x1000, start + 0x2000), (start + 0x3000, start + 0x4000)]
        );
        assert_eq!(ranges.release(start + 0x2000, start + 0x3000), vec![(start + 0x2000, start + 0x3000)]);
    }

    #[test]
    fn freed_neighbours_join() {
        let mut ranges = Ranges::new(0x10000);
        let first = ranges.allocate(0x1000).expect("space");
        let second = ranges.allocate(0x1000).expect("space");
        let _third = ranges.allocate(0x1000).expect("space");
        ranges.reuse(first, first + 0x1000);
        ranges.reuse(second, second + 0x1000);
        assert_eq!(ranges.allocate(0x2000), Some(first));
        assert_eq!(ranges.allocate(0x10000), None);
    }
}
