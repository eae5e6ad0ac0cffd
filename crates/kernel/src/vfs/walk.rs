//! The path walk, `path_resolution(7)`.

use std::sync::Arc;

use cloudpilot_abi::Errno;

use super::inode::{FileType, LinkTarget};
use super::name::{Name, Path};
use super::permission::{self, EXECUTE};
use crate::Kernel;
use crate::task::{Credentials, Task};

/// Most symbolic links followed in one walk.
const MAX_LINKS: u32 = 40;
/// Longest component.
pub const NAME_MAX: usize = 255;

/// Where a walk starts and who walks.
pub struct Walk<'a> {
    /// The machine.
    pub kernel: &'a Kernel,
    /// What `/` means.
    pub root: Path,
    /// Where relative paths start.
    pub start: Path,
    /// Who.
    pub credentials: Arc<Credentials>,
    /// The task, for links that depend on it (`/proc/self`).
    pub task: &'a Arc<Task>,
    /// `RESOLVE_*` of `openat2(2)`.
    pub resolve: u64,
}

/// The last step of a walk that may make or remove a name.
pub struct Parent {
    /// The directory.
    pub directory: Path,
    /// The last component; `.`, `..` or empty (the root) for paths that name no entry of a directory.
    pub component: Vec<u8>,
    /// The path ended in a slash.
    pub trailing_slash: bool,
}

impl Parent {
    /// Whether the component can be an entry.
    pub fn is_entry(&self) -> bool {
        !matches!(self.component.as_slice(), b"" | b"." | b"..")
    }
}

const RESOLVE_NO_XDEV: u64 = 1;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_NO_SYMLINKS: u64 = 4;
const RESOLVE_BENEATH: u64 = 8;
const RESOLVE_IN_ROOT: u64 = 16;

struct Progress {
    at: Path,
    links: u32,
}

impl<'a> Walk<'a> {
    /// A walk of a task from its working directory.
    pub fn of(task: &'a Arc<Task>) -> Self {
        let fs = task.fs();
        Self { kernel: &task.kernel, root: fs.root, start: fs.cwd, credentials: task.credentials(), task, resolve: 0 }
    }

    /// The same from another directory (`openat(2)` and friends).
    pub fn from(task: &'a Arc<Task>, start: Path) -> Self {
        Self { start, ..Self::of(task) }
    }

    /// Finds what a path leads to. `follow`: whether a link at its end is followed (a trailing slash always does). Empty paths are `ENOENT`.
    pub fn lookup(&self, path: &[u8], follow: bool) -> Result<Path, Errno> {
        let mut progress = self.begin(path)?;
        let trailing_slash = path.ends_with(b"/");
        self.go(&mut progress, path, follow || trailing_slash)?;
        if trailing_slash && progress.at.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(progress.at)
    }

    /// Finds the directory that a path's last component is looked up in.
    pub fn parent(&self, path: &[u8]) -> Result<Parent, Errno> {
        let mut progress = self.begin(path)?;
        self.parent_from(&mut progress, path)
    }

    fn parent_from(&self, progress: &mut Progress, path: &[u8]) -> Result<Parent, Errno> {
        let trimmed = trim_slashes(path);
        let trailing_slash = trimmed.len() < path.len() && !trimmed.is_empty();
        let split = trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (head, component) = trimmed.split_at(split);
        self.go(progress, head, true)?;
        if progress.at.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if component.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        permission::check(progress.at.inode(), &self.credentials, EXECUTE)?;
        Ok(Parent { directory: progress.at.clone(), component: component.to_vec(), trailing_slash })
    }

    /// For `open(O_CREAT)`: like [`parent`](Self::parent), but a link as last component is followed to where the file would be made. Answers the
    /// parent and, if it exists, what the component leads to.
    pub fn parent_following(&self, path: &[u8]) -> Result<(Parent, Option<Path>), Errno> {
        let mut progress = self.begin(path)?;
        let mut path = path.to_vec();
        loop {
            let parent = self.parent_from(&mut progress, &path)?;
            if !parent.is_entry() {
                let at = self.step(&parent.directory, &parent.component)?;
                return Ok((parent, Some(at)));
            }
            // A file is not made where a directory is named, nor through a link that is named so.
            if parent.trailing_slash {
                return Err(Errno::EISDIR);
            }
            let at = match self.step(&parent.directory, &parent.component) {
                Ok(at) => at,
                Err(Errno::ENOENT) => return Ok((parent, None)),
                Err(errno) => return Err(errno),
            };
            if at.inode().file_type() != FileType::Symlink {
                return Ok((parent, Some(at)));
            }
            match self.read_link(&mut progress, &at)? {
                LinkTarget::Text(text) => {
                    progress.at = parent.directory;
                    if text.starts_with(b"/") {
                        progress.at = self.root.clone();
                    }
                    path = text;
                }
                LinkTarget::Place { path: place, inode, .. } => {
                    let place = self.place(&at, place, inode)?;
                    return Ok((parent, Some(place)));
                }
            }
        }
    }

    fn begin(&self, path: &[u8]) -> Result<Progress, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.starts_with(b"/") && self.resolve & RESOLVE_BENEATH != 0 {
            return Err(Errno::EXDEV);
        }
        let at = if path.starts_with(b"/") && self.resolve & RESOLVE_IN_ROOT == 0 { self.root.clone() } else { self.start.clone() };
        Ok(Progress { at, links: 0 })
    }

    /// What bounds `..`.
    fn ceiling(&self) -> &Path {
        if self.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) != 0 { &self.start } else { &self.root }
    }

    fn go(&self, progress: &mut Progress, path: &[u8], follow_last: bool) -> Result<(), Errno> {
        let mut components = path.split(|&byte| byte == b'/').filter(|component| !component.is_empty()).peekable();
        while let Some(component) = components.next() {
            if component.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            if progress.at.inode().file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            permission::check(progress.at.inode(), &self.credentials, EXECUTE)?;
            let next = self.step(&progress.at, component)?;
            let last = components.peek().is_none();
            if next.inode().file_type() == FileType::Symlink && (follow_last || !last) {
                self.follow(progress, &next)?;
            } else {
                progress.at = next;
            }
        }
        Ok(())
    }

    /// One component, links not followed.
    fn step(&self, directory: &Path, component: &[u8]) -> Result<Path, Errno> {
        match component {
            b"" | b"." => return Ok(directory.clone()),
            b".." => return self.up(directory),
            _ => {}
        }
        let name = directory.name.child(component)?;
        let path = self.kernel.mounts.descend(Path { mount: Arc::clone(&directory.mount), name });
        if self.resolve & RESOLVE_NO_XDEV != 0 && !Arc::ptr_eq(&path.mount, &directory.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(path)
    }

    fn up(&self, directory: &Path) -> Result<Path, Errno> {
        let mut at = directory.clone();
        if at.is(self.ceiling()) {
            return if self.resolve & RESOLVE_BENEATH != 0 { Err(Errno::EXDEV) } else { Ok(at) };
        }
        while Arc::ptr_eq(&at.name, &at.mount.root) {
            match at.mount.attached() {
                Some(place) => at = place,
                None => return Ok(directory.clone()),
            }
            if at.is(self.ceiling()) {
                return Ok(at);
            }
        }
        if let Some(parent) = at.name.parent() {
            at.name = parent;
        }
        Ok(self.kernel.mounts.descend(at))
    }

    fn read_link(&self, progress: &mut Progress, link: &Path) -> Result<LinkTarget, Errno> {
        progress.links += 1;
        if progress.links > MAX_LINKS || self.resolve & RESOLVE_NO_SYMLINKS != 0 {
            return Err(Errno::ELOOP);
        }
        if link.mount.flags() & super::mount::NO_LINKS != 0 {
            return Err(Errno::ELOOP);
        }
        link.inode().read_link(self.task)
    }

    fn follow(&self, progress: &mut Progress, link: &Path) -> Result<(), Errno> {
        match self.read_link(progress, link)? {
            LinkTarget::Text(text) => {
                if text.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if text.starts_with(b"/") {
                    if self.resolve & RESOLVE_BENEATH != 0 {
                        return Err(Errno::EXDEV);
                    }
                    progress.at = if self.resolve & RESOLVE_IN_ROOT != 0 { self.start.clone() } else { self.root.clone() };
                }
                self.go(progress, &text, true)?;
                if text.ends_with(b"/") && progress.at.inode().file_type() != FileType::Directory {
                    return Err(Errno::ENOTDIR);
                }
                Ok(())
            }
            LinkTarget::Place { path, inode, .. } => {
                progress.at = self.place(link, path, inode)?;
                Ok(())
            }
        }
    }

    /// Where a magic link leads.
    fn place(&self, link: &Path, path: Option<Path>, inode: Option<Arc<dyn super::Inode>>) -> Result<Path, Errno> {
        if self.resolve & (RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT) != 0 {
            return Err(if self.resolve & RESOLVE_NO_MAGICLINKS != 0 { Errno::ELOOP } else { Errno::EXDEV });
        }
        match (path, inode) {
            (Some(path), _) => Ok(path),
            // A thing without a name (pipe, socket): a name of its own stands for it during the walk.
            (None, Some(inode)) => Ok(Path { mount: Arc::clone(&link.mount), name: Name::root(inode) }),
            (None, None) => Err(Errno::ENOENT),
        }
    }
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    &path[..end]
}
