//! Giving back what a process that only waits does not need.

use std::os::raw::c_void;

unsafe extern "C" {
    /// First byte of this binary in memory, and one past the last byte of its code: symbols of the linker.
    static __executable_start: u8;
    static etext: u8;
}

/// Gives back free heap, and lets go of the binary's own code and constants. These stay in the host's cache, which all sandboxes share; whatever is
/// executed again is mapped again, in a few faults.
pub fn give_back() {
    let start = (&raw const __executable_start).addr();
    let end = (&raw const etext).addr();
    // SAFETY: from the binary's start to the end of its code lie read-only mappings of its file, which read the same when they are mapped again. The
    // last page, which may hold something else, stays.
    unsafe {
        libc::malloc_trim(0);
        libc::madvise(start as *mut c_void, (end & !0xfff) - start, libc::MADV_DONTNEED);
    }
}
