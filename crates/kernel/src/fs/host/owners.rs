//! Whose files are whose in a root that was unpacked from an image. On the host all of them belong to whoever unpacked it, are readable, and have
//! no set-id bits; a table beside the root says what is different inside. Records end with NUL, each `MODE UID GID PATH`, the mode in octal
//! digits, the path relative to the root.

use std::collections::HashMap;
use std::sync::Arc;

use crate::vfs::inode::Attributes;

/// Deepest path of a record; deeper ones are left out. Dropping the table recurses over it.
const DEEPEST: usize = 512;

/// What the table says of one entry and those below it.
#[derive(Debug, Default)]
pub struct Owners {
    own: Option<Owner>,
    below: HashMap<Box<[u8]>, Arc<Self>>,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    permissions: u32,
    uid: u32,
    gid: u32,
}

impl Owners {
    /// Reads a table. Records that are not understood are left out: their entries look as they do on the host.
    pub fn parse(table: &[u8]) -> Arc<Self> {
        let mut top = Self::default();
        for record in table.split(|byte| *byte == 0) {
            let mut fields = record.splitn(4, |byte| *byte == b' ');
            let mut number = |radix| u32::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, radix).ok();
            let (Some(mode), Some(uid), Some(gid)) = (number(8), number(10), number(10)) else { continue };
            let Some(path) = fields.next() else { continue };
            if path.iter().filter(|byte| **byte == b'/').count() >= DEEPEST {
                continue;
            }
            let mut place = &mut top;
            for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                let next = place.below.entry(name.into()).or_default();
                // Nobody else has it yet.
                let Some(next) = Arc::get_mut(next) else { unreachable!() };
                place = next;
            }
            place.own = Some(Owner { permissions: mode & 0o7777, uid, gid });
        }
        Arc::new(top)
    }

    /// What is said of an entry.
    pub fn below(&self, name: &[u8]) -> Option<&Arc<Self>> {
        self.below.get(name)
    }

    /// Shows an entry as it is inside.
    pub fn apply(&self, attributes: &mut Attributes) {
        if let Some(owner) = self.own {
            attributes.permissions = owner.permissions;
            attributes.uid = owner.uid;
            attributes.gid = owner.gid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(owners: &Arc<Owners>, path: &str) -> Option<(u32, u32, u32)> {
        let found = path.split('/').filter(|name| !name.is_empty()).try_fold(owners, |place, name| place.below(name.as_bytes()))?;
        found.own.map(|owner| (owner.permissions, owner.uid, owner.gid))
    }

    #[test]
    fn records_are_found_by_path() {
        let owners = Owners::parse(b"4755 0 0 bin/su\x00700 5 6 \x00600 1000 1001 home/a b\nc\x00");
        assert_eq!(owner(&owners, "bin/su"), Some((0o4755, 0, 0)));
        assert_eq!(owner(&owners, ""), Some((0o700, 5, 6)));
        assert_eq!(owner(&owners, "home/a b\nc"), Some((0o600, 1000, 1001)));
        assert_eq!(owner(&owners, "bin"), None);
        assert_eq!(owner(&owners, "bin/other"), None);
    }

    #[test]
    fn nonsense_is_left_out() {
        let deep = "a/".repeat(DEEPEST + 1);
        let table = format!("x 0 0 a\0755 -1 0 b\0755 0\0755 0 0\0\0755 4294967296 0 c\0755 1 1 {deep}\0755 1 1 d");
        let owners = Owners::parse(table.as_bytes());
        assert_eq!(owners.below.len(), 1);
        assert_eq!(owner(&owners, "d"), Some((0o755, 1, 1)));
    }
}
