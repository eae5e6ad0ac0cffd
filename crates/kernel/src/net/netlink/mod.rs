//! `NETLINK_ROUTE`, as far as programs ask it which interfaces and addresses there are, `rtnetlink(7)`. Nothing can be changed but the loopback
//! interface's addresses.

mod addresses;
mod options;

use std::any::Any;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw_ioctl, raw_net};
use parking_lot::Mutex;

use super::inbox::{Datagram, Inbox};
use super::inet::Inet;
use super::interface::{self, Interface};
use super::message::{Credentials, Incoming, MSG_OOB, MSG_TRUNC, Outgoing};
use super::options::is_administrator;
use super::{Base, Kind, Net, Shutdown, Socket, routes};
use crate::config::Network;
use crate::io::{Destination, Source};
use crate::task::Task;
use crate::vfs::File;
use crate::wait::PollEvents;

const FAMILY: u32 = raw_net::AF_NETLINK;
/// `NETLINK_ROUTE`.
const ROUTE: u32 = 0;
/// `NETLINK_SOCK_DIAG`: every request answers `ENOENT`, as where Linux was built without it; programs then read `/proc/net`.
const SOCK_DIAG: u32 = 4;
/// `NETLINK_KOBJECT_UEVENT`: no device ever comes or goes.
const KOBJECT_UEVENT: u32 = 15;
/// `SOL_NETLINK`.
const SOL_NETLINK: i32 = 270;
/// Longest request.
const REQUEST_MAX: usize = 64 << 10;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
/// The highest kind of request.
const RTM_MAX: u16 = 123;
const NLMSG_MIN_TYPE: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
/// The answer holds the request's header only.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// Numbers (`nl_pid`) in use.
#[derive(Default)]
pub struct Numbers {
    used: Mutex<HashSet<u32>>,
}

impl Numbers {
    fn take(&self, wanted: u32) -> bool {
        self.used.lock().insert(wanted)
    }

    /// The process's number if it is free, or one of those that no process has.
    fn any(&self, pid: u32) -> u32 {
        let mut used = self.used.lock();
        let number =
            if used.contains(&pid) || pid == 0 { (0..u32::MAX).rev().find(|number| !used.contains(number)).unwrap_or(pid) } else { pid };
        used.insert(number);
        number
    }
}

/// A netlink socket.
pub struct NetlinkSocket {
    base: Base,
    network: Network,
    numbers: Arc<Numbers>,
    inet: Arc<Inet>,
    number: Mutex<Option<u32>>,
    /// Groups that it joined, a bit for each.
    groups: Mutex<u64>,
    inbox: Inbox<()>,
}

/// Makes a socket for `socket(2)`.
pub fn socket(net: &Net, network: Network, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>, Errno> {
    let kind = match kind {
        2 => Kind::Datagram,
        3 => Kind::Raw,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    if !matches!(protocol, ROUTE | SOCK_DIAG | KOBJECT_UEVENT) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let base = Base::new(FAMILY, kind, protocol);
    Ok(Arc::new(NetlinkSocket {
        base,
        network,
        numbers: Arc::clone(&net.netlink),
        inet: Arc::clone(&net.inet),
        number: Mutex::new(None),
        groups: Mutex::new(0),
        inbox: Inbox::default(),
    }))
}

/// The netlink socket behind a file.
pub fn of_file(file: &File) -> Result<Arc<NetlinkSocket>, Errno> {
    let socket = Arc::clone(super::of_file(file)?) as Arc<dyn Any + Send + Sync>;
    socket.downcast().map_err(|_| Errno::EINVAL)
}

fn encode_address(number: u32) -> Vec<u8> {
    [&(FAMILY as u16).to_ne_bytes()[..], &[0; 2], &number.to_ne_bytes(), &[0; 4]].concat()
}

/// Number and groups of a `sockaddr_nl`.
fn decode_address(bytes: &[u8]) -> Result<u32, Errno> {
    let bytes: &[u8; 12] = bytes.first_chunk().ok_or(Errno::EINVAL)?;
    if u32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) != FAMILY {
        return Err(Errno::EINVAL);
    }
    Ok(u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]))
}

/// A request's header.
#[derive(Clone, Copy)]
struct Request {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Messages as they are put together.
struct Answer {
    bytes: Vec<u8>,
    sequence: u32,
    number: u32,
}

impl Answer {
    fn message(&mut self, kind: u16, flags: u16, body: &[u8]) {
        let length = (HEADER + body.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(self.number.to_ne_bytes());
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Appends an attribute, padded.
pub(super) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Attributes one after the other, as far as their lengths make sense.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: [u8; 4] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]), value))
    })
}

/// `struct ifinfomsg` and its attributes.
fn link(interface: &Interface) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(interface.hardware_type.to_ne_bytes());
    body.extend(interface.index.to_ne_bytes());
    body.extend(interface.flags.to_ne_bytes());
    body.extend([0; 4]);
    attribute(&mut body, 3, &[interface.name, b"\0"].concat());
    attribute(&mut body, 13, &1000u32.to_ne_bytes());
    // Operational state: the loopback's is unknown, as on Linux; others are up.
    attribute(&mut body, 16, &[if interface.index == interface::LOOPBACK_INDEX { 0 } else { 6 }]);
    attribute(&mut body, 17, &[0]);
    attribute(&mut body, 4, &interface.mtu.to_ne_bytes());
    attribute(&mut body, 27, &0u32.to_ne_bytes());
    attribute(&mut body, 6, b"noqueue\0");
    attribute(&mut body, 1, &[0; 6]);
    attribute(&mut body, 2, &[0; 6]);
    attribute(&mut body, 23, &[0; 192]);
    body
}

/// `struct ifaddrmsg` and its attributes.
fn address(interface: &Interface, ip: IpAddr, prefix: u8) -> Vec<u8> {
    /// `IFA_F_PERMANENT`.
    const PERMANENT: u8 = 0x80;
    let scope = if ip.is_loopback() { 254 } else { 0 };
    let (family, octets) = match ip {
        IpAddr::V4(ip) => (raw_net::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (raw_net::AF_INET6, ip.octets().to_vec()),
    };
    let mut body = vec![family as u8, prefix, PERMANENT, scope];
    body.extend(interface.index.to_ne_bytes());
    attribute(&mut body, 1, &octets);
    if ip.is_ipv4() {
        attribute(&mut body, 2, &octets);
        attribute(&mut body, 3, &[interface.name, b"\0"].concat());
    }
    // Valid for ever.
    attribute(&mut body, 6, bytemuck::bytes_of(&[u32::MAX, u32::MAX, 0, 0]));
    attribute(&mut body, 8, &u32::from(PERMANENT).to_ne_bytes());
    body
}

/// The interface that a `RTM_GETLINK` without a dump asks for, by index or name.
fn asked_for<'a>(interfaces: &'a [Interface], body: &[u8]) -> Option<&'a Interface> {
    const IFLA_IFNAME: u16 = 3;
    let index = body.get(4..8).map_or(0, |bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    if index != 0 {
        return interfaces.iter().find(|interface| interface.index == index);
    }
    let (_, name) = attributes(body.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let name = name.split(|byte| *byte == 0).next()?;
    interfaces.iter().find(|interface| interface.name == name)
}

/// Whether a request about one interface does not say which.
fn names_nothing(body: &[u8]) -> bool {
    const IFLA_IFNAME: u16 = 3;
    let Some(attributes_of) = body.get(16..) else { return true };
    body[4..8] == [0; 4] && !attributes(attributes_of).any(|(kind, _)| kind == IFLA_IFNAME)
}

/// Whether a request about an interface wants no more than that it is up, which it is.
fn only_brings_up(body: &[u8]) -> bool {
    const IFF_UP: u32 = 1;
    let word = |at: usize| body.get(at..at + 4).map_or(0, |bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    word(8) == IFF_UP && word(12) & !IFF_UP == 0
}

impl NetlinkSocket {
    fn ensure_number(&self, pid: i32) -> u32 {
        *self.number.lock().get_or_insert_with(|| self.numbers.any(pid as u32))
    }

    /// Answers each request of a message.
    fn serve(&self, number: u32, mut rest: &[u8], administrator: bool) {
        while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            // What cannot be a message ends them all.
            let Some(message) = rest.get(..length).filter(|message| message.len() >= HEADER) else { return };
            let request = Request {
                kind: u16::from_ne_bytes([header[4], header[5]]),
                flags: u16::from_ne_bytes([header[6], header[7]]),
                sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            };
            self.serve_one(number, request, message, administrator);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn serve_one(&self, number: u32, request: Request, message: &[u8], administrator: bool) {
        let body = &message[HEADER..];
        let answer = || Answer { bytes: Vec::new(), sequence: request.sequence, number };
        let capped = self.base.options.lock().is_set(SOL_NETLINK, options::CAP_ACK);
        let outcome = |error: i32| {
            let mut answer = answer();
            // Who made a mistake gets all of it back.
            let (flags, told) = if error != 0 && !capped { (0, message) } else { (NLM_F_CAPPED, &message[..HEADER]) };
            answer.message(NLMSG_ERROR, flags, &[&(-error).to_ne_bytes()[..], told].concat());
            answer.bytes
        };
        let result = |result: Result<(), Errno>| outcome(result.map_or_else(|errno| i32::from(errno.0), |()| 0));
        if self.base.protocol == KOBJECT_UEVENT {
            return;
        }
        if request.kind < NLMSG_MIN_TYPE || request.flags & NLM_F_REQUEST == 0 {
            if request.flags & NLM_F_ACK != 0 {
                self.queue(outcome(0));
            }
            return;
        }
        if self.base.protocol == SOCK_DIAG {
            return self.queue(outcome(libc::ENOENT));
        }
        if request.kind > RTM_MAX {
            return self.queue(outcome(libc::EOPNOTSUPP));
        }
        // Requests to make, change or remove something come in threes before each request to get it.
        let asks = request.kind % 4 == 2;
        if !asks && !administrator {
            return self.queue(outcome(libc::EPERM));
        }
        let interfaces = interface::current(self.network, &self.inet.local);
        let family = body.first().map_or(0, |family| u32::from(*family));
        let dump = request.flags & NLM_F_DUMP != 0;
        let mut items = answer();
        match request.kind {
            RTM_GETLINK if dump => interfaces.iter().for_each(|interface| items.message(RTM_NEWLINK, NLM_F_MULTI, &link(interface))),
            RTM_GETLINK => match asked_for(&interfaces, body) {
                Some(interface) => items.message(RTM_NEWLINK, 0, &link(interface)),
                None if names_nothing(body) => return self.queue(outcome(libc::EINVAL)),
                None => return self.queue(outcome(libc::ENODEV)),
            },
            RTM_GETADDR if dump => {
                for interface in &interfaces {
                    for (ip, prefix) in &interface.addresses {
                        let own = if ip.is_ipv4() { raw_net::AF_INET } else { raw_net::AF_INET6 };
                        if family == 0 || family == own {
                            items.message(RTM_NEWADDR, NLM_F_MULTI, &address(interface, *ip, *prefix));
                        }
                    }
                }
            }
            RTM_GETROUTE if dump => routes::all(&interfaces, family).iter().for_each(|body| items.message(RTM_NEWROUTE, NLM_F_MULTI, body)),
            RTM_GETROUTE => match routes::towards(&interfaces, body) {
                Ok(route) => items.message(RTM_NEWROUTE, 0, &route),
                Err(errno) => return self.queue(outcome(i32::from(errno.0))),
            },
            RTM_GETRULE if dump => routes::rules(family).iter().for_each(|body| items.message(RTM_NEWRULE, NLM_F_MULTI, body)),
            RTM_GETNEIGH if dump => {}
            RTM_NEWLINK | RTM_SETLINK if asked_for(&interfaces, body).is_some() && only_brings_up(body) => {
                return self.queue_outcome(request, outcome(0));
            }
            RTM_NEWADDR => return self.queue_outcome(request, result(self.add_address(request, body))),
            RTM_DELADDR => return self.queue_outcome(request, result(self.remove_address(body))),
            _ if !asks => return self.queue(outcome(libc::EPERM)),
            _ => return self.queue(outcome(libc::EOPNOTSUPP)),
        }
        if !items.bytes.is_empty() {
            self.queue(items.bytes);
        }
        if dump {
            let mut done = answer();
            done.message(NLMSG_DONE, NLM_F_MULTI, &[0; 4]);
            self.queue(done.bytes);
        } else if request.flags & NLM_F_ACK != 0 {
            self.queue(outcome(0));
        }
    }

    /// Acknowledges what was changed: a failure always, a success to those who asked for that.
    fn queue_outcome(&self, request: Request, outcome: Vec<u8>) {
        let failed = outcome.get(HEADER..HEADER + 4) != Some(&[0; 4]);
        if failed || request.flags & NLM_F_ACK != 0 {
            self.queue(outcome);
        }
    }

    /// Puts a message of the kernel's own into it.
    pub fn deliver(&self, bytes: &[u8]) {
        self.queue(bytes.to_vec());
    }

    fn queue(&self, bytes: Vec<u8>) {
        let capacity = self.base.options.lock().receive_buffer as usize;
        let make = |bytes| Datagram {
            bytes,
            about: (),
            sender: Credentials { pid: 0, uid: 0, gid: 0 },
            time: crate::time::realtime(),
            rights: None,
        };
        // Answers that nobody reads are lost, as on Linux.
        let _ = self.inbox.put(&mut Source::own(&bytes), capacity, &self.base.endpoint, make);
        self.base.endpoint.readable();
    }
}

impl Socket for NetlinkSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, task: &Arc<Task>, address: &[u8]) -> Result<(), Errno> {
        let wanted = decode_address(address)?;
        let mut number = self.number.lock();
        match (*number, wanted) {
            (Some(own), wanted) if wanted != 0 && wanted != own => return Err(Errno::EINVAL),
            (Some(_), _) => {}
            (None, 0) => *number = Some(self.numbers.any(task.process.own_pid() as u32)),
            (None, wanted) if self.numbers.take(wanted) => *number = Some(wanted),
            (None, _) => return Err(Errno::EADDRINUSE),
        }
        Ok(())
    }

    fn connect(&self, task: &Arc<Task>, address: &[u8], _nonblocking: bool) -> Result<(), Errno> {
        if decode_address(address)? != 0 {
            return Err(Errno::EPERM);
        }
        self.ensure_number(task.process.own_pid());
        Ok(())
    }

    fn send(&self, source: &mut Source<'_>, message: &mut Outgoing<'_>) -> Result<usize, Errno> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(address) = message.address
            && decode_address(address)? != 0
        {
            return Err(Errno::ECONNREFUSED);
        }
        let length = source.remaining();
        if length > REQUEST_MAX {
            return Err(Errno::EMSGSIZE);
        }
        // Bytes out of a file or pipe (`sendfile(2)`) come without a task: nobody vouches for them.
        let administrator = source.task().is_some_and(|task| is_administrator(&self.base, task));
        let bytes = source.take_vec(length)?;
        self.serve(self.ensure_number(message.sender.pid), &bytes, administrator);
        Ok(length)
    }

    fn receive(&self, destination: &mut Destination<'_>, flags: u32) -> Result<Incoming, Errno> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let received = self.inbox.take(destination, self.base.peeks_after(flags))?;
        let wants_credentials = self.base.options.lock().has(raw_net::SO_PASSCRED);
        Ok(Incoming {
            count: received.count,
            length: received.length,
            address: Some(encode_address(0)),
            credentials: wants_credentials.then_some(received.sender),
            flags: if received.length > received.count { MSG_TRUNC } else { 0 },
            ..Incoming::default()
        })
    }

    fn shutdown(&self, _how: Shutdown) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(encode_address(self.number.lock().unwrap_or(0)))
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(encode_address(0))
    }

    fn set_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.change_option(task, level, name, value)
    }

    fn option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        self.tell_option(level, name, length)
    }

    fn poll(&self) -> PollEvents {
        let readable = if self.inbox.is_empty() { PollEvents::empty() } else { PollEvents::IN | PollEvents::RDNORM };
        readable | PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND
    }

    fn ioctl(&self, task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
        match request {
            raw_ioctl::FIONREAD => task.write(argument, &(self.inbox.next_length() as i32)).map(|()| 0),
            _ => interface::ioctl(task, request, argument),
        }
    }

    fn close(&self) {
        if let Some(number) = self.number.lock().take() {
            self.numbers.used.lock().remove(&number);
        }
        self.inbox.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut request = Answer { bytes: Vec::new(), sequence: 7, number: 0 };
        request.message(kind, flags, body);
        request.bytes
    }

    /// What nobody in particular hears, as those do who send with `sendfile(2)`.
    fn ask(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let socket = socket(&Net::new(), Network::None, 3, ROUTE).unwrap();
        socket.send(&mut Source::own(bytes), &mut Outgoing::plain(Credentials::default())).unwrap();
        answers(&*socket)
    }

    fn ask_as_administrator(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let socket = socket(&Net::new(), Network::None, 3, ROUTE).unwrap();
        socket.as_any().downcast_ref::<NetlinkSocket>().unwrap().serve(1, bytes, true);
        answers(&*socket)
    }

    fn answers(socket: &dyn Socket) -> Vec<(u16, Vec<u8>)> {
        let mut buffer = vec![0; 9000];
        let mut answers = Vec::new();
        while let Ok(message) = socket.receive(&mut Destination::own(&mut buffer), 0) {
            let mut rest = &buffer[..message.count];
            while !rest.is_empty() {
                let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                assert_eq!(rest[8..12], 7u32.to_ne_bytes());
                answers.push((u16::from_ne_bytes(rest[4..6].try_into().unwrap()), rest[HEADER..length].to_vec()));
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        answers
    }

    #[test]
    fn dumps_show_the_loopback_interface() {
        let kinds = |answers: &[(u16, Vec<u8>)]| answers.iter().map(|answer| answer.0).collect::<Vec<_>>();
        let links = ask(&request(RTM_GETLINK, 1 | NLM_F_DUMP, &[0; 16]));
        assert_eq!(kinds(&links), [RTM_NEWLINK, NLMSG_DONE]);
        assert!(links[0].1.windows(3).any(|window| window == b"lo\0"));
        let addresses = ask(&request(RTM_GETADDR, 1 | NLM_F_DUMP, &[0]));
        assert_eq!(kinds(&addresses), [RTM_NEWADDR, RTM_NEWADDR, NLMSG_DONE]);
        let v4 = ask(&request(RTM_GETADDR, 1 | NLM_F_DUMP, &[raw_net::AF_INET as u8]));
        assert_eq!(kinds(&v4), [RTM_NEWADDR, NLMSG_DONE]);
        assert!(v4[0].1.windows(4).any(|window| window == [127, 0, 0, 1]));
    }

    #[test]
    fn changes_are_refused() {
        let mut up = [0; 16];
        (up[4], up[8], up[12]) = (1, 1, 1);
        assert_eq!(ask_as_administrator(&request(RTM_NEWLINK, 5, &up))[0].1[..4], [0; 4]);
        assert_eq!(ask(&request(RTM_NEWLINK, 5, &up))[0].1[..4], (-libc::EPERM).to_ne_bytes());
        let answers = ask_as_administrator(&request(RTM_NEWLINK, 1, &[0; 16]));
        assert_eq!(answers[0].0, NLMSG_ERROR);
        assert_eq!(answers[0].1[..4], (-libc::EPERM).to_ne_bytes());
    }
}
