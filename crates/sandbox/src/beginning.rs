//! What a process needs before it does anything.

use std::os::fd::{BorrowedFd, IntoRawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Heaps of the allocator besides the first: threads share them. One for each thread would cost each of them several calls and its own pages.
const MOST_HEAPS: i32 = 2;

/// Makes sure that descriptors 0 to 2 lead somewhere, so that no file of ours gets one of these numbers; that writing to a pipe which nobody reads
/// is an error rather than the end; and that threads share heaps.
pub fn settle_process() {
    for number in 0..3 {
        // SAFETY: only asked about; if it is not open the call fails.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(stream) == Err(Errno::BADF)
            && let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())
        {
            // The lowest number is free, so that it got that one; it stays open for good.
            let _ = null.into_raw_fd();
        }
    }
    // SAFETY: this process has one thread, and neither call touches memory of ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::mallopt(libc::M_ARENA_MAX, MOST_HEAPS);
    }
}
