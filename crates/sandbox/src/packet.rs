//! Packets of the control protocol: one `SOCK_SEQPACKET` packet is one JSON message, with descriptors where a request has some.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;

/// Longest message. Larger than any reasonable request (arguments and environment), small enough that a client cannot make us hold much.
pub const LONGEST_MESSAGE: usize = 128 << 10;
/// Most descriptors of one request: standard input, output and error.
pub const MOST_DESCRIPTORS: usize = 3;

/// What arrived.
#[derive(Debug)]
pub enum Received {
    /// A message and its descriptors.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// Longer than [`LONGEST_MESSAGE`], or with more descriptors than [`MOST_DESCRIPTORS`].
    TooLarge,
    /// The peer hung up.
    Closed,
}

/// A pair of connected sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Receives one packet, however long that takes. Memory is taken for what has arrived, not for what might.
pub fn receive(socket: BorrowedFd<'_>) -> Result<Received, Errno> {
    let look = RecvFlags::PEEK | RecvFlags::TRUNC;
    let length = retry(|| recvmsg(socket, &mut [], &mut RecvAncillaryBuffer::default(), look))?.bytes;
    let mut buffer = vec![0; length.clamp(1, LONGEST_MESSAGE)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = retry(|| recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptors = Vec::new();
    for item in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            descriptors.extend(rights);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Received::TooLarge);
    }
    // An empty packet is no message of ours either: a peer that sends one is done.
    if message.bytes == 0 {
        return Ok(Received::Closed);
    }
    buffer.truncate(message.bytes);
    Ok(Received::Message(buffer, descriptors))
}

fn retry<T>(mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match attempt() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Sends bytes together with a descriptor.
pub fn hand_over(socket: impl AsFd, bytes: &[u8], descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    retry(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)).map(|_| ())
}

/// Sends one packet, without waiting: a peer that does not read loses the connection rather than hold us up.
pub fn send(socket: impl AsFd, message: &impl Serialize) -> Result<(), Errno> {
    let text = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry(|| sendmsg(&socket, &[IoSlice::new(&text)], &mut SendAncillaryBuffer::default(), flags)).map(|_| ())
}
