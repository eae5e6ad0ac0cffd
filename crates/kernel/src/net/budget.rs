//! How many bytes may wait in sockets altogether: they are memory of the kernel process, not of the guest.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all sockets together hold before each is cut to [`SMALL`]. Enough for a few hundred full buffers of the default size.
const TOTAL: usize = 64 << 20;
/// What an empty queue still takes then, so that everything goes on, slowly.
const SMALL: usize = 4096;

static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// How many of `wanted` bytes a queue may take.
pub fn grant(wanted: usize, empty: bool) -> usize {
    if QUEUED.load(Ordering::Relaxed) + wanted <= TOTAL {
        wanted
    } else if empty {
        wanted.min(SMALL)
    } else {
        0
    }
}

/// Bytes were queued.
pub fn charge(bytes: usize) {
    QUEUED.fetch_add(bytes, Ordering::Relaxed);
}

/// Bytes left a queue.
pub fn release(bytes: usize) {
    QUEUED.fetch_sub(bytes, Ordering::Relaxed);
}
