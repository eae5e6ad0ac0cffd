//! One client.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::Shutdown;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Server, requests};
use crate::failure::{Code, Failure};
use crate::packet::{self, LONGEST_MESSAGE, Received};

/// Most watches of one client.
const MOST_WATCHES: usize = 256;

/// A client's connection; shared by the threads that work for it.
pub struct Connection {
    /// What all clients share.
    pub server: Arc<Server>,
    socket: Arc<OwnedFd>,
    /// Watches on files by number; dropped with the connection.
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    next: u64,
    live: HashMap<u64, Box<dyn Send>>,
}

impl Connection {
    /// For a client that was just accepted.
    pub fn new(server: Arc<Server>, socket: Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self { server, socket, watches: Mutex::default() })
    }

    /// The socket.
    pub fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// Answers requests until the client hangs up.
    pub fn serve(self: &Arc<Self>) {
        loop {
            match packet::receive(self.socket.as_fd()) {
                Ok(Received::Message(text, descriptors)) => requests::serve(self, &text, descriptors),
                Ok(Received::TooLarge) => {
                    let failure = Failure::new(Code::Limit, format!("A message has at most {LONGEST_MESSAGE} bytes and 3 descriptors"));
                    self.reply(&Value::Null, Err(failure), None);
                }
                Ok(Received::Closed) | Err(_) => break,
            }
        }
        self.lock().live.clear();
    }

    /// Hangs up, saying why.
    pub fn refuse(&self, failure: &Failure) {
        let _ = packet::send(&self.socket, &json!({"id": null, "error": failure}));
        self.hang_up();
    }

    /// Answers a request. A result longer than a packet goes to `overflow`, the descriptor that came along with the request.
    pub fn reply(&self, id: &Value, result: Result<Value, Failure>, overflow: Option<OwnedFd>) {
        let message = match result {
            Ok(result) => {
                let message = json!({"id": id, "result": result});
                match serde_json::to_vec(&message).map_or(usize::MAX, |text| text.len()) > LONGEST_MESSAGE {
                    true => overflowing(id, &message["result"], overflow),
                    false => message,
                }
            }
            Err(failure) => json!({"id": id, "error": failure}),
        };
        self.tell(&message);
    }

    /// Sends a message; a client that has no room for it is hung up on.
    pub fn tell(&self, message: &impl Serialize) {
        if packet::send(&self.socket, message).is_err() {
            self.hang_up();
        }
    }

    fn hang_up(&self) {
        // Wakes the thread that receives, too. Not connected any more is just as well.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next watch.
    pub fn next_watch(&self) -> Result<u64, Failure> {
        let mut watches = self.lock();
        if watches.live.len() >= MOST_WATCHES {
            return Err(Failure::new(Code::Limit, format!("A client has at most {MOST_WATCHES} watches")));
        }
        watches.next += 1;
        Ok(watches.next)
    }

    /// Keeps a watch until the client hangs up.
    pub fn keep_watch(&self, number: u64, watch: Box<dyn Send>) {
        self.lock().live.insert(number, watch);
    }

    /// Ends a watch.
    pub fn drop_watch(&self, number: u64) -> bool {
        let watch = self.lock().live.remove(&number);
        watch.is_some()
    }
}

fn overflowing(id: &Value, result: &Value, overflow: Option<OwnedFd>) -> Value {
    let Some(descriptor) = overflow else {
        let failure =
            Failure::new(Code::Limit, "The answer is longer than a packet").hint("send a descriptor along for it, or ask for less");
        return json!({"id": id, "error": failure});
    };
    let text = result.to_string();
    match std::fs::File::from(descriptor).write_all(text.as_bytes()) {
        Ok(()) => json!({"id": id, "result": {"in_descriptor": text.len()}}),
        Err(error) => json!({"id": id, "error": Failure::host("Cannot write the answer to the descriptor", error)}),
    }
}
