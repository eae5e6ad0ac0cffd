//! Tests of TCP and UDP sockets, without tasks.

use std::net::Ipv4Addr;

use super::*;
use crate::io::{Destination, Source};
use crate::net::message::{Credentials, MSG_PEEK, Outgoing};
use crate::net::options::SOL_SOCKET;
use crate::net::{Shutdown, options};
use crate::wait::PollEvents;
use std::net::{Ipv6Addr, SocketAddr};

const INET: u32 = raw_net::AF_INET;
const INET6: u32 = raw_net::AF_INET6;

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn at6(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port)
}

fn send(socket: &dyn Socket, bytes: &[u8]) -> Result<usize, Errno> {
    socket.send(&mut Source::own(bytes), &mut Outgoing::plain(Credentials::default()))
}

fn send_to(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> Result<usize, Errno> {
    let address = address::encode(socket.base().domain, to);
    socket.send(&mut Source::own(bytes), &mut Outgoing { address: Some(&address), ..Outgoing::plain(Credentials::default()) })
}

fn receive(socket: &dyn Socket, room: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; room];
    let message = socket.receive(&mut Destination::own(&mut buffer), 0)?;
    buffer.truncate(message.count);
    Ok(buffer)
}

fn connected() -> (Arc<TcpSocket>, Arc<dyn Socket>) {
    let inet = Arc::new(Inet::default());
    let listener = TcpSocket::new(&inet, INET);
    listener.bind_to(None, at(0)).unwrap();
    listener.listen_with(None, 5).unwrap();
    let Given::Address(address) = address::decode(INET, &listener.local_address().unwrap()).unwrap() else { panic!() };
    let client = TcpSocket::new(&inet, INET);
    client.connect_to(None, address, false).unwrap();
    let server = listener.accept().unwrap().socket;
    listener.close();
    (client, server)
}

use address::Given;

#[test]
fn a_connection_carries_bytes_and_half_closes() {
    let (client, server) = connected();
    assert_eq!(client.local_address(), server.peer_address());
    assert_eq!(client.peer_address(), server.local_address());
    send(&*client, b"hello").unwrap();
    let mut buffer = [0; 2];
    server.receive(&mut Destination::own(&mut buffer), MSG_PEEK).unwrap();
    assert_eq!(receive(&*server, 9).unwrap(), b"hello");
    client.shutdown(Shutdown { read: false, write: true }).unwrap();
    assert_eq!(receive(&*server, 9).unwrap(), b"");
    send(&*server, b"bye").unwrap();
    server.close();
    assert!(client.poll().contains(PollEvents::IN | PollEvents::RDHUP | PollEvents::HUP));
    assert_eq!(receive(&*client, 9).unwrap(), b"bye");
    assert_eq!(receive(&*client, 9).unwrap(), b"");
    assert_eq!(send(&*client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn a_peer_that_is_gone_costs_one_write() {
    let (client, server) = connected();
    server.close();
    assert!(!client.poll().contains(PollEvents::HUP));
    assert_eq!(send(&*client, b"lost"), Ok(4));
    assert_eq!(send(&*client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn unread_bytes_and_a_linger_of_zero_reset() {
    let (client, server) = connected();
    send(&*client, b"unread").unwrap();
    server.close();
    assert!(client.poll().contains(PollEvents::HUP | PollEvents::ERR));
    assert_eq!(receive(&*client, 9), Err(Errno::ECONNRESET));
    assert_eq!(receive(&*client, 9).unwrap(), b"");

    let (client, server) = connected();
    client.base().options.lock().linger = Some(0);
    client.close();
    assert_eq!(receive(&*server, 9), Err(Errno::ECONNRESET));
}

#[test]
fn connecting_without_waiting() {
    let inet = Arc::new(Inet::default());
    let client = TcpSocket::new(&inet, INET);
    assert_eq!(client.connect_to(None, at(9), true), Err(Errno::EINPROGRESS));
    assert!(client.poll().contains(PollEvents::OUT | PollEvents::ERR | PollEvents::HUP));
    let error = options::get(client.base(), SOL_SOCKET, raw_net::SO_ERROR as i32, 4).unwrap();
    assert_eq!(error, i32::from(Errno::ECONNREFUSED.0).to_ne_bytes());
    // The failed attempt is over only with the next one.
    assert_eq!(client.connect_to(None, at(9), false), Err(Errno::ECONNABORTED));
    assert_eq!(client.connect_to(None, at(9), false), Err(Errno::ECONNREFUSED));
    let far = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), 53);
    assert_eq!(client.connect_to(None, far, false), Err(Errno::ENETUNREACH));

    let listener = TcpSocket::new(&inet, INET);
    listener.bind_to(None, at(80)).unwrap();
    listener.listen_with(None, 0).unwrap();
    assert_eq!(client.connect_to(None, at(80), true), Err(Errno::EINPROGRESS));
    assert_eq!(client.connect_to(None, at(80), true), Ok(()));
    assert_eq!(client.connect_to(None, at(80), true), Err(Errno::EISCONN));
    let (second, third) = (TcpSocket::new(&inet, INET), TcpSocket::new(&inet, INET));
    assert_eq!(second.connect_to(None, at(80), false), Err(Errno::EINPROGRESS));
    assert_eq!(third.connect_to(None, at(80), true), Err(Errno::EINPROGRESS));
    assert_eq!(second.finish_connect(), Err(Errno::EAGAIN));
    assert!(!second.poll().contains(PollEvents::OUT));
    listener.accept().unwrap();
    assert_eq!(second.finish_connect(), Ok(()));
    assert!(second.poll().contains(PollEvents::OUT));
    listener.close();
    assert_eq!(third.finish_connect(), Err(Errno::ECONNREFUSED));
    assert_eq!(receive(&*second, 1), Err(Errno::ECONNRESET));
}

#[test]
fn v6_sockets_take_v4_peers_unless_told_not_to() {
    let inet = Arc::new(Inet::default());
    let listener = TcpSocket::new(&inet, INET6);
    listener.bind_to(None, SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80)).unwrap();
    listener.listen_with(None, 5).unwrap();
    let four = TcpSocket::new(&inet, INET);
    four.connect_to(None, at(80), false).unwrap();
    let accepted = listener.accept().unwrap().socket;
    let peer = accepted.peer_address().unwrap();
    assert_eq!(peer.len(), 28);
    assert_eq!(peer[8..24], Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
    let six = TcpSocket::new(&inet, INET6);
    six.connect_to(None, at6(80), false).unwrap();
    listener.close();

    let only = TcpSocket::new(&inet, INET6);
    only.base().options.lock().set_number(LEVEL_IPV6, IPV6_V6ONLY, 1);
    only.bind_to(None, SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 81)).unwrap();
    only.listen_with(None, 5).unwrap();
    let four = TcpSocket::new(&inet, INET);
    assert_eq!(four.connect_to(None, at(81), false), Err(Errno::ECONNREFUSED));
    four.connect_to(None, at(80), false).unwrap_err();
}

#[test]
fn datagrams_find_their_socket() {
    let inet = Arc::new(Inet::default());
    let (server, client) = (UdpSocket::new(&inet, INET, super::UDP), UdpSocket::new(&inet, INET, super::UDP));
    server.bind_to(None, at(53)).unwrap();
    send_to(&client, b"ask", at(53)).unwrap();
    let mut buffer = [0; 9];
    let message = server.receive(&mut Destination::own(&mut buffer), 0).unwrap();
    let from = message.address.unwrap();
    let Given::Address(from) = address::decode(INET, &from).unwrap() else { panic!() };
    send_to(&server, b"answer", from).unwrap();
    assert_eq!(receive(&*client, 3).unwrap(), b"ans");
    assert_eq!(receive(&*client, 3), Err(Errno::EAGAIN));

    client.connect_to(None, at(53)).unwrap();
    let other = UdpSocket::new(&inet, INET, super::UDP);
    send_to(&other, b"stranger", from).unwrap();
    assert_eq!(receive(&*client, 9), Err(Errno::EAGAIN));
    send(&*client, b"more").unwrap();
    assert_eq!(receive(&*server, 9).unwrap(), b"more");
    server.close();
    assert_eq!(send(&*client, b"gone"), Ok(4));
    assert_eq!(send(&*client, b"gone"), Err(Errno::ECONNREFUSED));
    assert_eq!(send(&*client, &vec![0; 70_000]), Err(Errno::EMSGSIZE));
}
