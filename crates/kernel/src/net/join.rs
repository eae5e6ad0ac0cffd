//! Connections from outside: a descriptor of the host is joined to a port inside, by one thread that copies both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw_net};

use super::inet::TcpSocket;
use super::message::{Credentials, Outgoing};
use super::{Net, Shutdown, Socket};
use crate::host::transfer::{receive_now, send_now};
use crate::host::{HostDescriptor, errno};
use crate::io::{Destination, Source};
use crate::task::activity::{Direction, FlowCounter};
use crate::wait::{Parker, PollEvents};

/// Bytes on their way in each direction, beside what the sockets hold.
const BUFFER: usize = 32 << 10;
/// Stack of the copying thread, which holds its buffers elsewhere.
const STACK: usize = 128 << 10;
/// Connections from inside that wait for the host to take them.
const BACKLOG: i32 = 64;
/// How long a listener with a full backlog is waited for.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Connects to a port of the sandbox's loopback interface, over IPv4 and else IPv6, and joins the connection with a stream socket of the host.
/// `when_over` is dropped once both are closed. `ECONNREFUSED` if nobody listens there.
pub fn join(net: &Net, port: u16, host: OwnedFd, when_over: Box<dyn Send>) -> Result<(), Errno> {
    let guest = connect(net, raw_net::AF_INET, IpAddr::V4(Ipv4Addr::LOCALHOST), port)
        .or_else(|_| connect(net, raw_net::AF_INET6, IpAddr::V6(Ipv6Addr::LOCALHOST), port))?;
    start(net, guest, HostDescriptor::new(host), when_over)
}

/// Listens on a port of the loopback interface for the outside; programs inside can connect from now on, and nobody else can listen there.
pub fn listen(net: &Net, port: u16) -> Result<(), Errno> {
    listener(net, port).map(drop)
}

/// Waits until a program connects to a port of the loopback interface, [listening](listen) there if need be, and joins that connection with a
/// stream socket of the host. `ECONNABORTED` if the host hangs up before.
pub fn accept(net: &Net, port: u16, host: OwnedFd, when_over: Box<dyn Send>) -> Result<(), Errno> {
    let listener = listener(net, port)?;
    let host = HostDescriptor::new(host);
    let parker: Arc<Parker> = Arc::default();
    let guest_waiter = listener.queue().register_exclusive(PollEvents::READ, parker.clone());
    let host_waiter = host.queue().register(PollEvents::HUP, parker.clone());
    host.watch(true);
    let result = loop {
        if host.poll().contains(PollEvents::HUP) {
            break Err(Errno::ECONNABORTED);
        }
        match listener.accept() {
            Err(Errno::EAGAIN) => parker.park(None),
            result => break result,
        }
    };
    host.watch(false);
    host.queue().unregister(host_waiter);
    listener.queue().unregister(guest_waiter);
    // Whoever hung up may have been woken in another's stead.
    if result.is_err() {
        listener.queue().notify(PollEvents::IN);
    }
    start(net, result?.socket, host, when_over)
}

fn listener(net: &Net, port: u16) -> Result<Arc<TcpSocket>, Errno> {
    let mut listeners = net.outside.lock();
    if let Some(listener) = listeners.get(&port) {
        return Ok(Arc::clone(listener));
    }
    let listener = TcpSocket::new(&net.inet, raw_net::AF_INET);
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    if let Err(errno) = listener.bind_to(None, address).and_then(|()| listener.listen_with(None, BACKLOG)) {
        listener.close();
        return Err(errno);
    }
    listeners.insert(port, Arc::clone(&listener));
    Ok(listener)
}

fn start(net: &Net, guest: Arc<dyn Socket>, host: Arc<HostDescriptor>, when_over: Box<dyn Send>) -> Result<(), Errno> {
    let joint =
        Joint { guest, host, traffic: Arc::clone(&net.joined), parker: Arc::default(), inward: Flow::default(), outward: Flow::default() };
    let work = move || {
        let _when_over = when_over;
        joint.run();
    };
    let thread = std::thread::Builder::new().name("joint".into()).stack_size(STACK);
    thread.spawn(work).map(|_| ()).map_err(|_| Errno::EAGAIN)
}

fn connect(net: &Net, domain: u32, ip: IpAddr, port: u16) -> Result<Arc<TcpSocket>, Errno> {
    let socket = TcpSocket::new(&net.inet, domain);
    let result = match socket.connect_to(None, SocketAddr::new(ip, port), true) {
        Err(Errno::EINPROGRESS) => wait_for(&socket),
        result => result,
    };
    if result.is_err() {
        socket.close();
    }
    result.map(|()| socket)
}

fn wait_for(socket: &TcpSocket) -> Result<(), Errno> {
    let parker: Arc<Parker> = Arc::default();
    let waiter = socket.queue().register(PollEvents::WRITE, parker.clone());
    let deadline = crate::time::monotonic_ns() + PATIENCE_NS;
    let result = loop {
        match socket.finish_connect() {
            Err(Errno::EAGAIN) if crate::time::monotonic_ns() >= deadline => break Err(Errno::ETIMEDOUT),
            Err(Errno::EAGAIN) => parker.park(Some(deadline)),
            result => break result,
        }
    };
    socket.queue().unregister(waiter);
    result
}

/// One direction.
#[derive(Default)]
struct Flow {
    /// Read, and not yet written.
    waiting: Vec<u8>,
    /// How much of that is written.
    written: usize,
    /// The reading side has ended.
    ended: bool,
    /// The writing side knows.
    told: bool,
}

impl Flow {
    /// Moves what can be moved. Answers whether anything was.
    fn step(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
        write: impl FnOnce(&[u8]) -> Result<usize, Errno>,
        finish: impl FnOnce(),
    ) -> Result<bool, Errno> {
        let mut moved = false;
        if self.written == self.waiting.len() && !self.ended {
            self.waiting.resize(BUFFER, 0);
            let count = read(&mut self.waiting);
            self.written = 0;
            self.waiting.truncate(*count.as_ref().unwrap_or(&0));
            match count {
                Ok(0) => self.ended = true,
                Ok(_) => moved = true,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.written < self.waiting.len() {
            match write(&self.waiting[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    moved |= count > 0;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.ended && self.written == self.waiting.len() && !self.told {
            self.told = true;
            finish();
        }
        Ok(moved)
    }
}

/// Two ends and what is between them.
struct Joint {
    guest: Arc<dyn Socket>,
    host: Arc<HostDescriptor>,
    traffic: Arc<FlowCounter>,
    parker: Arc<Parker>,
    inward: Flow,
    outward: Flow,
}

impl Joint {
    fn run(mut self) {
        let both = PollEvents::READ | PollEvents::WRITE;
        let guest_waiter = self.guest.queue().register(both, self.parker.clone());
        let host_waiter = self.host.queue().register(both, self.parker.clone());
        self.host.watch(true);
        // An error ends both directions: whoever broke one off wants no more of the other.
        while let Ok(moved) = self.step() {
            if self.inward.told && (self.outward.told || self.host.poll().contains(PollEvents::HUP)) {
                break;
            }
            if !moved {
                self.parker.park(None);
            }
        }
        self.host.watch(false);
        self.host.queue().unregister(host_waiter);
        self.guest.queue().unregister(guest_waiter);
        self.guest.close();
    }

    fn step(&mut self) -> Result<bool, Errno> {
        let (guest, host, traffic) = (&self.guest, &self.host, &self.traffic);
        let inward = self.inward.step(
            |buffer| receive_now(host.fd(), buffer).map_err(errno),
            |bytes| {
                let sent = guest.send(&mut Source::own(bytes), &mut Outgoing::plain(Credentials::default()));
                sent.inspect(|&count| traffic.count_shared(Direction::In, count))
            },
            || {
                // A peer that has closed already needs no telling.
                let _ = guest.shutdown(Shutdown { read: false, write: true });
            },
        )?;
        let outward = self.outward.step(
            |buffer| guest.receive(&mut Destination::own(buffer), 0).map(|message| message.count),
            |bytes| {
                let sent = send_now(host.fd(), bytes).map_err(errno);
                sent.inspect(|&count| traffic.count_shared(Direction::Out, count))
            },
            || {
                let _ = rustix::net::shutdown(host.fd(), rustix::net::Shutdown::Write);
            },
        )?;
        Ok(inward || outward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::inet::address;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn listener(net: &Net) -> (Arc<TcpSocket>, u16) {
        let listener = TcpSocket::new(&net.inet, raw_net::AF_INET);
        listener.bind_to(None, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).unwrap();
        listener.listen_with(None, 5).unwrap();
        let address::Given::Address(at) = address::decode(raw_net::AF_INET, &listener.local_address().unwrap()).unwrap() else { panic!() };
        (listener, at.port())
    }

    fn receive(socket: &dyn Socket, room: usize) -> Vec<u8> {
        let mut buffer = vec![0; room];
        loop {
            match socket.receive(&mut Destination::own(&mut buffer), 0) {
                Ok(message) => return buffer[..message.count].to_vec(),
                Err(Errno::EAGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(errno) => panic!("{errno:?}"),
            }
        }
    }

    #[test]
    fn bytes_and_ends_go_both_ways() {
        let net = Net::new();
        let (listener, port) = listener(&net);
        let (mut outside, inside) = UnixStream::pair().unwrap();
        join(&net, port, inside.into(), Box::new(())).unwrap();
        let server = listener.accept().unwrap().socket;
        outside.write_all(b"request").unwrap();
        assert_eq!(receive(&*server, 100), b"request");
        outside.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(receive(&*server, 100), b"");
        let long = vec![7; 300_000];
        let (mut sent, copy) = (0, long.clone());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            outside.read_to_end(&mut all).unwrap();
            assert_eq!(all, copy);
        });
        while sent < long.len() {
            match server.send(&mut Source::own(&long[sent..]), &mut Outgoing::plain(Credentials::default())) {
                Ok(count) => sent += count,
                Err(Errno::EAGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(errno) => panic!("{errno:?}"),
            }
        }
        server.close();
        reader.join().unwrap();
    }

    #[test]
    fn programs_inside_reach_the_outside() {
        let net = Arc::new(Net::new());
        let (mut outside, inside) = UnixStream::pair().unwrap();
        let (abandoned, theirs) = UnixStream::pair().unwrap();
        let waiting = |host: UnixStream| {
            let net = Arc::clone(&net);
            std::thread::spawn(move || accept(&net, 9001, host.into(), Box::new(())))
        };
        let lonely = waiting(theirs);
        drop(abandoned);
        assert_eq!(lonely.join().unwrap(), Err(Errno::ECONNABORTED));
        let served = waiting(inside);
        let client = connect(&net, raw_net::AF_INET, IpAddr::V4(Ipv4Addr::LOCALHOST), 9001).unwrap();
        served.join().unwrap().unwrap();
        outside.write_all(b"event").unwrap();
        assert_eq!(receive(&*client, 9), b"event");
        client.close();
        assert_eq!(outside.read(&mut [0; 9]).unwrap(), 0);
    }

    #[test]
    fn nobody_listens_and_whoever_leaves_is_let_go() {
        struct Told(std::sync::mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let net = Net::new();
        let (_, closed) = UnixStream::pair().unwrap();
        assert_eq!(join(&net, 9, closed.into(), Box::new(())).unwrap_err(), Errno::ECONNREFUSED);
        let (listener, port) = listener(&net);
        let (outside, inside) = UnixStream::pair().unwrap();
        let (told, over) = std::sync::mpsc::channel();
        join(&net, port, inside.into(), Box::new(Told(told))).unwrap();
        let server = listener.accept().unwrap().socket;
        drop(outside);
        over.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert_eq!(receive(&*server, 100), b"");
    }
}
