//! Who a task is, `credentials(7)`.

/// Capabilities that exist, `CAP_LAST_CAP` + 1 of them.
pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// User and group numbers and capabilities of a task; replaced as a whole, never changed in place.
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
    pub groups: Vec<u32>,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
    pub no_new_privs: bool,
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
            groups,
            permitted: capabilities,
            effective: capabilities,
            inheritable: 0,
            bounding: ALL_CAPABILITIES,
            ambient: 0,
            securebits: 0,
            no_new_privs: false,
        }
    }

    /// Whether a capability (`CAP_*` number) is effective.
    pub fn has(&self, capability: u32) -> bool {
        self.effective & (1 << capability) != 0
    }

    /// Whether a group is among the file-system group and the supplementary ones.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
