//! Files inside, for the control socket: every path is walked by the guest's own kernel, with the rights of a user inside.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};
use cloudpilot_kernel::Kernel;
use cloudpilot_kernel::config::User;
use cloudpilot_kernel::io::{Destination, Source};
use cloudpilot_kernel::task::{Credentials, Task};
use cloudpilot_kernel::vfs::inode::{LinkTarget, NewNode};
use cloudpilot_kernel::vfs::watch::{Watcher, file_event};
use cloudpilot_kernel::vfs::{File, FileType, Inode, Path, Walk, entries, open, permission};
use parking_lot::Mutex;

use crate::guest::credentials;
use crate::machine::{Entry, Files, OnChange};

/// Bytes copied at once between a guest's file and a host descriptor.
const PIECE: usize = 64 << 10;
/// Deepest tree that is removed or watched: deeper ones are made on purpose.
const DEEPEST: usize = 256;
/// Most directories that one recursive watch covers, as `fs.inotify.max_user_watches` was by default.
const MOST_WATCHED: usize = 8192;

/// Files of one kernel.
pub struct GuestFiles {
    kernel: Arc<Kernel>,
}

/// Somebody who walks paths.
struct Visitor<'a> {
    kernel: &'a Arc<Kernel>,
    init: Arc<Task>,
    credentials: Arc<Credentials>,
}

impl GuestFiles {
    /// For a booted kernel.
    pub fn new(kernel: &Arc<Kernel>) -> Self {
        Self { kernel: Arc::clone(kernel) }
    }

    fn visitor(&self, user: &User) -> Result<Visitor<'_>, Errno> {
        let init = self.kernel.init().ok_or(Errno::ESRCH)?;
        Ok(Visitor { kernel: &self.kernel, init, credentials: Arc::new(credentials(&self.kernel, user)?) })
    }
}

impl Visitor<'_> {
    fn walk(&self) -> Walk<'_> {
        let root = self.init.fs().root;
        Walk {
            kernel: self.kernel,
            root: root.clone(),
            start: root,
            credentials: Arc::clone(&self.credentials),
            task: &self.init,
            resolve: 0,
        }
    }

    fn open(&self, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>, Errno> {
        // A FIFO without a peer must not hold us up.
        open::open(&self.walk(), path, flags | raw::O_NONBLOCK, mode)
    }

    fn entry(&self, place: &Path, path: &[u8]) -> Result<Entry, Errno> {
        let attributes = place.inode().attributes()?;
        let target = match attributes.file_type {
            FileType::Symlink => match place.inode().read_link(&self.init)? {
                LinkTarget::Text(text) | LinkTarget::Place { text, .. } => Some(String::from_utf8_lossy(&text).into_owned()),
            },
            _ => None,
        };
        let path = String::from_utf8_lossy(path).into_owned();
        Ok(Entry {
            name: path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned(),
            path,
            kind: kind(attributes.file_type),
            size: attributes.size,
            mode: attributes.permissions,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime_ns: attributes.modified.tv_sec.saturating_mul(1_000_000_000).saturating_add(attributes.modified.tv_nsec),
            target,
        })
    }

    /// Names in a directory.
    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        let file = self.open(path, raw::O_RDONLY | raw::O_DIRECTORY, 0)?;
        let (mut names, mut cursor) = (Vec::new(), 0);
        loop {
            let before = cursor;
            file.ops.read_directory(&file, cursor, &mut |name, _, _, next| {
                cursor = next;
                if name != b"." && name != b".." {
                    names.push(name.to_vec());
                }
                true
            })?;
            if cursor == before {
                return Ok(names);
            }
        }
    }

    fn list(&self, path: &[u8], depth: u32, entries: &mut Vec<Entry>) -> Result<(), Errno> {
        let mut names = self.names(path)?;
        names.sort();
        for name in names {
            let below = join(path, &name);
            // What vanished meanwhile, or may not be seen, is left out.
            let Ok(place) = self.walk().lookup(&below, false) else { continue };
            let Ok(entry) = self.entry(&place, &below) else { continue };
            let deeper = entry.kind == "directory" && depth > 1;
            entries.push(entry);
            if deeper {
                let _ = self.list(&below, depth - 1, entries);
            }
        }
        Ok(())
    }

    /// Watches the directories that there are beneath one. Those made later are not watched.
    fn cover_below(&self, watch: &Arc<Watch>, path: &[u8]) -> Result<(), Errno> {
        let mut entries = Vec::new();
        self.list(path, DEEPEST as u32, &mut entries)?;
        for entry in entries.iter().filter(|entry| entry.kind == "directory").take(MOST_WATCHED) {
            let below = entry.path.as_bytes();
            if let Ok(place) = self.walk().lookup(below, false) {
                watch.cover(place.inode(), below[path.len()..].strip_prefix(b"/").unwrap_or(&below[path.len()..]).to_vec());
            }
        }
        Ok(())
    }

    fn remove(&self, path: &[u8], depth: usize) -> Result<(), Errno> {
        match entries::remove(&self.walk(), path, false) {
            Err(Errno::EISDIR) => {}
            result => return result,
        }
        match entries::remove(&self.walk(), path, true) {
            Err(Errno::ENOTEMPTY) if depth > 0 => {}
            result => return result,
        }
        for name in self.names(path)? {
            match self.remove(&join(path, &name), depth - 1) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        entries::remove(&self.walk(), path, true)
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Regular | FileType::Anonymous => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character_device",
        FileType::BlockDevice => "block_device",
    }
}

fn host_errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error() as u16)
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(to, bytes)).map_err(host_errno)?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// What can be copied without waiting: regular files, and devices, which end when the reader has had enough.
fn check_copyable(file: &File) -> Result<(), Errno> {
    match file.inode.file_type() {
        FileType::Regular | FileType::CharacterDevice => Ok(()),
        FileType::Directory => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

impl Files for GuestFiles {
    fn read_file(&self, user: &User, path: &[u8], to: OwnedFd) -> Result<u64, Errno> {
        let file = self.visitor(user)?.open(path, raw::O_RDONLY, 0)?;
        check_copyable(&file)?;
        let mut buffer = vec![0; PIECE];
        let mut done = 0;
        loop {
            let count = file.ops.read(&file, &mut Destination::own(&mut buffer), done)?;
            if count == 0 {
                return Ok(done);
            }
            write_all(&to, &buffer[..count])?;
            done += count as u64;
        }
    }

    fn write_file(&self, user: &User, path: &[u8], mode: u32, from: OwnedFd) -> Result<u64, Errno> {
        let file = self.visitor(user)?.open(path, raw::O_WRONLY | raw::O_CREAT | raw::O_TRUNC, mode)?;
        check_copyable(&file)?;
        let mut buffer = vec![0; PIECE];
        let mut done = 0;
        loop {
            let count = rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut buffer)).map_err(host_errno)?;
            if count == 0 {
                return Ok(done);
            }
            let mut source = Source::own(&buffer[..count]);
            while source.remaining() > 0 {
                done += file.ops.write(&file, &mut source, done)? as u64;
            }
            file_event(&file, raw::IN_MODIFY);
        }
    }

    fn list_directory(&self, user: &User, path: &[u8], depth: u32) -> Result<Vec<Entry>, Errno> {
        let mut entries = Vec::new();
        self.visitor(user)?.list(path, depth, &mut entries)?;
        Ok(entries)
    }

    fn stat(&self, user: &User, path: &[u8]) -> Result<Entry, Errno> {
        let visitor = self.visitor(user)?;
        let place = visitor.walk().lookup(path, false)?;
        visitor.entry(&place, path)
    }

    fn make_directory(&self, user: &User, path: &[u8]) -> Result<bool, Errno> {
        let visitor = self.visitor(user)?;
        let slashes = path.iter().enumerate().filter(|(index, byte)| *index > 0 && **byte == b'/').map(|(index, _)| index);
        let mut made = false;
        for end in slashes.chain([path.len()]) {
            made = match entries::make(&visitor.walk(), &path[..end], NewNode::Directory, 0o755) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(errno),
            };
        }
        if !made && visitor.walk().lookup(path, true)?.inode().file_type() != FileType::Directory {
            return Err(Errno::EEXIST);
        }
        Ok(made)
    }

    fn remove(&self, user: &User, path: &[u8]) -> Result<(), Errno> {
        self.visitor(user)?.remove(path, DEEPEST)
    }

    fn rename(&self, user: &User, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        let visitor = self.visitor(user)?;
        let walk = visitor.walk();
        entries::rename((&walk, from), (&walk, to), 0)
    }

    fn write_layer(&self, left_out: &[Vec<u8>], to: OwnedFd) -> Result<u64, Errno> {
        crate::layer::write(&self.kernel, left_out, to)
    }

    fn watch(&self, user: &User, path: &[u8], recursive: bool, then: OnChange) -> Result<Box<dyn Send>, Errno> {
        let visitor = self.visitor(user)?;
        let place = visitor.walk().lookup(path, true)?;
        if place.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        permission::check(place.inode(), &visitor.credentials, permission::READ)?;
        let watch = Arc::new(Watch { then, live: Mutex::default() });
        watch.cover(place.inode(), Vec::new());
        if recursive {
            visitor.cover_below(&watch, path)?;
        }
        Ok(Box::new(Handle(watch)))
    }
}

/// Events that are reported, by `IN_*`.
const REPORTED: u32 = raw::IN_CREATE | raw::IN_DELETE | raw::IN_MODIFY | raw::IN_MOVED_FROM | raw::IN_MOVED_TO | raw::IN_ATTRIB;

/// A watch of a client.
struct Watch {
    then: OnChange,
    /// Inodes that are watched, with the numbers of the watches there.
    live: Mutex<Vec<(Arc<dyn Inode>, u64)>>,
}

/// Drops the watch with it: the directories' watchers hold it, too.
struct Handle(Arc<Watch>);

impl Drop for Handle {
    fn drop(&mut self) {
        for (inode, number) in self.0.live.lock().drain(..) {
            inode.common().watches.remove(number);
        }
    }
}

/// One directory of a watch.
struct Watched {
    watch: Arc<Watch>,
    /// Path from the watched directory to this one.
    prefix: Vec<u8>,
}

impl Watch {
    /// Watches one directory; `prefix` is the path to it from the one that the client named.
    fn cover(self: &Arc<Self>, inode: &Arc<dyn Inode>, prefix: Vec<u8>) {
        let number = inode.common().watches.add(REPORTED, Arc::new(Watched { watch: Arc::clone(self), prefix }));
        self.live.lock().push((Arc::clone(inode), number));
    }
}

impl Watcher for Watched {
    fn event(&self, mask: u32, _cookie: u32, name: Option<&[u8]>) {
        let Some(name) = name else { return };
        let kind = match mask & REPORTED {
            raw::IN_CREATE => "create",
            raw::IN_DELETE => "remove",
            raw::IN_MODIFY => "write",
            raw::IN_MOVED_FROM | raw::IN_MOVED_TO => "rename",
            raw::IN_ATTRIB => "chmod",
            _ => return,
        };
        let path = if self.prefix.is_empty() { name.to_vec() } else { join(&self.prefix, name) };
        (self.watch.then)(&String::from_utf8_lossy(&path), kind);
    }
}
