//! The control socket, served by the kernel process itself: whoever may reach it starts programs, moves files, asks for figures.
//!
//! Each client has a thread of its own, so that one that hangs holds up nobody else. Nothing is ever sent with waiting: a client that does not
//! read what it asked for is hung up on.

mod connection;
mod files;
mod requests;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::failure::{Code, Failure};
use crate::machine::Machine;
use connection::Connection;

/// Most clients at a time: each costs a thread. One client may have any number of requests under way.
const MOST_CLIENTS: usize = 64;
/// Most copies of files at a time: each costs a thread too.
const MOST_TRANSFERS: usize = 32;
/// Most connections to ports inside at a time: each costs a thread and its buffers.
const MOST_JOINED: usize = 256;
/// Stack of such a thread: JSON is parsed there, at most 128 levels deep.
const STACK: usize = 256 << 10;
/// How long to wait when the host has no descriptors or memory for another client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all clients share.
pub struct Server {
    machine: Arc<dyn Machine>,
    /// To the supervisor, which is told of a shutdown.
    link: Arc<OwnedFd>,
    clients: AtomicUsize,
    transfers: AtomicUsize,
    joined: AtomicUsize,
}

impl Server {
    fn new(machine: &Arc<dyn Machine>, link: Arc<OwnedFd>) -> Self {
        let none = || AtomicUsize::new(0);
        Self { machine: Arc::clone(machine), link, clients: none(), transfers: none(), joined: none() }
    }
}

/// One of a bounded number; given back when dropped.
struct Permit {
    server: Arc<Server>,
    count: fn(&Server) -> &AtomicUsize,
}

impl Permit {
    fn take(server: &Arc<Server>, count: fn(&Server) -> &AtomicUsize, most: usize) -> Option<Self> {
        let taken = count(server).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1));
        taken.is_ok().then(|| Self { server: Arc::clone(server), count })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        (self.count)(&self.server).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves clients for as long as the sandbox lives. The supervisor is the first of them.
pub fn serve(machine: &Arc<dyn Machine>, listener: OwnedFd, link: Arc<OwnedFd>) -> Result<Infallible, Failure> {
    let server = Arc::new(Server::new(machine, Arc::clone(&link)));
    let supervisor = Connection::new(Arc::clone(&server), link);
    // When it hangs up it is dead, and so are we.
    run("supervisor", move || {
        supervisor.serve();
        crate::kernel_process::shut_down(&supervisor.socket())
    })?;
    loop {
        match rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
            Ok(socket) => welcome(&server, socket),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => cloudpilot_kernel::pause(ACCEPT_PAUSE),
        }
    }
}

/// Serves one client that is connected already, on a thread of its own: for tests that have no socket to listen on.
pub fn serve_client(machine: &Arc<dyn Machine>, socket: OwnedFd) {
    let socket = Arc::new(socket);
    let server = Arc::new(Server::new(machine, Arc::clone(&socket)));
    std::thread::spawn(move || Connection::new(server, socket).serve());
}

fn welcome(server: &Arc<Server>, socket: OwnedFd) {
    let connection = Connection::new(Arc::clone(server), Arc::new(socket));
    let Some(permit) = Permit::take(server, |server| &server.clients, MOST_CLIENTS) else {
        let failure = Failure::new(Code::Limit, format!("The sandbox has {MOST_CLIENTS} clients already")).hint("close some connections");
        return connection.refuse(&failure);
    };
    let refused = Arc::clone(&connection);
    let started = run("control", move || {
        connection.serve();
        drop(permit);
    });
    if let Err(failure) = started {
        refused.refuse(&failure);
    }
}

fn run(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    thread.spawn(work).map(|_| ()).map_err(|error| Failure::host("The sandbox has no thread left for this", error))
}
