//! Tests of unix sockets, without tasks: abstract names and pairs.

use super::*;
use crate::io::{Destination, Source};
use crate::net::message::{Credentials, MSG_PEEK, MSG_TRUNC, Outgoing};
use crate::net::rights::Rights;
use crate::net::{Net, Shutdown, Socket, of_file, open};
use crate::vfs::file::File;
use address::Address;
use cloudpilot_abi::Errno;

const ME: Credentials = Credentials { pid: 7, uid: 1000, gid: 100 };

fn me() -> Identity {
    Identity { credentials: ME, ..Identity::default() }
}

fn send(socket: &dyn Socket, bytes: &[u8]) -> Result<usize, Errno> {
    socket.send(&mut Source::own(bytes), &mut Outgoing::plain(ME))
}

fn receive(socket: &dyn Socket, room: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; room];
    let message = socket.receive(&mut Destination::own(&mut buffer), 0)?;
    buffer.truncate(message.count);
    Ok(buffer)
}

fn files(net: &Net, kind: Kind) -> (Arc<File>, Arc<File>) {
    let (one, other) = pair(net, kind, &me());
    (open(net, one, 0), open(net, other, 0))
}

fn give(net: &Net, through: &File, files: Vec<Arc<File>>) -> Result<usize, Errno> {
    let mut message = Outgoing::plain(ME);
    message.rights = Some(Rights::new(&net.in_flight, files)?);
    of_file(through).unwrap().send(&mut Source::own(b"x"), &mut message)
}

#[test]
fn a_stream_carries_bytes_until_it_ends() {
    let net = Net::new();
    let (one, other) = pair(&net, Kind::Stream, &me());
    assert_eq!(receive(&*other, 10), Err(Errno::EAGAIN));
    send(&*one, b"ab").unwrap();
    send(&*one, b"cd").unwrap();
    assert_eq!(receive(&*other, 3).unwrap(), b"abc");
    one.shutdown(Shutdown { read: false, write: true }).unwrap();
    assert!(other.poll().contains(PollEvents::IN | PollEvents::RDHUP | PollEvents::OUT));
    assert_eq!(receive(&*other, 3).unwrap(), b"d");
    assert_eq!(receive(&*other, 3).unwrap(), b"");
    assert_eq!(send(&*one, b"x"), Err(Errno::EPIPE));
    send(&*other, b"back").unwrap();
    assert_eq!(receive(&*one, 9).unwrap(), b"back");
}

#[test]
fn what_was_not_read_resets_the_sender() {
    let net = Net::new();
    let (one, other) = pair(&net, Kind::Stream, &me());
    send(&*one, b"lost").unwrap();
    send(&*other, b"kept").unwrap();
    other.close();
    assert!(one.poll().contains(PollEvents::HUP | PollEvents::ERR | PollEvents::IN | PollEvents::RDHUP));
    assert_eq!(receive(&*one, 9).unwrap(), b"kept");
    assert_eq!(receive(&*one, 9), Err(Errno::ECONNRESET));
    assert_eq!(receive(&*one, 9).unwrap(), b"");
    assert_eq!(send(&*one, b"x"), Err(Errno::EPIPE));
}

#[test]
fn a_full_stream_tells_of_room() {
    let net = Net::new();
    let (one, other) = pair(&net, Kind::Stream, &me());
    let data = vec![7; 1 << 20];
    let sent = send(&*one, &data).unwrap();
    assert!(sent < data.len());
    assert_eq!(send(&*one, &data), Err(Errno::EAGAIN));
    assert!(!one.poll().contains(PollEvents::OUT));
    assert_eq!(receive(&*other, 10).unwrap().len(), 10);
    assert!(!one.poll().contains(PollEvents::OUT));
    assert_eq!(receive(&*other, sent).unwrap().len(), sent - 10);
    assert!(one.poll().contains(PollEvents::OUT));
}

#[test]
fn small_pieces_of_many_senders_fill_a_stream() {
    let net = Net::new();
    let (one, _other) = pair(&net, Kind::Stream, &me());
    let senders = (0..).map(|pid| Credentials { pid, ..ME });
    let sent = senders.take_while(|sender| one.send(&mut Source::own(b"x"), &mut Outgoing::plain(*sender)).is_ok()).count();
    assert!((300..2000).contains(&sent), "{sent}");
}

#[test]
fn packets_stay_whole_or_are_cut() {
    let net = Net::new();
    for kind in [Kind::SeqPacket, Kind::Datagram] {
        let (one, other) = pair(&net, kind, &me());
        send(&*one, b"first").unwrap();
        send(&*one, b"").unwrap();
        send(&*one, b"third").unwrap();
        let mut buffer = [0; 3];
        let message = other.receive(&mut Destination::own(&mut buffer), MSG_PEEK).unwrap();
        assert_eq!((message.count, message.length, message.flags), (3, 5, MSG_TRUNC));
        assert_eq!(receive(&*other, 3).unwrap(), b"fir");
        assert_eq!(receive(&*other, 3).unwrap(), b"");
        assert_eq!(receive(&*other, 9).unwrap(), b"third");
        assert_eq!(receive(&*other, 9), Err(Errno::EAGAIN));
    }
}

#[test]
fn connections_wait_for_accept() {
    let net = Net::new();
    let listener = StreamSocket::new(&net.unix, Kind::Stream);
    let name = Address::Abstract(b"name".to_vec());
    assert_eq!(listener.listen_as(1, me()), Err(Errno::EINVAL));
    listener.bind_to(None, name.clone()).unwrap();
    let other = StreamSocket::new(&net.unix, Kind::Stream);
    assert_eq!(other.bind_to(None, name.clone()), Err(Errno::EADDRINUSE));
    assert_eq!(other.connect_as(None, &name, me()), Err(Errno::ECONNREFUSED));
    listener.listen_as(0, me()).unwrap();
    let first = StreamSocket::new(&net.unix, Kind::Stream);
    first.connect_as(None, &name, me()).unwrap();
    assert_eq!(first.connect_as(None, &name, me()), Err(Errno::EISCONN));
    assert_eq!(other.connect_as(None, &name, me()), Err(Errno::EAGAIN));
    assert!(listener.poll().contains(PollEvents::IN));
    let accepted = listener.accept().unwrap().socket;
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    other.connect_as(None, &name, me()).unwrap();
    send(&*first, b"hello").unwrap();
    assert_eq!(receive(&*accepted, 9).unwrap(), b"hello");
    assert_eq!(accepted.local_address().unwrap(), name.encode());
    assert_eq!(first.peer_address().unwrap(), name.encode());
    listener.close();
    assert_eq!(receive(&*other, 9), Err(Errno::ECONNRESET));
    assert_eq!(StreamSocket::new(&net.unix, Kind::Stream).connect_as(None, &name, me()), Err(Errno::ECONNREFUSED));
}

#[test]
fn datagrams_know_their_sender() {
    let net = Net::new();
    let (server, client) = (DatagramSocket::new(&net.unix), DatagramSocket::new(&net.unix));
    let name = Address::Abstract(b"server".to_vec());
    server.bind_to(None, name.clone()).unwrap();
    client.bind_to(None, Address::Unnamed).unwrap();
    let bytes = name.encode();
    client.send(&mut Source::own(b"hi"), &mut Outgoing { address: Some(&bytes), ..Outgoing::plain(ME) }).unwrap();
    let mut buffer = [0; 8];
    let message = server.receive(&mut Destination::own(&mut buffer), 0).unwrap();
    assert_eq!(message.address, Some(client.address().encode()));
    client.connect_as(None, &name).unwrap();
    server.close();
    assert_eq!(send(&*client, b"x"), Err(Errno::ECONNREFUSED));
}

#[test]
fn files_travel_once_and_end_with_their_message() {
    let net = Net::new();
    let (one, other) = files(&net, Kind::Stream);
    let (guest, kept) = files(&net, Kind::Stream);
    give(&net, &one, vec![guest.clone()]).unwrap();
    send(&**of_file(&one).unwrap(), b"more").unwrap();
    assert_eq!(net.in_flight.count(), 1);
    let mut buffer = [0; 9];
    let message = of_file(&other).unwrap().receive(&mut Destination::own(&mut buffer), 0).unwrap();
    assert_eq!(message.count, 1, "files end a read");
    assert!(Arc::ptr_eq(&message.files[0], &guest));
    assert_eq!(net.in_flight.count(), 0);
    drop(message);
    give(&net, &one, vec![guest]).unwrap();
    drop((one, other));
    assert_eq!(net.in_flight.count(), 0);
    assert!(of_file(&kept).unwrap().poll().contains(PollEvents::HUP));
}

#[test]
fn sockets_that_only_hold_each_other_are_found() {
    let net = Net::new();
    for kind in [Kind::Stream, Kind::Datagram, Kind::SeqPacket] {
        let (one, other) = files(&net, kind);
        let (watched, watcher) = files(&net, Kind::Stream);
        give(&net, &one, vec![other.clone(), watched]).unwrap();
        give(&net, &other, vec![one.clone()]).unwrap();
        drop(one);
        assert_eq!(net.in_flight.count(), 3);
        drop(other);
        // The last close of a socket looks for what nobody can reach.
        drop(files(&net, Kind::Stream));
        assert_eq!(net.in_flight.count(), 0, "{kind:?}");
        assert!(of_file(&watcher).unwrap().poll().contains(PollEvents::HUP));
    }
}

#[test]
fn what_can_still_be_received_is_kept() {
    let net = Net::new();
    let (one, other) = files(&net, Kind::Stream);
    let (inner, inner_peer) = files(&net, Kind::Stream);
    let (deep, deep_peer) = files(&net, Kind::Stream);
    give(&net, &inner_peer, vec![deep]).unwrap();
    give(&net, &one, vec![inner]).unwrap();
    drop(inner_peer);
    net.in_flight.collect();
    assert_eq!(net.in_flight.count(), 2);
    let mut buffer = [0; 1];
    let message = of_file(&other).unwrap().receive(&mut Destination::own(&mut buffer), 0).unwrap();
    let message = of_file(&message.files[0]).unwrap().receive(&mut Destination::own(&mut buffer), 0).unwrap();
    assert_eq!(message.files.len(), 1);
    assert!(!of_file(&deep_peer).unwrap().poll().contains(PollEvents::HUP));
}

#[test]
fn a_long_chain_of_sockets_ends() {
    let net = Net::new();
    let (mut last, _keeper) = files(&net, Kind::Stream);
    for _ in 0..10_000 {
        let (holder, peer) = files(&net, Kind::Stream);
        give(&net, &peer, vec![last]).unwrap();
        last = holder;
    }
    drop(last);
    assert_eq!(net.in_flight.count(), 0);
}
