//! Options of TCP sockets, `tcp(7)`: those that depend on the connection, have names, or take effect at once.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw_net};

use super::info::{self, TcpState};
use super::{Phase, TcpSocket, inet_options};
use crate::net::Socket;
use crate::net::inet::options::Standing;
use crate::net::options::{self, LEVEL_TCP, SOL_SOCKET, is_administrator};
use crate::task::Task;

/// How congestion could be controlled, were there any; the first is the default.
const CONGESTION: [&str; 2] = ["cubic", "reno"];
/// `TCP_CA_NAME_MAX`.
const CONGESTION_NAME: usize = 16;
/// Seconds, Linux's `TCP_FIN_TIMEOUT_MAX`, and what holds until somebody chooses.
const LONGEST_LINGER2: i32 = 120;
const USUAL_LINGER2: i32 = 60;
/// Segments: what any two hosts can do, what may be chosen, and what the loopback interface's connections agree on.
const USUAL_SEGMENT: i32 = 536;
const SEGMENTS: std::ops::RangeInclusive<i32> = 88..=32_767;
const LOOPBACK_SEGMENT: i32 = 32_741;
/// The smallest window that may be asked for, half of the smallest receive buffer; and the first of a connection.
const SMALLEST_WINDOW: i32 = 1152;
const FIRST_WINDOW: i32 = 65_536;
/// Most connections that wait with their first data, `somaxconn`.
const MOST_FAST: i32 = 4096;
/// Keys for fast connections: one, or a new and an old one.
const KEY: usize = 16;
/// What a connection over the loopback interface has for sending once it is there.
const CONNECTED_SEND: i32 = 2_626_560;

/// Seconds that pass with whole attempts, each twice as long as the one before it, until `seconds` have passed.
fn attempts_for(seconds: i32) -> i32 {
    /// `TCP_RTO_MAX` in seconds, and the most attempts.
    const LONGEST: i32 = 120;
    const MOST: i32 = 255;
    if seconds <= 0 {
        return 0;
    }
    let (mut passed, mut next, mut attempts) = (1, 1, 1);
    while passed < seconds && attempts < MOST {
        next = (next * 2).min(LONGEST);
        passed += next;
        attempts += 1;
    }
    passed
}

impl TcpSocket {
    fn standing(&self) -> Standing {
        let state = self.state.lock();
        let connected = matches!(&state.phase, Phase::Connected(connection) if !connection.is_over());
        let number = if state.lease.is_some() { state.local.port() } else { 0 };
        Standing { number, peer: state.remote.filter(|_| connected) }
    }

    fn remember(&self, name: u32, number: i32) -> Result<(), Errno> {
        self.base.options.lock().set_number(LEVEL_TCP, name as i32, number);
        Ok(())
    }

    /// `setsockopt(2)`.
    pub(super) fn change_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let own = if level == LEVEL_TCP { self.change_tcp(task, name as u32, value) } else { None };
        let special = own.or_else(|| inet_options::set(&self.base, task, self.standing(), level, name, value));
        special.unwrap_or_else(|| options::set(&self.base, task, level, name, value))?;
        if level == SOL_SOCKET {
            self.apply(name as u32);
        }
        Ok(())
    }

    /// What an option of `SOL_SOCKET` does to a connection that is there.
    fn apply(&self, name: u32) {
        if name == raw_net::SO_REUSEADDR
            && let Some(lease) = &self.state.lock().lease
        {
            lease.set_reuse(self.base.options.lock().has(raw_net::SO_REUSEADDR));
        }
        let Some((incoming, outgoing)) = self.channels() else { return };
        let (send, receive, inline) = {
            let options = self.base.options.lock();
            (options.send_buffer as usize, options.receive_buffer as usize, options.has(raw_net::SO_OOBINLINE))
        };
        match name {
            raw_net::SO_OOBINLINE => incoming.set_inline(inline),
            raw_net::SO_SNDBUF | raw_net::SO_SNDBUFFORCE => outgoing.set_capacity(send),
            raw_net::SO_RCVBUF | raw_net::SO_RCVBUFFORCE => incoming.set_capacity(receive),
            _ => {}
        }
    }

    /// Options of TCP's own; none leaves it to the table.
    fn change_tcp(&self, task: &Task, name: u32, value: &[u8]) -> Option<Result<(), Errno>> {
        let named = || value.split(|byte| *byte == 0).next().unwrap_or_default();
        match name {
            raw_net::TCP_CONGESTION | raw_net::TCP_ULP if value.is_empty() => return Some(Err(Errno::EINVAL)),
            raw_net::TCP_CONGESTION => {
                let index = CONGESTION.iter().position(|known| known.as_bytes() == named());
                return Some(index.ok_or(Errno::ENOENT).and_then(|index| self.remember(name, index as i32)));
            }
            // No protocol is laid over TCP in here.
            raw_net::TCP_ULP => return Some(Err(Errno::ENOENT)),
            raw_net::TCP_FASTOPEN_KEY if value.len() != KEY && value.len() != 2 * KEY => return Some(Err(Errno::EINVAL)),
            raw_net::TCP_FASTOPEN_KEY => {
                self.base.options.lock().set_value(LEVEL_TCP, name as i32, value);
                return Some(Ok(()));
            }
            _ => {}
        }
        match options::int(LEVEL_TCP, value) {
            Ok(number) => self.change_number(task, name, number),
            Err(errno) => Some(Err(errno)),
        }
    }

    fn change_number(&self, task: &Task, name: u32, number: i32) -> Option<Result<(), Errno>> {
        let state = self.tcp_state();
        let repairs = self.base.options.lock().is_set(LEVEL_TCP, raw_net::TCP_REPAIR as i32);
        let unless = |refused: bool, errno: Errno| if refused { Some(Err(errno)) } else { None };
        match name {
            raw_net::TCP_MAXSEG if number == 0 || SEGMENTS.contains(&number) => Some(self.remember(name, number)),
            raw_net::TCP_MAXSEG => Some(Err(Errno::EINVAL)),
            // Linux counts in attempts, each twice as long as the one before.
            raw_net::TCP_DEFER_ACCEPT => Some(self.remember(name, attempts_for(number))),
            raw_net::TCP_LINGER2 => Some(self.remember(name, if number < 0 { -1 } else { number.min(LONGEST_LINGER2) })),
            raw_net::TCP_WINDOW_CLAMP if number == 0 && state != TcpState::Close => Some(Err(Errno::EINVAL)),
            raw_net::TCP_WINDOW_CLAMP if number == 0 => Some(self.remember(name, 0)),
            raw_net::TCP_WINDOW_CLAMP => Some(self.remember(name, number.max(SMALLEST_WINDOW))),
            // It is counted by programs, and given up.
            raw_net::TCP_THIN_DUPACK => Some(if (0..=1).contains(&number) { Ok(()) } else { Err(Errno::EINVAL) }),
            raw_net::TCP_FASTOPEN if number >= 0 && matches!(state, TcpState::Close | TcpState::Listen) => {
                Some(self.remember(name, number.min(MOST_FAST)))
            }
            raw_net::TCP_FASTOPEN => Some(Err(Errno::EINVAL)),
            raw_net::TCP_FASTOPEN_CONNECT => unless(state != TcpState::Close, Errno::EINVAL),
            raw_net::TCP_FASTOPEN_NO_COOKIE => unless(!matches!(state, TcpState::Close | TcpState::Listen), Errno::EINVAL),
            raw_net::TCP_REPAIR if !is_administrator(&self.base, task) || state == TcpState::Listen => Some(Err(Errno::EPERM)),
            raw_net::TCP_REPAIR => match number {
                0 | 1 => Some(self.remember(name, number)),
                -1 => Some(self.remember(name, 0)),
                _ => Some(Err(Errno::EINVAL)),
            },
            raw_net::TCP_REPAIR_QUEUE | raw_net::TCP_REPAIR_WINDOW | raw_net::TCP_TIMESTAMP if !repairs => Some(Err(Errno::EPERM)),
            raw_net::TCP_QUEUE_SEQ if state != TcpState::Close => Some(Err(Errno::EPERM)),
            raw_net::TCP_REPAIR_QUEUE
            | raw_net::TCP_REPAIR_WINDOW
            | raw_net::TCP_TIMESTAMP
            | raw_net::TCP_QUEUE_SEQ
            | raw_net::TCP_REPAIR_OPTIONS
            | raw_net::TCP_MD5SIG
            | raw_net::TCP_MD5SIG_EXT => Some(Err(Errno::EINVAL)),
            _ => None,
        }
    }

    /// `getsockopt(2)`; `length` is what the caller has room for.
    pub(super) fn tell_option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        let number = |number: i32| Ok(number.to_ne_bytes().to_vec());
        let state = self.tcp_state();
        let closed = matches!(state, TcpState::Close | TcpState::Listen | TcpState::SynSent);
        let set = self.base.options.lock().number(level, name);
        match (level, name as u32) {
            (LEVEL_TCP, raw_net::TCP_INFO) => Ok(self.figures_of(state)),
            (LEVEL_TCP, raw_net::TCP_CONGESTION) => {
                let chosen = CONGESTION.get(set.unwrap_or(0) as usize).unwrap_or(&CONGESTION[0]);
                let mut bytes = chosen.as_bytes().to_vec();
                bytes.resize(CONGESTION_NAME, 0);
                Ok(bytes)
            }
            (LEVEL_TCP, raw_net::TCP_MAXSEG) if !closed => number(LOOPBACK_SEGMENT),
            (LEVEL_TCP, raw_net::TCP_MAXSEG) => number(set.filter(|set| *set != 0).unwrap_or(USUAL_SEGMENT)),
            (LEVEL_TCP, raw_net::TCP_WINDOW_CLAMP) if !closed && set.is_none() => number(FIRST_WINDOW),
            (LEVEL_TCP, raw_net::TCP_LINGER2) => number(set.filter(|set| *set != 0).unwrap_or(USUAL_LINGER2)),
            (LEVEL_TCP, raw_net::TCP_REPAIR) => number(set.unwrap_or(0)),
            (LEVEL_TCP, raw_net::TCP_TIMESTAMP) => number((crate::time::monotonic_ns() / 1_000_000) as i32),
            // Nothing is known of the congestion that there is not, and no first packet is kept.
            (LEVEL_TCP, raw_net::TCP_CC_INFO | raw_net::TCP_SAVED_SYN | raw_net::TCP_ULP) => Ok(Vec::new()),
            (LEVEL_TCP, raw_net::TCP_FASTOPEN_KEY) => Ok(self.base.options.lock().value(level, name).to_vec()),
            (
                LEVEL_TCP,
                raw_net::TCP_REPAIR_QUEUE | raw_net::TCP_QUEUE_SEQ | raw_net::TCP_REPAIR_WINDOW | raw_net::TCP_ZEROCOPY_RECEIVE,
            ) => Err(Errno::EINVAL),
            (SOL_SOCKET, raw_net::SO_ACCEPTCONN) => number(i32::from(state == TcpState::Listen)),
            (SOL_SOCKET, raw_net::SO_SNDBUF) if !closed && !self.base.options.lock().send_chosen => number(CONNECTED_SEND),
            _ => inet_options::get(&self.base, self.standing(), level, name, length)
                .unwrap_or_else(|| options::get(self.base(), level, name, length)),
        }
    }

    /// `TCP_INFO`.
    fn figures_of(&self, state: TcpState) -> Vec<u8> {
        let (waiting, backlog) = match &self.state.lock().phase {
            Phase::Listening(listener) => (listener.ready.len() as u32, listener.backlog as u32 - 1),
            _ => (0, 0),
        };
        info::encode(state, waiting, backlog)
    }
}
