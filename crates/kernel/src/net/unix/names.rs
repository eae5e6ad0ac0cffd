//! Which socket stands behind which name: inodes of the tree, and abstract names.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::address::Address;
use super::{DatagramSocket, StreamSocket};
use crate::net::Kind;
use crate::task::Task;
use crate::vfs::inode::{FileType, Inode, NewNode};
use crate::vfs::walk::Walk;
use crate::vfs::{permission, watch};

/// What a name leads to.
#[derive(Clone)]
pub enum Bound {
    /// A stream or packet socket.
    Stream(Kind, Weak<StreamSocket>),
    /// A datagram socket.
    Datagram(Weak<DatagramSocket>),
}

impl Bound {
    fn kind(&self) -> Kind {
        match self {
            Self::Stream(kind, _) => *kind,
            Self::Datagram(_) => Kind::Datagram,
        }
    }
}

/// A name in one of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Device and number of an inode.
    Inode(u64, u64),
    /// Each type of socket has abstract names of its own.
    Abstract(u32, Vec<u8>),
}

/// All names of one kernel.
#[derive(Default)]
pub struct Names {
    bound: Mutex<HashMap<Key, Bound>>,
    /// Held by whoever connects one stream socket to another.
    pub connecting: Mutex<()>,
    /// Where the search for a free automatic name goes on.
    next_automatic: Mutex<u32>,
    /// Where names in the tree are, which all network namespaces share; none in the first.
    tree: Option<Arc<Names>>,
}

impl Names {
    /// Names of another network namespace.
    pub fn beside(first: &Arc<Self>) -> Arc<Self> {
        let tree = first.tree.as_ref().unwrap_or(first);
        Arc::new(Self { tree: Some(Arc::clone(tree)), ..Self::default() })
    }

    /// The table that a name stands in.
    fn table(&self, key: &Key) -> &Mutex<HashMap<Key, Bound>> {
        match (key, &self.tree) {
            (Key::Inode(..), Some(tree)) => &tree.bound,
            _ => &self.bound,
        }
    }
}

/// Automatic names are five hexadecimal digits.
const AUTOMATIC: u32 = 1 << 20;

/// A name that a socket has, until dropped.
pub struct Registration {
    names: Arc<Names>,
    key: Key,
    /// Kept alive, so that its number is not given to another inode.
    _inode: Option<Arc<dyn Inode>>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.names.table(&self.key).lock().remove(&self.key);
    }
}

/// A socket's own name: none at first, then one for good. Peers hold it too.
#[derive(Clone, Default)]
pub struct Name(Arc<OnceLock<Address>>);

impl Name {
    /// The address, [`Address::Unnamed`] before it was bound.
    pub fn address(&self) -> Address {
        self.0.get().cloned().unwrap_or(Address::Unnamed)
    }
}

/// A socket's place in the tables.
pub struct Naming {
    names: Arc<Names>,
    /// The name.
    pub name: Name,
    registration: Mutex<Option<Registration>>,
}

impl Naming {
    /// Of a socket without a name.
    pub fn new(names: &Arc<Names>) -> Self {
        Self { names: Arc::clone(names), name: Name::default(), registration: Mutex::new(None) }
    }

    /// Of a socket that was accepted: it has its listener's name.
    pub fn sharing(listener: &Self) -> Self {
        Self { names: Arc::clone(&listener.names), name: listener.name.clone(), registration: Mutex::new(None) }
    }

    /// The tables.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// `bind(2)`. Paths need the task that walks.
    pub fn bind(&self, task: Option<&Arc<Task>>, address: Address, bound: Bound) -> Result<(), Errno> {
        let mut registration = self.registration.lock();
        if self.name.0.get().is_some() {
            return if address == Address::Unnamed { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let (made, address) = match address {
            Address::Unnamed => self.names.bind_automatic(&bound)?,
            Address::Abstract(name) => {
                (self.names.register(Key::Abstract(bound.kind() as u32, name.clone()), None, bound)?, Address::Abstract(name))
            }
            Address::Path(path) => {
                let inode = make_inode(task.ok_or(Errno::EINVAL)?, &path)?;
                (self.names.register(key_of(&inode)?, Some(inode), bound)?, Address::Path(path))
            }
        };
        *registration = Some(made);
        let _ = self.name.0.set(address);
        Ok(())
    }

    /// Gives a socket that wants to be answered an automatic name, if it has none (`SO_PASSCRED`).
    pub fn bind_if_unnamed(&self, bound: Bound) -> Result<(), Errno> {
        if self.name.0.get().is_some() { Ok(()) } else { self.bind(None, Address::Unnamed, bound) }
    }

    /// Gives the name up. The socket still says that it has it.
    pub fn release(&self) {
        let registration = self.registration.lock().take();
        drop(registration);
    }
}

fn key_of(inode: &Arc<dyn Inode>) -> Result<Key, Errno> {
    let attributes = inode.attributes()?;
    Ok(Key::Inode(attributes.device, attributes.inode))
}

/// Makes the inode of a socket. What exists already is `EADDRINUSE`.
fn make_inode(task: &Arc<Task>, path: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
    let walk = Walk::of(task);
    let parent = walk.parent(path)?;
    if !parent.is_entry() || parent.directory.name.child(&parent.component).is_ok() {
        return Err(Errno::EADDRINUSE);
    }
    if parent.trailing_slash {
        return Err(Errno::ENOENT);
    }
    permission::check_directory_change(&parent.directory, &walk.credentials)?;
    let directory = parent.directory.inode();
    let permissions = 0o777 & !task.fs().umask;
    let inode = directory.create(&parent.component, NewNode::Socket, permissions, &walk.credentials).map_err(|errno| match errno {
        Errno::EEXIST => Errno::EADDRINUSE,
        other => other,
    })?;
    let _ = parent.directory.name.adopt(&parent.component, Arc::clone(&inode));
    watch::entry_event(&**directory, &parent.component, FileType::Socket, raw::IN_CREATE, 0);
    Ok(inode)
}

impl Names {
    fn register(self: &Arc<Self>, key: Key, inode: Option<Arc<dyn Inode>>, bound: Bound) -> Result<Registration, Errno> {
        let mut table = self.table(&key).lock();
        if table.contains_key(&key) {
            return Err(Errno::EADDRINUSE);
        }
        table.insert(key.clone(), bound);
        Ok(Registration { names: Arc::clone(self), key, _inode: inode })
    }

    fn bind_automatic(self: &Arc<Self>, bound: &Bound) -> Result<(Registration, Address), Errno> {
        for _ in 0..AUTOMATIC {
            let number = {
                let mut next = self.next_automatic.lock();
                *next = (*next + 1) % AUTOMATIC;
                *next
            };
            let name = format!("{number:05x}").into_bytes();
            if let Ok(registration) = self.register(Key::Abstract(bound.kind() as u32, name.clone()), None, bound.clone()) {
                return Ok((registration, Address::Abstract(name)));
            }
        }
        Err(Errno::ENOSPC)
    }

    /// The socket behind an address, which the task must be allowed to write to if it is a path. `ECONNREFUSED` if there is none.
    pub fn find(&self, task: Option<&Arc<Task>>, address: &Address, kind: Kind) -> Result<Bound, Errno> {
        let key = match address {
            Address::Unnamed => return Err(Errno::EINVAL),
            Address::Abstract(name) => Key::Abstract(kind as u32, name.clone()),
            Address::Path(path) => {
                let walk = Walk::of(task.ok_or(Errno::EINVAL)?);
                let place = walk.lookup(path, true)?;
                permission::check(place.inode(), &walk.credentials, permission::WRITE)?;
                if place.inode().file_type() != FileType::Socket {
                    return Err(Errno::ECONNREFUSED);
                }
                key_of(place.inode())?
            }
        };
        self.table(&key).lock().get(&key).cloned().ok_or(Errno::ECONNREFUSED)
    }

    /// Every bound socket with its name, for `/proc/net/unix`.
    pub fn all(&self) -> Vec<Bound> {
        self.bound.lock().values().cloned().collect()
    }
}
