//! Directories: own entries over those of a lower directory.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};
use parking_lot::Mutex;

use super::node::{Body, Node, State};
use crate::fs::host::HostDirectory;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{DirectorySink, FileType, Inode};

/// A directory's contents. Entries of the lower directory are entered when they are first looked up; a name that is known to be absent (never
/// there, or removed) is remembered, since the lower directory does not change.
pub struct Directory {
    entries: HashMap<Box<[u8]>, Arc<Node>>,
    lower: Option<Arc<HostDirectory>>,
    absent: HashMap<Box<[u8]>, ()>,
    /// Entries in the order they came, for stable reading.
    order: BTreeMap<u64, Box<[u8]>>,
    places: HashMap<Box<[u8]>, u64>,
    next: u64,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // One directory after the other, not inside each other's drop: a deep tree would exhaust the stack.
        let mut dead: Vec<Arc<Node>> = self.entries.drain().map(|(_, node)| node).collect();
        while let Some(node) = dead.pop() {
            if let Some(mut node) = Arc::into_inner(node)
                && let Body::Directory(directory) = &mut node.state.get_mut().body
            {
                dead.extend(directory.entries.drain().map(|(_, node)| node));
            }
        }
    }
}

/// Names known to be absent that one directory remembers; past it they are asked for again. A guest that probes random names must not make
/// the kernel process grow.
const MOST_ABSENT: usize = 4096;

impl Directory {
    pub(super) fn new(lower: Option<Arc<HostDirectory>>) -> Self {
        Self { entries: HashMap::new(), lower, absent: HashMap::new(), order: BTreeMap::new(), places: HashMap::new(), next: 3 }
    }

    /// Own entries, those looked up below included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, name: &[u8], node: Arc<Node>) -> Option<Arc<Node>> {
        self.absent.remove(name);
        if !self.places.contains_key(name) {
            self.order.insert(self.next, name.into());
            self.places.insert(name.into(), self.next);
            self.next += 1;
        }
        self.entries.insert(name.into(), node)
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<Node>> {
        if let Some(place) = self.places.remove(name) {
            self.order.remove(&place);
        }
        if self.lower.is_some() {
            // Not subject to the bound below: forgetting a removal would bring the lower entry back.
            self.absent.insert(name.into(), ());
        }
        self.entries.remove(name)
    }

    /// Enters everything that the lower directory lists, after which it is needed no more.
    fn absorb(&mut self, filesystem: &Arc<super::Tmpfs>) -> Result<(), Errno> {
        let Some(lower) = self.lower.clone() else { return Ok(()) };
        let mut names = lower.list()?;
        names.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, ..) in names {
            if self.entries.contains_key(name.as_slice()) || self.absent.contains_key(name.as_slice()) {
                continue;
            }
            if let Ok(entry) = lower.find(&name) {
                let node = Node::from_lower(filesystem, &lower, &name, entry);
                self.insert(&name, node);
            }
        }
        self.lower = None;
        self.absent = HashMap::new();
        Ok(())
    }
}

/// Finds an entry in a locked directory; the lower directory is asked at the first time.
fn find_in(node: &Node, state: &mut State, name: &[u8]) -> Result<Arc<Node>, Errno> {
    let Body::Directory(directory) = &mut state.body else { return Err(Errno::ENOTDIR) };
    if let Some(found) = directory.entries.get(name) {
        return Ok(Arc::clone(found));
    }
    let Some(lower) = directory.lower.clone() else { return Err(Errno::ENOENT) };
    if directory.absent.contains_key(name) {
        return Err(Errno::ENOENT);
    }
    match lower.find(name) {
        Ok(entry) => {
            let found = Node::from_lower(&node.filesystem, &lower, name, entry);
            directory.insert(name, Arc::clone(&found));
            Ok(found)
        }
        Err(errno) => {
            if errno == Errno::ENOENT && directory.absent.len() < MOST_ABSENT {
                directory.absent.insert(name.into(), ());
            }
            Err(errno)
        }
    }
}

fn is_empty(node: &Node) -> Result<bool, Errno> {
    let mut state = node.state.write();
    let Body::Directory(directory) = &mut state.body else { return Err(Errno::ENOTDIR) };
    if directory.entries.is_empty() {
        directory.absorb(&node.filesystem)?;
    }
    Ok(directory.entries.is_empty())
}

impl Node {
    /// A directory's own entries, and the names of `lower` that it shows no more. What it would show of another directory than that one is
    /// entered first; what it shows of that one and nobody has looked up yet is in neither list.
    pub(super) fn contents_over(&self, lower: Option<&Arc<HostDirectory>>) -> Result<(Vec<(Vec<u8>, Arc<Self>)>, HashSet<Vec<u8>>), Errno> {
        let mut state = self.state.write();
        let Body::Directory(directory) = &mut state.body else { return Err(Errno::ENOTDIR) };
        let over_it = directory.lower.as_ref().zip(lower).is_some_and(|(own, lower)| own.is_same(lower));
        if !over_it {
            directory.absorb(&self.filesystem)?;
        }
        let entries: Vec<_> = directory.entries.iter().map(|(name, node)| (name.to_vec(), Arc::clone(node))).collect();
        let gone: HashSet<Vec<u8>> = match lower {
            _ if over_it => directory.absent.keys().map(|name| name.to_vec()).collect(),
            Some(lower) => {
                lower.list()?.into_iter().map(|(name, ..)| name).filter(|name| !directory.entries.contains_key(&name[..])).collect()
            }
            None => HashSet::new(),
        };
        Ok((entries, gone))
    }

    pub(super) fn find(&self, name: &[u8]) -> Result<Arc<Self>, Errno> {
        if let Body::Directory(directory) = &self.state.read().body {
            if let Some(found) = directory.entries.get(name) {
                return Ok(Arc::clone(found));
            }
            if directory.lower.is_none() || directory.absent.contains_key(name) {
                return Err(Errno::ENOENT);
            }
        }
        find_in(self, &mut self.state.write(), name)
    }

    /// Enters a node under a free name.
    pub(super) fn add(&self, name: &[u8], node: &Arc<Self>) -> Result<(), Errno> {
        let mut state = self.state.write();
        if find_in(self, &mut state, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        // A directory that was removed takes no new entries.
        if state.links == 0 {
            return Err(Errno::ENOENT);
        }
        let Body::Directory(directory) = &mut state.body else { return Err(Errno::ENOTDIR) };
        directory.insert(name, Arc::clone(node));
        if node.file_type() == FileType::Directory {
            state.links += 1;
        }
        touch(&mut state);
        Ok(())
    }

    /// Removes an entry: a directory if `directory`, anything else if not.
    pub(super) fn take(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let mut state = self.state.write();
        let node = find_in(self, &mut state, name)?;
        match (node.file_type() == FileType::Directory, directory) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            (true, true) if !is_empty(&node)? => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        if let Body::Directory(entries) = &mut state.body {
            entries.remove(name);
        }
        if directory {
            state.links -= 1;
        }
        touch(&mut state);
        drop(state);
        unlinked(&node);
        Ok(())
    }
}

/// A node has lost a name.
fn unlinked(node: &Node) {
    let mut state = node.state.write();
    state.links = if node.file_type() == FileType::Directory { 0 } else { state.links.saturating_sub(1) };
    state.changed = crate::time::realtime();
}

fn touch(state: &mut State) {
    let now = crate::time::realtime();
    state.modified = now;
    state.changed = now;
}

/// Renames between (or within) directories of one filesystem. The caller holds the rename lock and has excluded loops.
pub(super) fn rename(old_parent: &Node, name: &[u8], new_parent: &Arc<Node>, new_name: &[u8], flags: u32) -> Result<(), Errno> {
    let node = old_parent.find(name)?;
    let replaced = match new_parent.find(new_name) {
        Ok(found) => Some(found),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno),
    };
    let is_directory = |node: &Node| node.file_type() == FileType::Directory;
    if flags & raw::RENAME_EXCHANGE != 0 {
        let other = replaced.ok_or(Errno::ENOENT)?;
        put(old_parent, name, Some(&other), is_directory(&node))?;
        return put(new_parent, new_name, Some(&node), is_directory(&other));
    }
    if let Some(target) = &replaced {
        if flags & raw::RENAME_NOREPLACE != 0 {
            return Err(Errno::EEXIST);
        }
        if Arc::ptr_eq(target, &node) {
            return Ok(());
        }
        match (is_directory(&node), is_directory(target)) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !is_empty(target)? => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
    }
    if new_parent.state.read().links == 0 {
        return Err(Errno::ENOENT);
    }
    put(old_parent, name, None, is_directory(&node))?;
    put(new_parent, new_name, Some(&node), replaced.as_ref().is_some_and(|target| is_directory(target)))?;
    if let Some(target) = replaced {
        unlinked(&target);
    }
    node.state.write().changed = crate::time::realtime();
    Ok(())
}

/// Sets what a name leads to, keeping the directory's link count.
fn put(parent: &Node, name: &[u8], node: Option<&Arc<Node>>, was_directory: bool) -> Result<(), Errno> {
    let mut state = parent.state.write();
    let Body::Directory(directory) = &mut state.body else { return Err(Errno::ENOTDIR) };
    directory.remove(name);
    let mut is_directory = false;
    if let Some(node) = node {
        directory.insert(name, Arc::clone(node));
        is_directory = node.file_type() == FileType::Directory;
    }
    state.links = state.links + u64::from(is_directory) - u64::from(was_directory);
    touch(&mut state);
    Ok(())
}

/// An open directory.
pub struct OpenDirectory {
    node: Arc<Node>,
    /// Whether the lower directory has been taken in; its listing comes first, so that cursors stay valid.
    complete: Mutex<bool>,
}

impl OpenDirectory {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, complete: Mutex::new(false) }
    }
}

impl FileOps for OpenDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn end_of_file(&self, _file: &File) -> Result<u64, Errno> {
        Ok(i64::MAX as u64)
    }

    fn read(&self, _file: &File, _destination: &mut crate::io::Destination<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn read_directory(&self, file: &File, cursor: u64, sink: &mut DirectorySink<'_>) -> Result<(), Errno> {
        let mut complete = self.complete.lock();
        if !*complete {
            let mut state = self.node.state.write();
            if let Body::Directory(directory) = &mut state.body {
                directory.absorb(&self.node.filesystem)?;
            }
            *complete = true;
        }
        self.node.note_read(file);
        let own = self.node.attributes()?.inode;
        let parent = file.path.as_ref().and_then(|path| path.name.parent());
        let parent = parent.and_then(|parent| parent.inode.attributes().ok()).map_or(own, |attributes| attributes.inode);
        if cursor < 1 && !sink(b".", own, FileType::Directory, 1) || cursor < 2 && !sink(b"..", parent, FileType::Directory, 2) {
            return Ok(());
        }
        let state = self.node.state.read();
        let Body::Directory(directory) = &state.body else { return Err(Errno::ENOTDIR) };
        for (place, name) in directory.order.range(cursor.max(3)..) {
            let Some(node) = directory.entries.get(name) else { continue };
            if !sink(name, node.attributes()?.inode, node.file_type(), place + 1) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
}
