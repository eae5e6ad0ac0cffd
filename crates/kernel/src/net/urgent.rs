//! Urgent data of streams (`MSG_OOB`): one byte of a stream can be marked, read ahead of all others, and stops reads before it.

/// The byte that is urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Its place in the stream, counted from the stream's first byte.
    at: u64,
    byte: u8,
    /// It was received ahead of the others.
    taken: bool,
}

/// What one direction of a connection knows of it.
#[derive(Debug, Default)]
pub struct Urgent {
    mark: Option<Mark>,
    /// Bytes that were read so far.
    read: u64,
    /// `SO_OOBINLINE`: the byte is read in its place, and not ahead.
    inline: bool,
}

impl Urgent {
    /// Changes whether the byte is read in its place.
    pub fn set_inline(&mut self, inline: bool) {
        self.inline = inline;
    }

    /// The last of all bytes that wait, `waiting` of them, is urgent. Answers whether an older one, next in line, is skipped for it.
    pub fn mark(&mut self, waiting: usize, byte: u8) -> bool {
        let skips = self.at_mark() && !self.inline && waiting > 1;
        self.mark = Some(Mark { at: self.read + waiting as u64 - 1, byte, taken: false });
        skips
    }

    /// Whether the next byte to be read is the urgent one.
    pub fn at_mark(&self) -> bool {
        self.mark.is_some_and(|mark| mark.at == self.read)
    }

    /// Whether an urgent byte waits to be received.
    pub fn waits(&self) -> bool {
        self.mark.is_some_and(|mark| !mark.taken)
    }

    /// Whether a read skips the next byte: it is urgent, and read ahead.
    pub fn skips_next(&self) -> bool {
        self.at_mark() && !self.inline
    }

    /// How many bytes one read may take: none goes over the mark.
    pub fn limit(&self) -> usize {
        match self.mark {
            Some(mark) if mark.at > self.read => usize::try_from(mark.at - self.read).unwrap_or(usize::MAX),
            _ => usize::MAX,
        }
    }

    /// Bytes of `waiting` that are not urgent and can be read before the mark (`FIONREAD`).
    pub fn readable(&self, waiting: usize) -> usize {
        match self.mark {
            Some(mark) if !self.inline && mark.at >= self.read => waiting.min((mark.at - self.read) as usize),
            _ => waiting,
        }
    }

    /// Bytes were read.
    pub fn advance(&mut self, count: usize) {
        self.read += count as u64;
        if self.mark.is_some_and(|mark| mark.at < self.read) {
            self.mark = None;
        }
    }

    /// Receives the byte ahead of the others; none if there is none, it was received, or is to be read in its place.
    pub fn take(&mut self, peek: bool) -> Option<u8> {
        let mark = self.mark.as_mut().filter(|mark| !mark.taken && !self.inline)?;
        mark.taken = !peek;
        Some(mark.byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stops_reads_and_goes_with_them() {
        let mut urgent = Urgent::default();
        assert_eq!((urgent.limit(), urgent.take(false)), (usize::MAX, None));
        assert!(!urgent.mark(3, b'c'));
        assert_eq!((urgent.limit(), urgent.readable(3), urgent.waits()), (2, 2, true));
        assert_eq!((urgent.take(true), urgent.take(false), urgent.take(false)), (Some(b'c'), Some(b'c'), None));
        urgent.advance(2);
        assert!(urgent.at_mark() && urgent.skips_next());
        urgent.advance(1);
        assert_eq!((urgent.at_mark(), urgent.limit()), (false, usize::MAX));
    }

    #[test]
    fn in_its_place_the_byte_is_read_like_others() {
        let mut urgent = Urgent::default();
        urgent.set_inline(true);
        urgent.mark(2, b'b');
        assert_eq!((urgent.take(false), urgent.readable(2), urgent.limit()), (None, 2, 1));
        urgent.advance(1);
        assert!(urgent.at_mark() && !urgent.skips_next());
    }
}
