//! Reads, writes and looks at open host files, by the calls that can do it all: each one more that is spared is one less that the filter of host
//! calls lets through.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags, Result};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg};

/// What the two calls take for "at the file's own position".
pub const OWN_POSITION: u64 = u64::MAX;

/// Reads at an offset.
pub fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    read_vectored_at(file, &mut [IoSliceMut::new(buffer)], offset)
}

/// Writes at an offset.
pub fn write_at(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize> {
    write_vectored_at(file, &[IoSlice::new(bytes)], offset)
}

/// Reads at an offset into several places.
pub fn read_vectored_at(file: impl AsFd, slices: &mut [IoSliceMut<'_>], offset: u64) -> Result<usize> {
    check(offset)?;
    rustix::io::preadv2(file, slices, offset, ReadWriteFlags::empty())
}

/// Writes at an offset from several places.
pub fn write_vectored_at(file: impl AsFd, slices: &[IoSlice<'_>], offset: u64) -> Result<usize> {
    check(offset)?;
    rustix::io::pwritev2(file, slices, offset, ReadWriteFlags::empty())
}

/// Receives what has arrived on a socket.
pub fn receive_now(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let slices = &mut [IoSliceMut::new(buffer)];
    Ok(recvmsg(socket, slices, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT)?.bytes)
}

/// Sends what a socket has room for.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> Result<usize> {
    sendmsg(socket, &[IoSlice::new(bytes)], &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

/// No offset of a guest's may come to mean [`OWN_POSITION`].
fn check(offset: u64) -> Result<()> {
    if offset > i64::MAX as u64 { Err(Errno::INVAL) } else { Ok(()) }
}

/// Attributes of an open file.
pub fn status(file: impl AsFd) -> Result<Statx> {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}
