//! Reads and writes of host files: one host call each, straight between the file and guest memory.

use std::os::fd::OwnedFd;

use cloudpilot_abi::Errno;

use crate::host::transfer::{read_vectored_at, write_vectored_at};
use crate::io::{Destination, Source};

/// Most that one call moves: a host file may be slow, and guest memory stays locked meanwhile.
const STEP: usize = 1 << 20;

/// Reads at an offset.
pub fn read_at(file: &OwnedFd, destination: &mut Destination<'_>, offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while destination.remaining() > 0 {
        let result = destination.with_slices(STEP, |slices| {
            rustix::io::retry_on_intr(|| read_vectored_at(file, slices, offset + done as u64)).map_err(super::errno)
        });
        match result {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Writes at an offset.
pub fn write_at(file: &OwnedFd, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while source.remaining() > 0 {
        let result = source.with_slices(STEP, |slices| {
            rustix::io::retry_on_intr(|| write_vectored_at(file, slices, offset + done as u64)).map_err(super::errno)
        });
        match result {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}
