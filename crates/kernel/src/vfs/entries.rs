//! Making, removing and renaming entries of directories, after a call's arguments are decoded.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::inode::{FileType, NewNode};
use super::name::{Name, Path};
use super::walk::{Parent, Walk};
use super::{acl, permission, watch};

/// The directory and free name for something new; `EEXIST` for what cannot be a new name.
pub fn new_name(walk: &Walk<'_>, path: &[u8], directory: bool) -> Result<Parent, Errno> {
    let parent = walk.parent(path)?;
    if !parent.is_entry() {
        return Err(Errno::EEXIST);
    }
    if parent.directory.name.child(&parent.component).is_ok() {
        return Err(Errno::EEXIST);
    }
    if parent.trailing_slash && !directory {
        return Err(Errno::ENOENT);
    }
    permission::check_directory_change(&parent.directory, &walk.credentials)?;
    Ok(parent)
}

/// Makes an entry; the walking task's umask applies.
pub fn make(walk: &Walk<'_>, path: &[u8], node: NewNode<'_>, mode: u32) -> Result<(), Errno> {
    let file_type = match node {
        NewNode::File => FileType::Regular,
        NewNode::Directory => FileType::Directory,
        NewNode::Symlink(_) => FileType::Symlink,
        NewNode::Fifo => FileType::Fifo,
        NewNode::Socket => FileType::Socket,
        NewNode::Device(file_type, _) => file_type,
    };
    let parent = new_name(walk, path, file_type == FileType::Directory)?;
    let directory = parent.directory.inode();
    let permissions = acl::masked(directory, mode, walk.task.fs().umask);
    let inode = directory.create(&parent.component, node, permissions, &walk.credentials)?;
    let _ = parent.directory.name.adopt(&parent.component, inode);
    watch::entry_event(&**directory, &parent.component, file_type, raw::IN_CREATE, 0);
    Ok(())
}

/// Gives a file another name.
pub fn link(place: &Path, walk: &Walk<'_>, path: &[u8]) -> Result<(), Errno> {
    let parent = new_name(walk, path, false)?;
    if !Arc::ptr_eq(&place.mount, &parent.directory.mount) {
        return Err(Errno::EXDEV);
    }
    if place.inode().file_type() == FileType::Directory {
        return Err(Errno::EPERM);
    }
    check_link_source(place.inode(), &walk.credentials)?;
    let directory = parent.directory.inode();
    directory.link(&parent.component, place.inode())?;
    let _ = parent.directory.name.adopt(&parent.component, Arc::clone(place.inode()));
    watch::entry_event(&**directory, &parent.component, place.inode().file_type(), raw::IN_CREATE, 0);
    place.inode().common().watches.notify(raw::IN_ATTRIB, 0, None);
    Ok(())
}

/// `fs.protected_hardlinks`: who does not own a file links it only if it is a plain one that he might write to anyway.
fn check_link_source(inode: &std::sync::Arc<dyn super::inode::Inode>, credentials: &crate::task::Credentials) -> Result<(), Errno> {
    let attributes = inode.attributes()?;
    if permission::is_owner(&attributes, credentials) {
        return Ok(());
    }
    let special = attributes.permissions & 0o4000 != 0 || attributes.permissions & 0o2010 == 0o2010;
    let usable = permission::check_attributes(&attributes, credentials, permission::READ | permission::WRITE).is_ok();
    if attributes.file_type == FileType::Regular && !special && usable { Ok(()) } else { Err(Errno::EPERM) }
}

/// Removes an entry: a directory (`rmdir(2)`) or anything else (`unlink(2)`).
pub fn remove(walk: &Walk<'_>, path: &[u8], directory: bool) -> Result<(), Errno> {
    let parent = walk.parent(path)?;
    if !parent.is_entry() {
        return Err(match (directory, parent.component.as_slice()) {
            (false, _) => Errno::EISDIR,
            (true, b".") => Errno::EINVAL,
            (true, b"..") => Errno::ENOTEMPTY,
            (true, _) => Errno::EBUSY,
        });
    }
    let name = parent.directory.name.child(&parent.component)?;
    let file_type = name.inode.file_type();
    permission::check_directory_change(&parent.directory, &walk.credentials)?;
    permission::check_sticky(parent.directory.inode(), &name.inode, &walk.credentials)?;
    match (directory, file_type == FileType::Directory) {
        (false, true) => return Err(Errno::EISDIR),
        (true, false) => return Err(Errno::ENOTDIR),
        (false, false) if parent.trailing_slash => return Err(Errno::ENOTDIR),
        _ => {}
    }
    if walk.kernel.mounts.is_covered(&parent.directory.mount, &name) {
        return Err(Errno::EBUSY);
    }
    let inode = parent.directory.inode();
    if directory {
        inode.rmdir(&parent.component)?
    } else {
        inode.unlink(&parent.component)?
    }
    parent.directory.name.forget(&parent.component);
    if directory {
        watch::name_removed(&*name.inode);
    } else {
        name.inode.common().watches.notify(raw::IN_ATTRIB, 0, None);
    }
    watch::entry_event(&**inode, &parent.component, file_type, raw::IN_DELETE, 0);
    if !directory {
        watch::name_removed(&*name.inode);
    }
    Ok(())
}

/// Renames; `flags` are `RENAME_NOREPLACE` and `RENAME_EXCHANGE`.
pub fn rename((old, old_path): (&Walk<'_>, &[u8]), (new, new_path): (&Walk<'_>, &[u8]), flags: u32) -> Result<(), Errno> {
    let exchange = flags & raw::RENAME_EXCHANGE != 0;
    if exchange && flags & raw::RENAME_NOREPLACE != 0 {
        return Err(Errno::EINVAL);
    }
    let from = old.parent(old_path)?;
    let to = new.parent(new_path)?;
    if !Arc::ptr_eq(&from.directory.mount, &to.directory.mount) {
        return Err(Errno::EXDEV);
    }
    if !from.is_entry() || !to.is_entry() {
        return Err(Errno::EBUSY);
    }
    let _guard = old.kernel.mounts.rename.lock();
    let credentials = &old.credentials;
    let source = from.directory.name.child(&from.component)?;
    let target = to.directory.name.child(&to.component).ok();
    match &target {
        Some(_) if flags & raw::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
        Some(target) if exchange && to.trailing_slash && target.inode.file_type() != FileType::Directory => return Err(Errno::ENOTDIR),
        None if exchange => return Err(Errno::ENOENT),
        _ => {}
    }
    let is_directory = source.inode.file_type() == FileType::Directory;
    if !is_directory && (from.trailing_slash || to.trailing_slash && !exchange) {
        return Err(Errno::ENOTDIR);
    }
    permission::check_directory_change(&from.directory, credentials)?;
    permission::check_sticky(from.directory.inode(), &source.inode, credentials)?;
    permission::check_directory_change(&to.directory, credentials)?;
    if let Some(target) = &target {
        permission::check_sticky(to.directory.inode(), &target.inode, credentials)?;
    }
    // No directory may move below itself.
    if is_directory && to.directory.name.is_below(&source) {
        return Err(Errno::EINVAL);
    }
    if let Some(target) = &target {
        if from.directory.name.is_below(target) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if Arc::ptr_eq(&source.inode, &target.inode) {
            return Ok(());
        }
    }
    for (directory, name) in [(&from.directory, Some(&source)), (&to.directory, target.as_ref())] {
        if name.is_some_and(|name| old.kernel.mounts.is_covered(&directory.mount, name)) {
            return Err(Errno::EBUSY);
        }
    }
    from.directory.inode().rename(&from.component, to.directory.inode(), &to.component, flags)?;
    match (&target, exchange) {
        (Some(target), true) => Name::exchange(&source, target),
        _ => Name::move_to(&source, &to.directory.name, &to.component),
    }
    let cookie = watch::next_cookie();
    let kind = source.inode.file_type();
    watch::entry_event(&**from.directory.inode(), &from.component, kind, raw::IN_MOVED_FROM, cookie);
    watch::entry_event(&**to.directory.inode(), &to.component, kind, raw::IN_MOVED_TO, cookie);
    if let (Some(target), false) = (&target, exchange) {
        target.inode.common().watches.notify(raw::IN_ATTRIB, 0, None);
    }
    source.inode.common().watches.notify(raw::IN_MOVE_SELF, 0, None);
    match &target {
        Some(target) if exchange => {
            let (kind, cookie) = (target.inode.file_type(), watch::next_cookie());
            watch::entry_event(&**to.directory.inode(), &to.component, kind, raw::IN_MOVED_FROM, cookie);
            watch::entry_event(&**from.directory.inode(), &from.component, kind, raw::IN_MOVED_TO, cookie);
            target.inode.common().watches.notify(raw::IN_MOVE_SELF, 0, None);
        }
        Some(target) => watch::name_removed(&*target.inode),
        None => {}
    }
    Ok(())
}
