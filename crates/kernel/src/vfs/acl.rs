//! POSIX access control lists, `acl(5)`: finer than permission bits, kept as extended attributes of a fixed form.

use std::sync::Arc;

use cloudpilot_abi::Errno;

use super::inode::{Attributes, FileType, Inode};
use crate::namespace::user::UserNamespace;
use crate::task::Credentials;

/// Who may do what with a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// What new entries of a directory get.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Version of the attribute's form.
const VERSION: u32 = 2;
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// The number of entries that are about nobody in particular.
const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    rights: u16,
    /// User or group, in the first namespace's numbers.
    id: u32,
}

/// A list, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// From an attribute's value, in the numbers of `user`; none for a list without entries.
    pub fn parse(value: &[u8], user: &UserNamespace) -> Result<Option<Self>, Errno> {
        let (version, rest) = value.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        if rest.len() % 8 != 0 {
            return Err(Errno::EINVAL);
        }
        let mut entries = Vec::new();
        for record in rest.chunks_exact(8) {
            let half = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
            let number = u32::from_le_bytes([record[4], record[5], record[6], record[7]]);
            let tag = half(0);
            let id = match tag {
                USER => user.user(number).ok_or(Errno::EINVAL)?,
                GROUP => user.group(number).ok_or(Errno::EINVAL)?,
                _ => NOBODY,
            };
            entries.push(Entry { tag, rights: half(2), id });
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let list = Self { entries };
        list.check_form().map(|()| Some(list))
    }

    /// In the order of `acl(5)`: the owner, users, the owning group, groups, a mask if there are any of the named, others.
    fn check_form(&self) -> Result<(), Errno> {
        let count = |tag| self.entries.iter().filter(|entry| entry.tag == tag).count();
        let sorted = self.entries.is_sorted_by_key(|entry| entry.tag);
        let rights = self.entries.iter().all(|entry| entry.rights & !7 == 0);
        let known = self.entries.iter().all(|entry| [OWNER, USER, OWNING_GROUP, GROUP, MASK, OTHERS].contains(&entry.tag));
        let once = count(OWNER) == 1 && count(OWNING_GROUP) == 1 && count(OTHERS) == 1 && count(MASK) <= 1;
        let masked = count(USER) + count(GROUP) == 0 || count(MASK) == 1;
        if sorted && rights && known && once && masked { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// The attribute's value, in the numbers of `user`.
    pub fn value(&self, user: &UserNamespace) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            let id = match entry.tag {
                USER => user.show_user(entry.id),
                GROUP => user.show_group(entry.id),
                _ => NOBODY,
            };
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.rights.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    fn rights(&self, tag: u16) -> Option<u32> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.rights))
    }

    /// The permission bits that stand for the list: the group's are the mask.
    pub fn permissions(&self) -> u32 {
        let group = self.rights(MASK).or_else(|| self.rights(OWNING_GROUP)).unwrap_or(0);
        self.rights(OWNER).unwrap_or(0) << 6 | group << 3 | self.rights(OTHERS).unwrap_or(0)
    }

    /// Whether it says no more than permission bits can.
    pub fn is_plain(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.tag, OWNER | OWNING_GROUP | OTHERS))
    }

    /// The list after `chmod(2)`.
    #[must_use]
    pub fn with_permissions(&self, permissions: u32) -> Self {
        let has_mask = self.rights(MASK).is_some();
        let mut list = self.clone();
        for entry in &mut list.entries {
            let shift = match entry.tag {
                OWNER => 6,
                MASK => 3,
                OWNING_GROUP if !has_mask => 3,
                OTHERS => 0,
                _ => continue,
            };
            entry.rights = (permissions >> shift & 7) as u16;
        }
        list
    }

    /// What a new file gets from its directory's default list when it is made with `permissions`: its own list and bits.
    pub fn inherited(&self, permissions: u32) -> (Self, u32) {
        let limited = self.with_permissions(self.permissions() & permissions);
        let bits = limited.permissions();
        (limited, permissions & !0o777 | bits)
    }

    /// Whether the list lets somebody who is not the owner do what is wanted.
    fn allows(&self, group: u32, credentials: &Credentials, wanted: u32) -> bool {
        let mask = self.rights(MASK).unwrap_or(7);
        let grants = |entry: &Entry, mask: u32| u32::from(entry.rights) & mask & wanted == wanted;
        if let Some(entry) = self.entries.iter().find(|entry| entry.tag == USER && entry.id == credentials.fsuid) {
            return grants(entry, mask);
        }
        let is_member = |entry: &&Entry| match entry.tag {
            OWNING_GROUP => credentials.in_group(group),
            GROUP => credentials.in_group(entry.id),
            _ => false,
        };
        let mut member = false;
        for entry in self.entries.iter().filter(is_member) {
            if grants(entry, mask) {
                return true;
            }
            member = true;
        }
        !member && self.rights(OTHERS).unwrap_or(0) & wanted == wanted
    }
}

/// What the list of an inode says to somebody, capabilities aside; none where permission bits say it all.
pub fn judge(inode: &Arc<dyn Inode>, attributes: &Attributes, credentials: &Credentials, wanted: u32) -> Option<bool> {
    // The owner's rights, and whether there are any for others, are in the bits.
    if credentials.fsuid == attributes.uid || attributes.permissions & 0o070 == 0 || attributes.file_type == FileType::Symlink {
        return None;
    }
    inode.acl(false).map(|list| list.allows(attributes.gid, credentials, wanted))
}

/// The permissions of something new in a directory: a default list takes the place of the umask.
pub fn masked(directory: &Arc<dyn Inode>, mode: u32, umask: u32) -> u32 {
    mode & 0o7777 & if directory.acl(true).is_some() { !0 } else { !umask }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::user;

    fn list(entries: &[(u16, u16, u32)]) -> Result<Option<Acl>, Errno> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&rights.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        Acl::parse(&value, user::first())
    }

    #[test]
    fn named_users_are_bounded_by_the_mask() {
        let list = list(&[(OWNER, 7, 0), (USER, 7, 5), (OWNING_GROUP, 4, 0), (MASK, 5, 0), (OTHERS, 0, 0)]).unwrap().unwrap();
        let five = Credentials::new(5, 5, Vec::new());
        assert_eq!((list.allows(9, &five, 5), list.allows(9, &five, 2)), (true, false));
        assert_eq!((list.permissions(), list.is_plain()), (0o750, false));
        assert_eq!(list.with_permissions(0o600).permissions(), 0o600);
        assert!(!list.allows(9, &Credentials::new(6, 6, Vec::new()), 4));
    }

    #[test]
    fn malformed_lists_are_refused() {
        assert_eq!(list(&[(OWNER, 7, 0)]), Err(Errno::EINVAL));
        assert_eq!(list(&[(OWNER, 7, 0), (USER, 7, 5), (OWNING_GROUP, 4, 0), (OTHERS, 0, 0)]), Err(Errno::EINVAL));
        assert_eq!(list(&[(OTHERS, 7, 0), (OWNER, 7, 0), (OWNING_GROUP, 4, 0)]), Err(Errno::EINVAL));
        assert_eq!(list(&[]), Ok(None));
    }
}
