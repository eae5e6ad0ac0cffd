//! Freed ranges of the memory file that are handed out again soon, without asking the host twice: what copy-on-write, pipes, small files and growing
//! and shrinking heaps take comes and goes all the time. Giving pages back costs an interrupt of every core that may know them, and touching new ones
//! a fault each; zeroing those that are there costs a tenth of that.

use std::collections::BTreeMap;

/// Bytes of the largest range that is kept: what is larger is mostly sparse, and seldom asked for again.
const LARGEST: u64 = 2 << 20;
/// Most bytes that are kept unless [`Pool::limit`] says otherwise.
const USUAL: u64 = 4 << 20;
/// Ranges that are looked at for one of the right size, so that a shredded pool cannot make allocation slow.
const CANDIDATES: usize = 16;

/// Ranges without owners whose bytes are anything.
pub(crate) struct Pool {
    /// Start to end; neighbours are joined.
    ranges: BTreeMap<u64, u64>,
    bytes: u64,
    /// Where the last one was put: the likeliest to be in the processor's cache, and what a heap that grows again asks for.
    recent: u64,
    most: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Self { ranges: BTreeMap::new(), bytes: 0, recent: 0, most: USUAL }
    }
}

impl Pool {
    /// Keeps a range; answers those that are to go back to the host instead.
    pub(crate) fn put(&mut self, mut start: u64, mut end: u64) -> Vec<(u64, u64)> {
        if end - start > LARGEST {
            return vec![(start, end)];
        }
        self.bytes += end - start;
        if let Some((&before, &before_end)) = self.ranges.range(..start).next_back()
            && before_end == start
        {
            self.ranges.remove(&before);
            start = before;
        }
        if let Some(after_end) = self.ranges.remove(&end) {
            end = after_end;
        }
        self.ranges.insert(start, end);
        self.recent = start;
        // By half, so that the next ones are not each given back for themselves.
        if self.bytes > self.most { self.shrink(self.most / 2) } else { Vec::new() }
    }

    /// Sets how many bytes are kept at most.
    pub(crate) fn limit(&mut self, bytes: u64) {
        self.most = bytes;
    }

    /// Takes a range of `length` bytes out.
    pub(crate) fn take(&mut self, length: u64) -> Option<u64> {
        if length > LARGEST {
            return None;
        }
        let fits = |(start, end): (&u64, &u64)| (*end - *start >= length).then_some((*start, *end));
        let recent = self.ranges.get_key_value(&self.recent).and_then(fits);
        let (start, end) = recent.or_else(|| self.ranges.iter().take(CANDIDATES).find_map(fits))?;
        self.ranges.remove(&start);
        if start + length < end {
            self.ranges.insert(start + length, end);
            self.recent = start + length;
        }
        self.bytes -= length;
        Some(start)
    }

    /// Lets go of ranges until at most `bytes` are left, of the one that was put last at the very end.
    pub(crate) fn shrink(&mut self, bytes: u64) -> Vec<(u64, u64)> {
        let mut gone = Vec::new();
        while self.bytes > bytes {
            let other = self.ranges.iter().find(|(start, _)| **start != self.recent).or(self.ranges.iter().next());
            let Some((start, end)) = other.map(|(start, end)| (*start, *end)) else { break };
            self.ranges.remove(&start);
            self.bytes -= end - start;
            gone.push((start, end));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::{LARGEST, Pool, USUAL};

    #[test]
    fn a_heap_that_shrinks_in_steps_grows_in_one() {
        let mut pool = Pool::default();
        for step in [0x30_000, 0x20_000, 0x10_000] {
            assert!(pool.put(step, step + 0x10_000).is_empty());
        }
        assert_eq!(pool.take(0x30_000), Some(0x10_000));
        assert_eq!(pool.take(0x1000), None);
    }

    #[test]
    fn what_is_too_much_goes_back() {
        let mut pool = Pool::default();
        assert_eq!(pool.put(0, 2 * LARGEST), vec![(0, 2 * LARGEST)]);
        let mut given_back = 0;
        for number in 0..=USUAL / LARGEST {
            // Apart from each other, so that none are joined.
            let start = 2 * number * LARGEST;
            given_back += pool.put(start, start + LARGEST).iter().map(|(start, end)| end - start).sum::<u64>();
        }
        assert!(given_back >= USUAL / 2, "{given_back}");
        let left: u64 = pool.shrink(0).iter().map(|(start, end)| end - start).sum();
        assert_eq!(given_back + left, USUAL + LARGEST);
        assert_eq!(pool.take(0x1000), None);
    }
}
