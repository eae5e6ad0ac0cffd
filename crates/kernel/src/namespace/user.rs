//! User namespaces, `user_namespaces(7)`: which users and groups there are inside, and over what a capability holds.
//!
//! Everything in the kernel is kept in the numbers of the first namespace; a task's own numbers exist only in its arguments and answers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use cloudpilot_abi::{Errno, raw};
use parking_lot::RwLock;

use crate::task::Credentials;

/// What a number without a mapping is shown as, `/proc/sys/kernel/overflowuid`.
pub const OVERFLOW: u32 = 65_534;
/// Most namespaces within each other.
const DEEPEST: u32 = 32;
/// Most lines of one map.
const MOST_LINES: usize = 340;

/// One line of a map: numbers inside, in the namespace above, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    inside: u32,
    /// In the namespace above, as written.
    above: u32,
    /// In the first namespace.
    kernel: u32,
    count: u32,
}

#[derive(Clone, Debug, Default)]
struct Maps {
    users: Vec<Line>,
    groups: Vec<Line>,
    setgroups_denied: bool,
}

impl Maps {
    fn of(&self, which: Map) -> &[Line] {
        if which == Map::Users { &self.users } else { &self.groups }
    }
}

/// Which map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// `uid_map`.
    Users,
    /// `gid_map`.
    Groups,
}

/// A user namespace.
#[derive(Debug)]
pub struct UserNamespace {
    /// Its number, as `/proc/<pid>/ns/user` shows it.
    pub number: u64,
    /// The one it was made in; none for the first.
    pub parent: Option<Arc<UserNamespace>>,
    /// Who made it: has every capability over it, when in the parent.
    pub owner: u32,
    /// Its maker's group.
    group: u32,
    level: u32,
    maps: RwLock<Maps>,
    /// Most namespaces below it, `/proc/sys/user/max_user_namespaces`.
    most: AtomicU32,
    /// How many there are, however deep.
    below: AtomicU32,
}

/// How many user namespaces there may be below the first, as on a machine with 4 GiB of memory; below others only memory sets a limit.
const MOST_BELOW_FIRST: u32 = 15_000;

/// Counts one more below a namespace and all that it lies within; `ENOSPC` where that would be too many, with nothing counted.
fn count_below(parent: &Arc<UserNamespace>) -> Result<(), Errno> {
    for (index, namespace) in parent.outwards().enumerate() {
        let most = namespace.most();
        let grown = namespace.below.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |below| (below < most).then_some(below + 1));
        if grown.is_err() {
            for counted in parent.outwards().take(index) {
                counted.below.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(Errno::ENOSPC);
        }
    }
    Ok(())
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        for namespace in self.parent.iter().flat_map(UserNamespace::outwards) {
            namespace.below.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The first namespace, in which all numbers are their own.
pub fn first() -> &'static Arc<UserNamespace> {
    static FIRST: OnceLock<Arc<UserNamespace>> = OnceLock::new();
    FIRST.get_or_init(|| {
        Arc::new(UserNamespace {
            number: super::FIRST_USER,
            parent: None,
            owner: 0,
            group: 0,
            level: 0,
            maps: RwLock::default(),
            most: AtomicU32::new(MOST_BELOW_FIRST),
            below: AtomicU32::new(0),
        })
    })
}

fn inside(lines: &[Line], kernel: u32) -> Option<u32> {
    lines.iter().find(|line| kernel >= line.kernel && kernel - line.kernel < line.count).map(|line| line.inside + (kernel - line.kernel))
}

fn kernel(lines: &[Line], inside: u32) -> Option<u32> {
    lines.iter().find(|line| inside >= line.inside && inside - line.inside < line.count).map(|line| line.kernel + (inside - line.inside))
}

impl UserNamespace {
    /// A new one below that of `maker`.
    pub fn new(maker: &Credentials) -> Result<Arc<Self>, Errno> {
        let parent = &maker.user;
        if parent.level >= DEEPEST {
            return Err(Errno::ENOSPC);
        }
        count_below(parent)?;
        let maps = Maps { setgroups_denied: parent.maps.read().setgroups_denied, ..Maps::default() };
        let new = Arc::new(Self {
            number: super::new_number(),
            parent: Some(Arc::clone(parent)),
            owner: maker.euid,
            group: maker.egid,
            level: parent.level + 1,
            maps: RwLock::new(maps),
            most: AtomicU32::new(i32::MAX as u32),
            below: AtomicU32::new(0),
        });
        // Who is nobody in the namespace above could not be told from others there.
        let is_somebody = parent.user_inside(maker.euid).is_some() && parent.group_inside(maker.egid).is_some();
        if is_somebody { Ok(new) } else { Err(Errno::EPERM) }
    }

    /// Most namespaces below it.
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Sets how many there may be below it.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// It and those that it lies within, inmost first.
    fn outwards(self: &Arc<Self>) -> impl Iterator<Item = Arc<Self>> {
        std::iter::successors(Some(Arc::clone(self)), |namespace| namespace.parent.clone())
    }

    /// Whether it is the first.
    pub fn is_first(&self) -> bool {
        self.parent.is_none()
    }

    /// What a user is called inside.
    pub fn user_inside(&self, user: u32) -> Option<u32> {
        if self.is_first() { Some(user) } else { inside(&self.maps.read().users, user) }
    }

    /// What a group is called inside.
    pub fn group_inside(&self, group: u32) -> Option<u32> {
        if self.is_first() { Some(group) } else { inside(&self.maps.read().groups, group) }
    }

    /// The user that is called so inside.
    pub fn user(&self, number: u32) -> Option<u32> {
        if self.is_first() { Some(number) } else { kernel(&self.maps.read().users, number) }
    }

    /// The group that is called so inside.
    pub fn group(&self, number: u32) -> Option<u32> {
        if self.is_first() { Some(number) } else { kernel(&self.maps.read().groups, number) }
    }

    /// A user as it is shown inside.
    pub fn show_user(&self, user: u32) -> u32 {
        self.user_inside(user).unwrap_or(OVERFLOW)
    }

    /// A group as it is shown inside.
    pub fn show_group(&self, group: u32) -> u32 {
        self.group_inside(group).unwrap_or(OVERFLOW)
    }

    /// Whether a user is the root of this namespace.
    pub fn is_root(&self, user: u32) -> bool {
        if self.is_first() { user == 0 } else { self.user(0) == Some(user) }
    }

    /// Whether this is `other` or lies within it.
    pub fn is_within(&self, other: &Self) -> bool {
        let mut at = self;
        loop {
            if at.number == other.number {
                return true;
            }
            match &at.parent {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// Whether `setgroups(2)` works inside: not before there are groups, and not if it was given up.
    pub fn may_set_groups(&self) -> bool {
        let maps = self.maps.read();
        self.is_first() || !maps.setgroups_denied && !maps.groups.is_empty()
    }

    /// What `setgroups` reads.
    pub fn setgroups_text(&self) -> &'static str {
        if self.maps.read().setgroups_denied { "deny\n" } else { "allow\n" }
    }

    /// `/proc/<pid>/setgroups` is written.
    pub fn write_setgroups(&self, writer: &Credentials, text: &[u8]) -> Result<(), Errno> {
        let deny = match text.trim_ascii_end() {
            b"deny" => true,
            b"allow" => false,
            _ => return Err(Errno::EINVAL),
        };
        if !writer.has_in(self, raw::CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let mut maps = self.maps.write();
        if deny && !maps.groups.is_empty() && !maps.setgroups_denied || !deny && maps.setgroups_denied || self.is_first() && deny {
            return Err(Errno::EPERM);
        }
        maps.setgroups_denied = deny;
        Ok(())
    }

    /// What a map reads.
    pub fn map_text(&self, which: Map) -> String {
        let maps = self.maps.read();
        let lines = if which == Map::Users { &maps.users } else { &maps.groups };
        if self.is_first() {
            return format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX);
        }
        lines.iter().map(|line| format!("{:>10} {:>10} {:>10}\n", line.inside, line.above, line.count)).collect()
    }

    /// A map is written, once for all, by a task with these credentials.
    pub fn write_map(&self, which: Map, writer: &Credentials, text: &[u8]) -> Result<(), Errno> {
        let parent = self.parent.as_ref().ok_or(Errno::EPERM)?;
        let capability = if which == Map::Users { raw::CAP_SETUID } else { raw::CAP_SETGID };
        let mut maps = self.maps.write();
        if !maps.of(which).is_empty() {
            return Err(Errno::EPERM);
        }
        let mut lines = parse(text)?;
        drop(maps);
        let writes_from_here = writer.user.number == self.number || writer.user.number == parent.number;
        if !writes_from_here || !writer.has_in(self, raw::CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        for line in &mut lines {
            let last = line.above.checked_add(line.count - 1).ok_or(Errno::EINVAL)?;
            let find = |number| if which == Map::Users { parent.user(number) } else { parent.group(number) };
            let start = find(line.above).ok_or(Errno::EPERM)?;
            if find(last) != start.checked_add(line.count - 1) {
                return Err(Errno::EPERM);
            }
            line.kernel = start;
        }
        maps = self.maps.write();
        // Somebody else may have written meanwhile.
        if !maps.of(which).is_empty() {
            return Err(Errno::EPERM);
        }
        // Without privilege one maps oneself, nobody else.
        let own = match (which, lines.as_slice()) {
            (Map::Users, [line]) => line.count == 1 && line.kernel == writer.euid && self.owner == writer.euid,
            (Map::Groups, [line]) => line.count == 1 && line.kernel == writer.egid && self.owner == writer.euid && maps.setgroups_denied,
            _ => false,
        };
        if !own && !writer.has_in(parent, capability) {
            return Err(Errno::EPERM);
        }
        if which == Map::Users {
            maps.users = lines;
        } else {
            maps.groups = lines;
        }
        Ok(())
    }

    /// The group of who made it.
    pub fn owner_group(&self) -> u32 {
        self.group
    }
}

/// The lines of a map: three numbers each, none empty, none overlapping.
fn parse(text: &[u8]) -> Result<Vec<Line>, Errno> {
    let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let mut lines: Vec<Line> = Vec::new();
    for row in text.trim_end_matches('\n').split('\n') {
        let numbers: Vec<u32> = row.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| Errno::EINVAL)?;
        let [inside, above, count] = numbers[..] else { return Err(Errno::EINVAL) };
        let ends = |start: u32| u64::from(start) + u64::from(count);
        if count == 0 || ends(inside) > u64::from(u32::MAX) || ends(above) > u64::from(u32::MAX) || lines.len() >= MOST_LINES {
            return Err(Errno::EINVAL);
        }
        let overlaps =
            |one: u32, other: u32, length: u32| u64::from(one) < u64::from(other) + u64::from(length) && u64::from(other) < ends(one);
        if lines.iter().any(|line| overlaps(inside, line.inside, line.count) || overlaps(above, line.above, line.count)) {
            return Err(Errno::EINVAL);
        }
        lines.push(Line { inside, above, kernel: 0, count });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_translate_both_ways() {
        let lines = [Line { inside: 0, above: 1000, kernel: 1000, count: 1 }, Line { inside: 1, above: 5000, kernel: 5000, count: 10 }];
        assert_eq!((kernel(&lines, 0), inside(&lines, 1000)), (Some(1000), Some(0)));
        assert_eq!((kernel(&lines, 10), kernel(&lines, 11)), (Some(5009), None));
        assert_eq!((inside(&lines, 5009), inside(&lines, 999)), (Some(10), None));
    }

    #[test]
    fn bad_maps_are_refused() {
        for text in ["", "0 0", "0 0 0", "0 0 1\n0 5 1", "0 5 1\n9 5 1", "-1 0 1", "0 4294967295 2", "x y z"] {
            assert_eq!(parse(text.as_bytes()), Err(Errno::EINVAL), "{text}");
        }
        assert_eq!(parse(b"  0 1000 1\n").map(|lines| lines.len()), Ok(1));
    }
}
