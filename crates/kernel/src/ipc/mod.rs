//! System V IPC, `sysvipc(7)`: shared memory, semaphores, message queues; and POSIX message queues, `mq_overview(7)`.
//!
//! Lock order: a registry, then one of its objects. Waiters hold neither.

pub mod limits;
pub mod messages;
pub mod posix_queues;
pub mod semaphores;
pub mod shared_memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use crate::task::Credentials;

/// `IPC_CREAT`, `IPC_EXCL`, `IPC_NOWAIT` of `ipc.h`.
pub const CREAT: u32 = 0o1000;
/// See [`CREAT`].
pub const EXCL: u32 = 0o2000;
/// See [`CREAT`].
pub const NOWAIT: u32 = 0o4000;
/// `IPC_PRIVATE`.
const PRIVATE: i32 = 0;
/// All of it.
#[derive(Default)]
pub struct Ipc {
    /// `shmget(2)`.
    pub segments: Registry<shared_memory::Segment>,
    /// `semget(2)`.
    pub semaphores: Registry<semaphores::Set>,
    /// `msgget(2)`.
    pub messages: Registry<messages::Queue>,
    /// `mq_open(3)`.
    pub queues: posix_queues::Names,
    /// What is set for it.
    pub limits: limits::Limits,
}

/// Who may use an object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Permissions {
    /// Key; 0 for private ones.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Maker.
    pub cuid: u32,
    /// Maker's group.
    pub cgid: u32,
    /// Permission bits, and marks like `SHM_DEST`.
    pub mode: u32,
}

/// `struct ipc64_perm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RawPermissions {
    key: i32,
    uid: u32,
    gid: u32,
    cuid: u32,
    cgid: u32,
    mode: u32,
    sequence: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

impl Permissions {
    fn new(key: i32, flags: u32, credentials: &Credentials) -> Self {
        let (uid, gid) = (credentials.euid, credentials.egid);
        Self { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777 }
    }

    /// Checks access: `wanted` holds the bits of one class, `0o4` to read, `0o2` to change.
    pub fn check(&self, credentials: &Credentials, wanted: u32) -> Result<(), Errno> {
        let granted = if [self.uid, self.cuid].contains(&credentials.euid) {
            self.mode >> 6
        } else if credentials.egid == self.gid || credentials.in_group(self.gid) || credentials.in_group(self.cgid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 7 == 0 || credentials.has(raw::CAP_IPC_OWNER) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether these credentials may remove the object or change its owner.
    pub fn check_owner(&self, credentials: &Credentials) -> Result<(), Errno> {
        let own = [self.uid, self.cuid].contains(&credentials.euid);
        if own || credentials.has(raw::CAP_SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// As somebody with these credentials reads them.
    pub fn to_raw(self, id: i32, reader: &Credentials) -> RawPermissions {
        let Self { key, mode, .. } = self;
        let [uid, cuid] = [self.uid, self.cuid].map(|user| reader.user.show_user(user));
        let [gid, cgid] = [self.gid, self.cgid].map(|group| reader.user.show_group(group));
        RawPermissions { key, uid, gid, cuid, cgid, mode, sequence: (id >> 15) as u16, pad: [0; 3], unused: [0; 2] }
    }

    /// Takes over what `IPC_SET` may change; `EINVAL` for users and groups that the giver does not have.
    pub fn set(&mut self, given: &RawPermissions, giver: &Credentials) -> Result<(), Errno> {
        let uid = giver.user.user(given.uid).ok_or(Errno::EINVAL)?;
        let gid = giver.user.group(given.gid).ok_or(Errno::EINVAL)?;
        (self.uid, self.gid) = (uid, gid);
        self.mode = self.mode & !0o777 | given.mode & 0o777;
        Ok(())
    }
}

/// An object that a [`Registry`] keeps.
pub trait Object {
    /// Its permissions.
    fn permissions(&self) -> Permissions;
}

/// Objects of one kind, by number and key.
pub struct Registry<T> {
    table: Mutex<Table<T>>,
}

struct Table<T> {
    next: i32,
    objects: BTreeMap<i32, Arc<T>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { table: Mutex::new(Table { next: 0, objects: BTreeMap::new() }) }
    }
}

impl<T: Object> Registry<T> {
    /// Finds or makes the object of a key, as the `*get` calls do; `fits` judges one that is there already. `rules` are the most objects that
    /// there may be, and the number that a new one is to have, if somebody chose it.
    pub fn get(
        &self,
        (key, flags): (i32, u32),
        credentials: &Credentials,
        rules: (u64, impl FnOnce() -> Option<i32>),
        fits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(i32, Permissions) -> Result<T, Errno>,
    ) -> Result<i32, Errno> {
        let mut table = self.table.lock();
        let found = if key == PRIVATE { None } else { table.objects.iter().find(|(_, object)| object.permissions().key == key) };
        if let Some((id, object)) = found {
            if flags & (CREAT | EXCL) == CREAT | EXCL {
                return Err(Errno::EEXIST);
            }
            let wanted = flags >> 6 | flags >> 3 | flags;
            object.permissions().check(credentials, wanted & 7)?;
            fits(object)?;
            return Ok(*id);
        }
        if key != PRIVATE && flags & CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        if table.objects.len() as u64 >= rules.0 {
            return Err(Errno::ENOSPC);
        }
        let chosen = rules.1();
        let mut id = chosen.unwrap_or(table.next);
        while table.objects.contains_key(&id) {
            id = id.wrapping_add(1) & i32::MAX;
        }
        let object = make(id, Permissions::new(key, flags, credentials))?;
        if chosen.is_none() {
            table.next = id.wrapping_add(1) & i32::MAX;
        }
        table.objects.insert(id, Arc::new(object));
        Ok(id)
    }

    /// The object of a number: `EINVAL` if there is none.
    pub fn find(&self, id: i32) -> Result<Arc<T>, Errno> {
        self.table.lock().objects.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// The object at a place of the list, for `*_STAT`, and its number.
    pub fn at(&self, index: i32) -> Result<(i32, Arc<T>), Errno> {
        let index = usize::try_from(index).map_err(|_| Errno::EINVAL)?;
        let table = self.table.lock();
        table.objects.iter().nth(index).map(|(id, object)| (*id, Arc::clone(object))).ok_or(Errno::EINVAL)
    }

    /// Takes an object out; false if somebody else did.
    pub fn remove(&self, id: i32) -> bool {
        self.table.lock().objects.remove(&id).is_some()
    }

    /// All, by number.
    pub fn all(&self) -> Vec<(i32, Arc<T>)> {
        self.table.lock().objects.iter().map(|(id, object)| (*id, Arc::clone(object))).collect()
    }
}
