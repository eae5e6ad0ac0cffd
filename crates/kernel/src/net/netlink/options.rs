//! Options of netlink sockets, `netlink(7)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use super::{KOBJECT_UEVENT, NetlinkSocket, SOL_NETLINK};
use crate::net::options;
use crate::task::Task;

const ADD_MEMBERSHIP: i32 = 1;
const DROP_MEMBERSHIP: i32 = 2;
const BROADCAST_ERROR: i32 = 4;
const NO_ENOBUFS: i32 = 5;
const LISTEN_ALL_NSID: i32 = 8;
const LIST_MEMBERSHIPS: i32 = 9;
/// `NETLINK_CAP_ACK`: acknowledgements without the request.
pub(super) const CAP_ACK: i32 = 10;
/// `NETLINK_PKTINFO`: the number of the group a message was sent to goes along.
pub(super) const PKTINFO: i32 = 3;
/// `NETLINK_EXT_ACK`: acknowledgements with explanations.
const EXT_ACK: i32 = 11;
/// `NETLINK_GET_STRICT_CHK`: requests to list are looked through for what they should not hold.
const GET_STRICT_CHK: i32 = 12;
/// Groups of `NETLINK_ROUTE`, and what every protocol has at least.
const ROUTE_GROUPS: i32 = 39;
const GROUPS: i32 = 32;

fn is_flag(name: i32) -> bool {
    matches!(name, PKTINFO | BROADCAST_ERROR | NO_ENOBUFS | LISTEN_ALL_NSID | CAP_ACK | EXT_ACK | GET_STRICT_CHK)
}

impl NetlinkSocket {
    /// How many groups its protocol has.
    pub(super) fn most_groups(&self) -> i32 {
        if self.base.protocol == KOBJECT_UEVENT { GROUPS } else { ROUTE_GROUPS }
    }

    /// `setsockopt(2)`.
    pub(super) fn change_option(&self, task: &Arc<Task>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        if level != SOL_NETLINK {
            return options::set(&self.base, task, level, name, value);
        }
        match name {
            ADD_MEMBERSHIP | DROP_MEMBERSHIP => {
                let group = options::int(level, value)?;
                if !(1..=self.most_groups()).contains(&group) {
                    return Err(Errno::EINVAL);
                }
                let bit = 1 << (group - 1);
                let mut groups = self.groups.lock();
                *groups = if name == ADD_MEMBERSHIP { *groups | bit } else { *groups & !bit };
                Ok(())
            }
            LISTEN_ALL_NSID if !self.base.permits(task, raw::CAP_NET_BROADCAST) => Err(Errno::EPERM),
            // A value that is too short is none, and none is off.
            name if is_flag(name) => {
                let on = options::int(level, value).unwrap_or(0) != 0;
                self.base.options.lock().set_number(level, name, i32::from(on));
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// `getsockopt(2)`; `length` is what the caller has room for.
    pub(super) fn tell_option(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>, Errno> {
        match name {
            _ if level != SOL_NETLINK => options::get(&self.base, level, name, length),
            LIST_MEMBERSHIPS => {
                let groups = *self.groups.lock();
                Ok(if groups == 0 { Vec::new() } else { groups.to_ne_bytes().to_vec() })
            }
            name if is_flag(name) && length < size_of::<i32>() => Err(Errno::EINVAL),
            name if is_flag(name) => Ok(i32::from(self.base.options.lock().is_set(level, name)).to_ne_bytes().to_vec()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
