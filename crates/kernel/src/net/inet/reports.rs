//! Errors that come back for what was sent, as `IP_RECVERR` lets programs read them (`MSG_ERRQUEUE`).

use std::collections::VecDeque;
use std::net::SocketAddr;

use cloudpilot_abi::{Errno, raw_net};
use parking_lot::Mutex;

use super::address;
use crate::io::Destination;
use crate::net::message::{Control, Incoming, MSG_ERRQUEUE, MSG_TRUNC};
use crate::net::options::{LEVEL_IP, LEVEL_IPV6};

/// `IP_RECVERR`.
pub const IP_RECVERR: i32 = 11;
/// `IPV6_RECVERR`.
pub const IPV6_RECVERR: i32 = 25;
/// Most reports that wait; on Linux the receive buffer bounds them.
const MOST: usize = 64;
/// Bytes kept of what was sent: as much as a program needs to know which one it was.
const KEPT: usize = 4096;

/// Something that nobody took.
struct Report {
    bytes: Vec<u8>,
    to: SocketAddr,
}

/// Reports that wait.
#[derive(Default)]
pub struct Reports {
    queue: Mutex<VecDeque<Report>>,
}

impl Reports {
    /// Nobody has the port that this went to.
    pub fn unreachable(&self, mut bytes: Vec<u8>, to: SocketAddr) {
        bytes.truncate(KEPT);
        let mut queue = self.queue.lock();
        if queue.len() < MOST {
            queue.push_back(Report { bytes, to });
        }
    }

    /// Whether one waits.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// Takes the first.
    pub fn take(&self, domain: u32, destination: &mut Destination<'_>) -> Result<Incoming, Errno> {
        let report = self.queue.lock().pop_front().ok_or(Errno::EAGAIN)?;
        let count = destination.put(&report.bytes)?;
        let cut = if count < report.bytes.len() { MSG_TRUNC } else { 0 };
        Ok(Incoming {
            count,
            length: count,
            address: Some(address::encode(domain, report.to)),
            controls: vec![describe(report.to)],
            flags: MSG_ERRQUEUE | cut,
            ..Incoming::default()
        })
    }
}

/// `struct sock_extended_err` and the address of who says so.
fn describe(to: SocketAddr) -> Control {
    /// "Port unreachable" of either protocol: who says so, kind and code.
    const V4: [u8; 4] = [2, 3, 3, 0];
    const V6: [u8; 4] = [3, 1, 4, 0];
    let (level, kind, said, domain) = match to {
        SocketAddr::V4(_) => (LEVEL_IP, IP_RECVERR, V4, raw_net::AF_INET),
        SocketAddr::V6(_) => (LEVEL_IPV6, IPV6_RECVERR, V6, raw_net::AF_INET6),
    };
    let mut bytes = u32::from(Errno::ECONNREFUSED.0).to_ne_bytes().to_vec();
    bytes.extend(said);
    bytes.extend([0; 8]);
    bytes.extend(address::encode(domain, SocketAddr::new(to.ip(), 0)));
    Control { level, kind, bytes }
}
