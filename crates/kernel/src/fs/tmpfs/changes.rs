//! What a guest has changed about its root: the overlay compared with its lower directory, by what is there now rather than by what was done.
//! This is how an image's new layer comes to be. The guest must be still meanwhile, or the layer has a bit of before and a bit of after.

use std::collections::HashMap;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_memory::Object;

use super::node::{Body, LowerFile, Node};
use crate::fs::host::HostDirectory;
use crate::vfs::inode::{Attributes, FileType, Inode};

/// Deepest directory that is looked at.
const DEEPEST: usize = 512;

/// Something that is other than below.
pub enum Change {
    /// A name of the lower layer that is gone.
    Removed,
    /// A directory; what is in it comes on its own.
    Directory,
    /// A regular file.
    File(Contents),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// Another name of a file that came before, by its path.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// Contents of a file.
pub enum Contents {
    /// In the sandbox's memory.
    Own(Arc<Object>),
    /// Still on the host, under another name than there.
    Lower(Arc<LowerFile>),
}

impl Contents {
    /// Reads from a place; nothing at the end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Own(object) => Ok(object.read_at(offset, buffer)),
            Self::Lower(lower) => {
                let file = lower.open()?;
                rustix::io::retry_on_intr(|| crate::host::transfer::read_at(&*file, &mut buffer[..], offset)).map_err(|_| Errno::EIO)
            }
        }
    }
}

/// Takes changes: the path without a slash in front, what it is, and its attributes, which mean nothing for what was removed.
pub type Visit<'a> = dyn FnMut(&[u8], Change, &Attributes) -> Result<(), Errno> + 'a;

struct Comparison<'a> {
    visit: &'a mut Visit<'a>,
    /// Paths that are left out, with everything below them.
    left_out: &'a [Vec<u8>],
    /// First names of files that have several, by inode number.
    names: HashMap<u64, Vec<u8>>,
}

/// Tells everything that is other in this root than in its lower layer. `EOPNOTSUPP` where the root is not over one directory.
pub fn compare(root: &Arc<dyn Inode>, left_out: &[Vec<u8>], visit: &mut Visit<'_>) -> Result<(), Errno> {
    let root = Node::of(root).ok_or(Errno::EOPNOTSUPP)?;
    let lower = root.filesystem.lower.clone().ok_or(Errno::EOPNOTSUPP)?;
    let mut visit = |path: &[u8], change: Change, attributes: &Attributes| visit(path, change, attributes);
    Comparison { visit: &mut visit, left_out, names: HashMap::new() }.directory(&root, Some(&lower), b"", 0)
}

impl Comparison<'_> {
    fn directory(&mut self, node: &Arc<Node>, lower: Option<&Arc<HostDirectory>>, path: &[u8], depth: usize) -> Result<(), Errno> {
        if depth > DEEPEST {
            return Err(Errno::ENAMETOOLONG);
        }
        let (mut entries, absent) = node.contents_over(lower)?;
        if let Some(lower) = lower {
            let mut names = lower.list()?;
            names.sort_by(|one, other| one.0.cmp(&other.0));
            let nothing = lower.attributes()?;
            for (name, ..) in names {
                let below = join(path, &name);
                // Still untouched unless somebody took it away.
                if absent.contains(&name) && !self.left_out.contains(&below) {
                    (self.visit)(&below, Change::Removed, &nothing)?;
                }
            }
        }
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, entry) in entries {
            let below = join(path, &name);
            if !self.left_out.contains(&below) {
                self.entry(&entry, lower, &name, &below, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, node: &Arc<Node>, lower: Option<&Arc<HostDirectory>>, name: &[u8], path: &[u8], depth: usize) -> Result<(), Errno> {
        let before = lower.and_then(|lower| lower.find(name).ok());
        let attributes = node.attributes()?;
        let same_look = before.as_ref().is_some_and(|before| looks_same(&before.attributes, &attributes));
        let change = match &node.state.read().body {
            Body::Directory(_) => None,
            Body::File(object) => Some(Change::File(Contents::Own(Arc::clone(object)))),
            Body::Lower(file) if same_look && lower.is_some_and(|lower| file.is(lower, name)) => return Ok(()),
            Body::Lower(file) => Some(Change::File(Contents::Lower(Arc::clone(file)))),
            Body::Symlink(target) if same_look && before.as_ref().is_some_and(|before| before.target.as_ref() == Some(target)) => {
                return Ok(());
            }
            Body::Symlink(target) => Some(Change::Symlink(target.clone())),
            Body::Fifo(_) if same_look => return Ok(()),
            Body::Fifo(_) => Some(Change::Fifo),
            // Nobody listens on a socket later, and devices are `/dev`'s.
            Body::Socket | Body::Device(_) => return Ok(()),
        };
        let Some(change) = change else {
            if !same_look {
                (self.visit)(path, Change::Directory, &attributes)?;
            }
            let below = before.and_then(|before| before.directory);
            return self.directory(node, below.as_ref(), path, depth + 1);
        };
        if attributes.links > 1 && attributes.file_type == FileType::Regular {
            if let Some(first) = self.names.get(&attributes.inode) {
                return (self.visit)(path, Change::HardLink(first.clone()), &attributes);
            }
            self.names.insert(attributes.inode, path.to_vec());
        }
        (self.visit)(path, change, &attributes)
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

fn looks_same(before: &Attributes, now: &Attributes) -> bool {
    let owners = |attributes: &Attributes| (attributes.file_type, attributes.permissions, attributes.uid, attributes.gid);
    // A directory's time changes with what is in it, which is told on its own.
    let times = now.file_type == FileType::Directory
        || (before.modified.tv_sec, before.modified.tv_nsec) == (now.modified.tv_sec, now.modified.tv_nsec);
    owners(before) == owners(now) && times
}
