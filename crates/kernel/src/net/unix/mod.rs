//! Unix sockets, `unix(7)`: streams, packets and datagrams between programs of the sandbox; never the host's.

pub mod address;
mod dgram;
mod names;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cloudpilot_abi::raw_net;

pub use dgram::DatagramSocket;
pub use names::{Bound, Name, Names};
pub use stream::StreamSocket;

use super::message::Identity;
use super::{Kind, Net, Socket};
use crate::wait::PollEvents;

/// Makes a socket for `socket(2)`.
pub fn socket(net: &Net, kind: Kind) -> Arc<dyn Socket> {
    match kind {
        Kind::Stream | Kind::SeqPacket => StreamSocket::new(&net.unix, kind),
        // Linux takes raw unix sockets for datagram ones.
        Kind::Datagram | Kind::Raw => DatagramSocket::new(&net.unix),
    }
}

/// Makes two connected sockets for `socketpair(2)`.
pub fn pair(net: &Net, kind: Kind, owner: &Identity) -> (Arc<dyn Socket>, Arc<dyn Socket>) {
    match kind {
        Kind::Stream | Kind::SeqPacket => {
            let (one, other) = (StreamSocket::new(&net.unix, kind), StreamSocket::new(&net.unix, kind));
            stream::join(&one, &other, owner, owner);
            (one, other)
        }
        Kind::Datagram | Kind::Raw => {
            let (one, other) = (DatagramSocket::new(&net.unix), DatagramSocket::new(&net.unix));
            dgram::join(&one, &other, owner);
            (one, other)
        }
    }
}

/// `AF_UNIX`.
const FAMILY: u32 = raw_net::AF_UNIX;

/// Something to read.
const IN: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
/// Room.
const OUT: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::WRBAND);
