//! Memory policies, `set_mempolicy(2)`: of all nodes there is only number 0, so that they are kept, told, and change nothing.

use cloudpilot_abi::Errno;

/// What a policy is without its flags.
pub const DEFAULT: i32 = 0;
/// One node before others.
pub const PREFERRED: i32 = 1;
/// These nodes and no others.
pub const BIND: i32 = 2;
/// One page after the other on these nodes.
pub const INTERLEAVE: i32 = 3;
/// The node of whoever touches a page.
pub const LOCAL: i32 = 4;
/// Some nodes before others.
pub const PREFERRED_MANY: i32 = 5;
/// Interleaved by weight, the last that there is.
pub const WEIGHTED_INTERLEAVE: i32 = 6;
/// `MPOL_F_NUMA_BALANCING`, `MPOL_F_RELATIVE_NODES`, `MPOL_F_STATIC_NODES`.
const BALANCING: i32 = 1 << 13;
const RELATIVE: i32 = 1 << 14;
const STATIC: i32 = 1 << 15;

/// A policy that is not the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Kind.
    pub kind: i32,
    flags: i32,
}

impl Policy {
    /// What a call asks for; none for the default. `nodes` holds the words of the mask.
    ///
    /// # Errors
    ///
    /// `EINVAL` for kinds and flags that do not exist, and for nodes that do not fit.
    pub fn parse(mode: i32, nodes: &[u64]) -> Result<Option<Self>, Errno> {
        let flags = mode & (BALANCING | RELATIVE | STATIC);
        let kind = mode & !flags;
        let fixed = flags & (RELATIVE | STATIC);
        let unfit = !(DEFAULT..=WEIGHTED_INTERLEAVE).contains(&kind)
            || fixed == RELATIVE | STATIC
            || flags & BALANCING != 0 && !matches!(kind, BIND | PREFERRED_MANY);
        if unfit {
            return Err(Errno::EINVAL);
        }
        let empty = nodes.iter().all(|word| *word == 0);
        let has_ours = nodes.first().is_some_and(|word| word & 1 != 0);
        match kind {
            DEFAULT if empty => Ok(None),
            LOCAL | PREFERRED if empty && fixed == 0 => Ok(Some(Self { kind: LOCAL, flags })),
            DEFAULT | LOCAL => Err(Errno::EINVAL),
            _ if has_ours => Ok(Some(Self { kind, flags })),
            _ => Err(Errno::EINVAL),
        }
    }

    /// As it is told: kind and flags.
    pub fn mode(self) -> i32 {
        self.kind | self.flags
    }

    /// Whether it names nodes, which then are the only one.
    pub fn names_nodes(self) -> bool {
        self.kind != LOCAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_fit_their_kind() {
        assert_eq!(Policy::parse(DEFAULT, &[0]), Ok(None));
        assert_eq!(Policy::parse(DEFAULT, &[1]), Err(Errno::EINVAL));
        assert_eq!(Policy::parse(PREFERRED, &[]).map(|policy| policy.map(Policy::mode)), Ok(Some(LOCAL)));
        assert_eq!(Policy::parse(BIND | STATIC, &[3]).map(|policy| policy.map(Policy::mode)), Ok(Some(BIND | STATIC)));
        assert_eq!(Policy::parse(BIND, &[2]), Err(Errno::EINVAL));
        assert_eq!(Policy::parse(BIND | STATIC | RELATIVE, &[1]), Err(Errno::EINVAL));
    }
}
