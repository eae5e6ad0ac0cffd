//! Who a task is, `credentials(7)`.

use std::sync::Arc;

use crate::namespace::user::{self, UserNamespace};
use crate::vfs::Attributes;

/// Capabilities that exist, `CAP_LAST_CAP` + 1 of them.
pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// User and group numbers (those of the first user namespace) and capabilities of a task; replaced as a whole, never changed in place.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names are the manual page's")]
pub struct Credentials {
    pub ruid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub rgid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Arc<[u32]>,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
    pub no_new_privs: bool,
    pub user: Arc<UserNamespace>,
}

impl Credentials {
    /// A user with its group; user 0 has every capability inside the sandbox.
    pub fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        let capabilities = if uid == 0 { ALL_CAPABILITIES } else { 0 };
        Self {
            ruid: uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            rgid: gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: groups.into(),
            permitted: capabilities,
            effective: capabilities,
            inheritable: 0,
            bounding: ALL_CAPABILITIES,
            ambient: 0,
            securebits: 0,
            no_new_privs: false,
            user: Arc::clone(user::first()),
        }
    }

    /// Whether a capability (`CAP_*` number) is effective for what belongs to the machine as a whole.
    pub fn has(&self, capability: u32) -> bool {
        self.user.is_first() && self.has_here(capability)
    }

    /// Whether a capability is effective in the task's own user namespace.
    pub fn has_here(&self, capability: u32) -> bool {
        self.effective & (1 << capability) != 0
    }

    /// Whether a capability is effective for what belongs to a user namespace: one's own, or one below, whose maker has all.
    pub fn has_in(&self, namespace: &UserNamespace, capability: u32) -> bool {
        let mut at = namespace;
        loop {
            if at.number == self.user.number {
                return self.has_here(capability);
            }
            let Some(parent) = &at.parent else { return false };
            if parent.number == self.user.number && at.owner == self.euid {
                return true;
            }
            at = parent;
        }
    }

    /// Whether a capability is effective for a file: its owner and group must exist in the task's user namespace.
    pub fn has_over(&self, attributes: &Attributes, capability: u32) -> bool {
        let exists = || self.user.user_inside(attributes.uid).is_some() && self.user.group_inside(attributes.gid).is_some();
        self.has_here(capability) && (self.user.is_first() || exists())
    }

    /// The same user as the first task of a new user namespace, or as one that enters it: with all capabilities there, and none elsewhere.
    pub fn entering(&self, namespace: &Arc<UserNamespace>) -> Self {
        Self {
            permitted: ALL_CAPABILITIES,
            effective: ALL_CAPABILITIES,
            bounding: ALL_CAPABILITIES,
            inheritable: 0,
            ambient: 0,
            securebits: 0,
            user: Arc::clone(namespace),
            ..self.clone()
        }
    }

    /// Whether a group is among the file-system group and the supplementary ones.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
