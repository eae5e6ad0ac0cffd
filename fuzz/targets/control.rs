//! Packets on the control socket, with descriptors or without.

#![no_main]

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use cloudpilot_fuzz::guest;
use cloudpilot_sandbox::control;
use libfuzzer_sys::{Corpus, fuzz_target};

const PING: &[u8] = br#"{"id": "still there?", "method": "ping"}"#;
const PONG: &[u8] = b"still there?";
/// A hang.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A client of the socket that the kernel process serves.
fn client() -> &'static OwnedFd {
    static CLIENT: OnceLock<OwnedFd> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .expect("pair");
        control::serve_client(guest::machine(), theirs);
        ours
    })
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let [descriptors, text @ ..] = bytes else { return Corpus::Reject };
    // An empty packet is a client's good-bye, and `shutdown` ends the process, as it should.
    let ends = text.windows(8).any(|word| word == b"shutdown");
    if text.is_empty() || text.len() > 100_000 || ends || text.contains(&b'\\') {
        return Corpus::Reject;
    }
    let null =
        rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()).expect("null");
    let all: Vec<BorrowedFd<'_>> = (0..descriptors % 5).map(|_| null.as_fd()).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); 128];
    let mut ancillary = rustix::net::SendAncillaryBuffer::new(&mut space);
    if !all.is_empty() {
        ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&all));
    }
    rustix::net::sendmsg(client(), &[IoSlice::new(text)], &mut ancillary, rustix::net::SendFlags::NOSIGNAL).expect("the connection lives");
    // Some requests are answered late or never: `accept` waits for a program. What follows is answered in any case.
    rustix::net::send(client(), PING, rustix::net::SendFlags::NOSIGNAL).expect("the connection lives");
    let mut buffer = vec![0; 200 << 10];
    loop {
        assert!(guest::is_readable(client(), PATIENCE), "hang: no answer");
        let (_, length) = rustix::net::recv(client(), &mut buffer[..], rustix::net::RecvFlags::empty()).expect("an answer");
        assert!(length > 0, "the connection was closed");
        if buffer[..length].windows(PONG.len()).any(|part| part == PONG) {
            break;
        }
    }
    for process in guest::machine().processes() {
        let pid = process["pid"].as_i64().unwrap_or(0) as i32;
        let _ = guest::machine().signal(pid, 9);
    }
    Corpus::Keep
});
