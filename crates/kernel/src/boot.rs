//! Boot: the machine, its tree of files, its first process.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};
use cloudpilot_memory::MemoryFile;
use cloudpilot_platform::systrap::{Systrap, find_vdso};

use crate::Kernel;
use crate::config::{BootConfig, ProvidedFile, RootEntry, Volume};
use crate::fs::host::owners::Owners;
use crate::fs::host::{HostDirectory, volume};
use crate::fs::tmpfs::{Lower, Node, Tmpfs};
use crate::fs::{dev, devpts, proc, sys};
use crate::io::Source;
use crate::namespace::Namespaces;
use crate::task::{Task, init, memory_killer};
use crate::vfs::inode::{Inode, NewNode};
use crate::vfs::{Mount, Name, Path, Walk};

/// Why a boot failed.
#[derive(Debug)]
pub enum BootError {
    /// The host refused something that the kernel needs.
    Host(&'static str, std::io::Error),
    /// A part of the tree could not be made: which, and why.
    Tree(String, Errno),
}

impl std::fmt::Display for BootError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(what, error) => write!(formatter, "Cannot {what}: {error}"),
            Self::Tree(path, errno) => write!(formatter, "Cannot make `{path}` inside: {errno}"),
        }
    }
}

impl std::error::Error for BootError {}

/// Directories that are always there, with their modes; what a lower layer has beneath them is shown.
const DIRECTORIES: [(&str, u32); 17] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/tmp", 0o1777),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/run/lock", 0o1777),
];
/// Which part of the memory limit freed memory that is kept for reuse may take, and how much at most: what a large compiler leaves behind.
const KEPT_SHARE: u64 = 16;
const MOST_KEPT: u64 = 32 << 20;
/// Size of `/dev`, which holds nodes only.
const DEV_BYTES: u64 = 1 << 20;

impl Kernel {
    /// Notes what of the host must be looked up before its tree is left: where its vDSO lies, without which programs make a system call each time
    /// they ask what time it is.
    pub fn look_around() {
        let _ = find_vdso();
    }

    /// Boots. Call before the kernel process installs its own filter of host calls.
    pub fn boot(config: BootConfig) -> Result<Arc<Self>, BootError> {
        crate::host::prepare();
        let BootConfig { hostname, root, volumes, limits, network, provided_files, patches_calls, strace, on_interference } = config;
        let memory = MemoryFile::new().map_err(|error| BootError::Host("make guest memory", error))?;
        memory.keep_at_most((limits.memory_bytes / KEPT_SHARE).min(MOST_KEPT));
        let platform = Systrap::new(memory.descriptor().as_fd().as_raw_fd(), find_vdso(), on_interference)
            .map_err(|error| BootError::Host("start the first stub", error))?;
        let kernel = Arc::new(Self {
            limits,
            network,
            memory,
            net: Default::default(),
            ipc: Default::default(),
            mounts: Default::default(),
            namespaces: Default::default(),
            platform: Box::new(platform),
            requested: Default::default(),
            tasks: Default::default(),
            system: Default::default(),
            terminals: Arc::default(),
            patches_calls,
            strace,
            unsupported: Default::default(),
            notices: Default::default(),
            exits: Default::default(),
        });
        let tree = Tmpfs::create(&kernel.memory, limits.tmpfs_bytes, 0o755, Some(Lower::Empty));
        let tree = plant_root(&kernel, tree, root)?;
        let mount = Mount::new(Name::root(tree), "overlay", "overlay", 0);
        let first = Namespaces::first(&kernel.mounts, &mount, hostname, (&kernel.ipc, &kernel.net), kernel.network);
        let _ = kernel.namespaces.set(first);
        let init = init::create(&kernel, mount.root_path()).map_err(|errno| BootError::Tree("/".into(), errno))?;
        let builder = Builder { kernel: &kernel, init: &init };
        for (path, mode) in DIRECTORIES {
            builder.directory(path.as_bytes(), mode).map_err(tree_error(path))?;
        }
        builder.link(b"/var/run", b"/run").and_then(|()| builder.link(b"/var/lock", b"/run/lock")).map_err(tree_error("/var/run"))?;
        builder.mount_own()?;
        for file in provided_files {
            builder.provide(&file).map_err(tree_error(&file.guest))?;
        }
        for volume in volumes {
            let guest = volume.guest.clone();
            builder.volume(volume).map_err(tree_error(&guest))?;
        }
        kernel.platform.settle().map_err(|error| BootError::Host("start the first stub", error))?;
        memory_killer::start(&kernel).map_err(|error| BootError::Host("start a thread", error))?;
        Ok(kernel)
    }
}

fn tree_error(path: &str) -> impl FnOnce(Errno) -> BootError {
    let path = path.to_owned();
    move |errno| BootError::Tree(path, errno)
}

/// The root's lower layer: one directory for all, or entries of an empty root.
fn plant_root(kernel: &Arc<Kernel>, tree: Arc<Node>, entries: Vec<RootEntry>) -> Result<Arc<Node>, BootError> {
    let mut tree = tree;
    for entry in entries {
        match entry {
            RootEntry::Directory { guest, handle, world_readable_only, owners } => {
                let directory = HostDirectory::root(handle, world_readable_only, owners.map(|table| Owners::parse(&table)));
                if guest == "/" {
                    tree = Tmpfs::create(&kernel.memory, kernel.limits.tmpfs_bytes, 0o755, Some(Lower::Host(directory)));
                } else {
                    tree.plant_lower(guest.trim_matches('/').as_bytes(), directory).map_err(tree_error(&guest))?;
                }
            }
            RootEntry::Symlink { guest, target } => {
                let name = guest.trim_matches('/').as_bytes();
                tree.plant(name, &NewNode::Symlink(target.as_bytes()), 0o777).map_err(tree_error(&guest))?;
            }
        }
    }
    Ok(tree)
}

/// Makes files with the rights of init.
struct Builder<'a> {
    kernel: &'a Arc<Kernel>,
    init: &'a Arc<Task>,
}

impl Builder<'_> {
    fn walk(&self) -> Walk<'_> {
        Walk::of(self.init)
    }

    /// Makes a directory unless there is something of that name.
    fn directory(&self, path: &[u8], mode: u32) -> Result<(), Errno> {
        self.make(path, &NewNode::Directory, mode)
    }

    fn link(&self, path: &[u8], target: &[u8]) -> Result<(), Errno> {
        self.make(path, &NewNode::Symlink(target), 0o777)
    }

    fn make(&self, path: &[u8], node: &NewNode<'_>, mode: u32) -> Result<(), Errno> {
        match self.walk().lookup(path, true) {
            Err(Errno::ENOENT) => {}
            _ => return Ok(()),
        }
        let parent = self.walk().parent(path)?;
        let made = parent.directory.inode().create(&parent.component, node.clone(), mode, &self.init.credentials());
        match made {
            Ok(inode) => {
                parent.directory.name.adopt(&parent.component, inode);
                Ok(())
            }
            // A dangling link: it is the image's business.
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn attach(&self, path: &str, root: Arc<dyn Inode>, kind: &str, source: &str, flags: u32) -> Result<(), BootError> {
        let place = self.walk().lookup(path.as_bytes(), true).map_err(tree_error(path))?;
        self.attach_at(place, root, kind, source, flags);
        Ok(())
    }

    fn attach_at(&self, place: Path, root: Arc<dyn Inode>, kind: &str, source: &str, flags: u32) {
        let mount = Mount::new(Name::root(root), kind, source, flags);
        self.kernel.mounts.attach(&mount, place);
    }

    /// `/proc`, `/sys`, `/dev` and what lies beneath.
    fn mount_own(&self) -> Result<(), BootError> {
        let kernel = self.kernel;
        let strict = raw::MS_NOSUID | raw::MS_NODEV | raw::MS_NOEXEC;
        self.attach("/proc", proc::root(kernel), "proc", "proc", strict | raw::MS_RELATIME)?;
        self.attach("/sys", sys::root(kernel), "sysfs", "sysfs", strict | raw::MS_RDONLY | raw::MS_RELATIME)?;
        self.attach("/sys/fs/cgroup", sys::cgroup::root(kernel), "cgroup2", "cgroup", strict | raw::MS_RDONLY | raw::MS_RELATIME)?;
        let nodes: Arc<dyn Inode> = Tmpfs::create(&kernel.memory, DEV_BYTES, 0o755, None);
        dev::populate(&nodes).map_err(tree_error("/dev"))?;
        self.attach("/dev", nodes, "tmpfs", "tmpfs", raw::MS_NOSUID)?;
        self.attach("/dev/pts", devpts::root(kernel), "devpts", "devpts", raw::MS_NOSUID | raw::MS_NOEXEC | raw::MS_RELATIME)?;
        let shared: Arc<dyn Inode> = Tmpfs::create(&kernel.memory, kernel.limits.tmpfs_bytes, 0o1777, None);
        self.attach("/dev/shm", shared, "tmpfs", "shm", raw::MS_NOSUID | raw::MS_NODEV)
    }

    /// A file of our own, over whatever the image has there.
    fn provide(&self, file: &ProvidedFile) -> Result<(), Errno> {
        let parent = self.walk().parent(file.guest.as_bytes())?;
        let directory = parent.directory.inode();
        match directory.unlink(&parent.component) {
            Ok(()) => parent.directory.name.forget(&parent.component),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let inode = directory.create(&parent.component, NewNode::File, file.mode, &self.init.credentials())?;
        let name = parent.directory.name.adopt(&parent.component, inode);
        let place = Path { mount: parent.directory.mount, name };
        let ops = Arc::clone(place.inode()).open(raw::O_WRONLY, self.init)?;
        let inode = Arc::clone(place.inode());
        let open = crate::vfs::File::new(ops, inode, Some(place), raw::O_WRONLY);
        let mut source = Source::own(&file.contents);
        let mut written = 0;
        while source.remaining() > 0 {
            written += open.ops.write(&open, &mut source, written as u64)?;
        }
        Ok(())
    }

    fn volume(&self, volume: Volume) -> Result<(), Errno> {
        let Volume { guest, handle, read_only } = volume;
        let root = volume::root(handle, read_only)?;
        let node = match root.file_type() {
            crate::vfs::FileType::Directory => NewNode::Directory,
            _ => NewNode::File,
        };
        self.directories_above(guest.as_bytes())?;
        self.make(guest.as_bytes(), &node, 0o755)?;
        let place = self.walk().lookup(guest.as_bytes(), true)?;
        let flags = raw::MS_NOSUID | raw::MS_NODEV | if read_only { raw::MS_RDONLY } else { 0 };
        self.attach_at(place, root, "virtiofs", "volume", flags);
        Ok(())
    }

    fn directories_above(&self, path: &[u8]) -> Result<(), Errno> {
        let slashes = path.iter().enumerate().filter(|(index, byte)| *index > 0 && **byte == b'/');
        for (index, _) in slashes {
            self.directory(&path[..index], 0o755)?;
        }
        Ok(())
    }
}
