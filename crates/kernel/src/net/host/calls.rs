//! The host's socket calls on raw addresses and values, each with checked lengths.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use cloudpilot_abi::Errno;

use crate::host::within_limit;
use crate::net::Shutdown;
use crate::net::message::Control;

/// Room for addresses.
const ADDRESS_MAX: usize = size_of::<libc::sockaddr_storage>();
/// Room for control data: that of the internet's protocols is small.
const CONTROL_MAX: usize = 512;
/// Longest value of an option that is asked for.
const OPTION_MAX: usize = 512;

fn last_error() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as u16)
}

fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn check_size(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| last_error())
}

fn take_over(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the host just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `socket(2)`, non-blocking.
pub fn socket(domain: u32, kind: u32, protocol: u32) -> Result<OwnedFd, Errno> {
    let kind = kind as libc::c_int | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: numbers only.
    check(unsafe { libc::socket(domain as libc::c_int, kind, protocol as libc::c_int) }).map(take_over).and_then(within_limit)
}

/// `bind(2)`.
pub fn bind(fd: impl AsFd, address: &[u8]) -> Result<(), Errno> {
    let (fd, length) = (fd.as_fd().as_raw_fd(), address.len() as libc::socklen_t);
    // SAFETY: the host reads `length` bytes of a slice that long.
    check(unsafe { libc::bind(fd, address.as_ptr().cast(), length) }).map(drop)
}

/// `connect(2)`.
pub fn connect(fd: impl AsFd, address: &[u8]) -> Result<(), Errno> {
    let (fd, length) = (fd.as_fd().as_raw_fd(), address.len() as libc::socklen_t);
    // SAFETY: the host reads `length` bytes of a slice that long.
    check(unsafe { libc::connect(fd, address.as_ptr().cast(), length) }).map(drop)
}

/// `listen(2)`.
pub fn listen(fd: impl AsFd, backlog: i32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::listen(fd.as_fd().as_raw_fd(), backlog) }).map(drop)
}

/// `accept4(2)`, non-blocking, with the peer's address.
pub fn accept(fd: impl AsFd) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let mut address = vec![0; ADDRESS_MAX];
    let mut length = ADDRESS_MAX as libc::socklen_t;
    let (fd, flags) = (fd.as_fd().as_raw_fd(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    // SAFETY: the buffer is as long as `length` says.
    let fd = check(unsafe { libc::accept4(fd, address.as_mut_ptr().cast(), &raw mut length, flags) })?;
    address.truncate(length as usize);
    Ok((within_limit(take_over(fd))?, address))
}

/// `shutdown(2)`.
pub fn shutdown(fd: impl AsFd, how: Shutdown) -> Result<(), Errno> {
    let how = match (how.read, how.write) {
        (true, true) => libc::SHUT_RDWR,
        (true, false) => libc::SHUT_RD,
        _ => libc::SHUT_WR,
    };
    // SAFETY: numbers only.
    check(unsafe { libc::shutdown(fd.as_fd().as_raw_fd(), how) }).map(drop)
}

/// `getsockname(2)`, or `getpeername(2)`.
pub fn name(fd: impl AsFd, peer: bool) -> Result<Vec<u8>, Errno> {
    let mut address = vec![0; ADDRESS_MAX];
    let mut length = ADDRESS_MAX as libc::socklen_t;
    let fd = fd.as_fd().as_raw_fd();
    let ask = if peer { libc::getpeername } else { libc::getsockname };
    // SAFETY: the buffer is as long as `length` says.
    check(unsafe { ask(fd, address.as_mut_ptr().cast(), &raw mut length) })?;
    address.truncate(length as usize);
    Ok(address)
}

/// `setsockopt(2)`.
pub fn set_option(fd: impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let (fd, length) = (fd.as_fd().as_raw_fd(), value.len() as libc::socklen_t);
    // SAFETY: the host reads `length` bytes of a slice that long.
    check(unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length) }).map(drop)
}

/// `getsockopt(2)`.
pub fn option(fd: impl AsFd, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; length.min(OPTION_MAX)];
    let mut length = value.len() as libc::socklen_t;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer is as long as `length` says.
    check(unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut length) })?;
    value.truncate(length as usize);
    Ok(value)
}

/// `FIONREAD` or `SIOCOUTQ`.
pub fn queued(fd: impl AsFd, request: u32) -> Result<i32, Errno> {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests store one `int`.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::c_ulong::from(request), &raw mut count) })?;
    Ok(count)
}

fn header(pieces: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all zeros is a valid header: no address, no control data.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = pieces;
    header.msg_iovlen = count;
    header
}

/// `sendmsg(2)`.
pub fn send(fd: impl AsFd, pieces: &[IoSlice<'_>], address: Option<&[u8]>, flags: u32) -> Result<usize, Errno> {
    let mut header = header(pieces.as_ptr().cast_mut().cast(), pieces.len());
    if let Some(address) = address {
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = address.len() as libc::socklen_t;
    }
    let flags = flags as libc::c_int | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `IoSlice` is an `iovec`; the host only reads the pieces and the address, which live across the call.
    check_size(unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const header, flags) })
}

/// A message as the host gave it.
pub struct Received {
    /// Bytes, or length of the message if `MSG_TRUNC` was asked for.
    pub count: usize,
    /// Sender.
    pub address: Option<Vec<u8>>,
    /// Control data.
    pub controls: Vec<Control>,
    /// `msg_flags`.
    pub flags: u32,
}

/// `recvmsg(2)`.
pub fn receive(fd: impl AsFd, pieces: &mut [IoSliceMut<'_>], flags: u32) -> Result<Received, Errno> {
    let mut address = vec![0_u8; ADDRESS_MAX];
    let mut control = [0_u64; CONTROL_MAX / 8];
    let mut header = header(pieces.as_mut_ptr().cast(), pieces.len());
    header.msg_name = address.as_mut_ptr().cast();
    header.msg_namelen = ADDRESS_MAX as libc::socklen_t;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_MAX;
    let flags = flags as libc::c_int | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `IoSliceMut` is an `iovec`; all buffers are as long as the header says and live across the call.
    let count = check_size(unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut header, flags) })?;
    address.truncate(header.msg_namelen as usize);
    let control: &[u8] = bytemuck::cast_slice(&control);
    Ok(Received {
        count,
        address: (!address.is_empty()).then_some(address),
        controls: decode_controls(&control[..header.msg_controllen.min(CONTROL_MAX)]),
        flags: header.msg_flags as u32,
    })
}

fn decode_controls(mut rest: &[u8]) -> Vec<Control> {
    const HEADER: usize = 16;
    let mut controls = Vec::new();
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let length = u64::from_ne_bytes([header[0], header[1], header[2], header[3], header[4], header[5], header[6], header[7]]) as usize;
        let number = |at: usize| i32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let Some(bytes) = rest.get(HEADER..length) else { break };
        controls.push(Control { level: number(8), kind: number(12), bytes: bytes.to_vec() });
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    controls
}
