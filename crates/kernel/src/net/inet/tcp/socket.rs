//! What the calls do with a TCP socket, `tcp(7)`.

use std::any::Any;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw_ioctl, raw_net};

use super::{IN, OUT, Phase, TcpSocket};
use crate::io::{Destination, Source};
use crate::net::channel::Channel;
use crate::net::inet::address::{self, Given};
use crate::net::message::{Control, Incoming, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_OOB, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::options::{LEVEL_TCP, SOL_SOCKET};
use crate::net::{Accepted, Base, Shutdown, Socket, interface};
use crate::task::Task;
use crate::wait::PollEvents;

/// `SIOCOUTQNSD`: bytes that were not sent yet.
const UNSENT: u32 = 0x894b;
/// Bytes that a receiver takes before some stay with the sender: what a receive buffer holds at first.
const ARRIVED: usize = 65_536;

impl TcpSocket {
    /// `MSG_FASTOPEN`: connects by the first message.
    fn open_fast(&self, message: &Outgoing<'_>) -> Result<(), Errno> {
        let to = match self.decode(message.address.ok_or(Errno::EINVAL)?)? {
            Given::Address(to) => to,
            Given::Unspecified => return Err(Errno::EOPNOTSUPP),
        };
        self.connect_to(message.task, to, false)
    }

    /// Bytes that were received, with what `TCP_INQ` asks for: how many are left.
    fn described(&self, incoming: &Channel, count: usize) -> Incoming {
        let mut message = Incoming::bytes(count);
        if self.base.options.lock().is_set(LEVEL_TCP, raw_net::TCP_INQ as i32) {
            let status = incoming.status(false);
            // At the end there is that to be read.
            let left = if status.bytes == 0 && status.writer_done { 1 } else { incoming.length() as i32 };
            message.controls.push(Control { level: LEVEL_TCP, kind: raw_net::TCP_CM_INQ as i32, bytes: left.to_ne_bytes().to_vec() });
        }
        message
    }
}

impl Socket for TcpSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, task: &Arc<Task>, address: &[u8]) -> Result<(), Errno> {
        match self.decode(address)? {
            Given::Address(to) => self.bind_to(Some(task), to),
            Given::Unspecified => self.bind_to(Some(task), address::any_of_old(self.base.domain, address)?),
        }
    }

    fn connect(&self, task: &Arc<Task>, address: &[u8], nonblocking: bool) -> Result<(), Errno> {
        match self.decode(address)? {
            Given::Address(to) => self.connect_to(Some(task), to, nonblocking),
            Given::Unspecified => {
                self.end(true);
                Ok(())
            }
        }
    }

    fn finish_connect(&self) -> Result<(), Errno> {
        match &mut self.state.lock().phase {
            Phase::Connecting => return Err(Errno::EAGAIN),
            Phase::Connected(connection) => {
                connection.unannounced = false;
                return Ok(());
            }
            Phase::Idle | Phase::Listening(_) => {}
        }
        Err(self.base.endpoint.take_error().unwrap_or(Errno::ECONNABORTED))
    }

    fn listen(&self, task: &Arc<Task>, backlog: i32) -> Result<(), Errno> {
        self.listen_with(Some(task), backlog)?;
        self.admit_waiting();
        Ok(())
    }

    fn accept(&self) -> Result<Accepted, Errno> {
        let (accepted, waiting) = {
            let mut state = self.state.lock();
            let Phase::Listening(listener) = &mut state.phase else { return Err(Errno::EINVAL) };
            (listener.ready.pop_front().ok_or(Errno::EAGAIN)?, !listener.waiting.is_empty())
        };
        if waiting {
            self.admit_waiting();
        }
        let remote = accepted.state.lock().remote.unwrap_or_else(|| address::any(self.base.domain));
        let peer = address::encode(self.base.domain, remote);
        Ok(Accepted { socket: accepted, peer })
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        if message.flags & MSG_FASTOPEN != 0 {
            self.open_fast(message)?;
        }
        self.send_checked(source, message.flags & MSG_OOB != 0)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let incoming = {
            let state = self.state.lock();
            match &state.phase {
                Phase::Connected(connection) => Arc::clone(&connection.incoming),
                Phase::Connecting => return Err(Errno::EAGAIN),
                Phase::Idle | Phase::Listening(_) => {
                    return match self.base.endpoint.take_error() {
                        Some(errno) => Err(errno),
                        None if state.reads_ended => Ok(Incoming::default()),
                        None => Err(Errno::ENOTCONN),
                    };
                }
            }
        };
        if flags & MSG_OOB != 0 {
            let count = incoming.read_urgent(destination, flags & MSG_PEEK != 0)?;
            return Ok(Incoming { flags: MSG_OOB, ..Incoming::bytes(count) });
        }
        if flags & MSG_TRUNC != 0 {
            // Bytes that nobody wants to see are counted, whether they stay or go.
            let most = destination.remaining();
            let count = match self.base.peeks_after(flags) {
                Some(skip) => incoming.measure(skip, most)?,
                None => incoming.skip(most)?,
            };
            self.base.moves_peek(flags, count);
            return Ok(self.described(&incoming, count));
        }
        let taken = incoming.read(destination, self.base.peeks_after(flags), false)?;
        self.base.moves_peek(flags, taken.count);
        Ok(self.described(&incoming, taken.count))
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Idle => {
                // Refused, and yet it ends those who wait.
                state.reads_ended |= how.read;
                drop(state);
                self.base.endpoint.hung_up();
                return Err(Errno::ENOTCONN);
            }
            Phase::Connected(connection) if connection.is_over() => return Err(Errno::ENOTCONN),
            Phase::Connected(connection) => {
                if how.read {
                    connection.incoming.end_early();
                }
                if how.write {
                    connection.outgoing.finish();
                }
                return Ok(());
            }
            Phase::Listening(_) if !how.read => return Ok(()),
            Phase::Listening(_) | Phase::Connecting => {}
        }
        drop(state);
        self.end(false);
        Ok(())
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(address::encode(self.base.domain, self.state.lock().local))
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        let state = self.state.lock();
        match (&state.phase, state.remote) {
            (Phase::Connected(connection), Some(remote)) if !connection.is_over() => Ok(address::encode(self.base.domain, remote)),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.change_option(task, level, name, value)
    }

    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        self.tell_option(level, name, length)
    }

    fn poll(&self) -> PollEvents {
        let error = if self.base.endpoint.has_error() { PollEvents::ERR } else { PollEvents::empty() };
        let state = self.state.lock();
        let refused;
        let (incoming, outgoing) = match &state.phase {
            // A failed attempt ends reading too.
            Phase::Idle if state.failed => return OUT | IN | PollEvents::HUP | PollEvents::RDHUP | error,
            Phase::Idle if state.reads_ended => return OUT | IN | PollEvents::HUP | PollEvents::RDHUP | error,
            Phase::Idle => return OUT | PollEvents::HUP,
            Phase::Connecting => return error,
            Phase::Listening(listener) => return if listener.ready.is_empty() { error } else { IN | error },
            Phase::Connected(connection) => {
                refused = connection.refused;
                (connection.incoming.status(false), connection.outgoing.status(true))
            }
        };
        let reads_end = incoming.writer_done || incoming.end_early;
        let mut events = error;
        if incoming.urgent {
            events |= PollEvents::PRI;
        }
        let enough = self.base.options.lock().number(SOL_SOCKET, raw_net::SO_RCVLOWAT as i32).unwrap_or(1);
        if incoming.readable && incoming.bytes >= enough as usize || reads_end || incoming.reset {
            events |= IN;
        }
        if reads_end {
            events |= PollEvents::RDHUP;
        }
        if incoming.reset || refused || reads_end && outgoing.writer_done {
            events |= PollEvents::HUP;
        }
        if outgoing.room || outgoing.writer_done || outgoing.reader_done {
            events |= OUT;
        }
        events
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        if matches!(self.state.lock().phase, Phase::Listening(_)) && matches!(request, raw_ioctl::FIONREAD | raw_ioctl::TIOCOUTQ | UNSENT) {
            return Err(Errno::EINVAL);
        }
        let length = match (request, self.channels()) {
            (raw_ioctl::SIOCATMARK, channels) => usize::from(channels.is_some_and(|(incoming, _)| incoming.at_mark())),
            (raw_ioctl::FIONREAD, Some((incoming, _))) => incoming.length(),
            // What the other end has room for has arrived there.
            (raw_ioctl::TIOCOUTQ | UNSENT, Some((_, outgoing))) => outgoing.status(false).bytes.saturating_sub(ARRIVED),
            (raw_ioctl::FIONREAD | raw_ioctl::TIOCOUTQ | UNSENT, None) => 0,
            _ => return interface::ioctl(task, request, argument),
        };
        task.write(argument, &(length as i32)).map(|()| 0)
    }

    fn close(&self) {
        let reset = self.base.options.lock().linger == Some(0);
        self.end(reset);
        let mut state = self.state.lock();
        state.closed = true;
        state.lease = None;
    }
}
