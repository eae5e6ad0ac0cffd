//! The one interface, `lo`, as `ioctl(2)` shows it, `netdevice(7)`.

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw, raw_ioctl};

use crate::task::Task;

/// `lo`'s number.
pub const LOOPBACK_INDEX: u32 = 1;
/// Its name.
pub const LOOPBACK_NAME: &[u8] = b"lo";
/// Its largest packet.
pub const LOOPBACK_MTU: u32 = 65_536;
/// `IFF_UP`, `IFF_LOOPBACK`, `IFF_RUNNING`.
pub const LOOPBACK_FLAGS: u32 = 0x1 | 0x8 | 0x40;
/// `ARPHRD_LOOPBACK`.
pub const LOOPBACK_TYPE: u16 = 772;

/// `IFNAMSIZ`.
const NAME_SIZE: usize = 16;
/// Size of `struct ifreq`.
const REQUEST_SIZE: usize = 40;

/// A `sockaddr_in` of the interface.
fn address(octets: [u8; 4]) -> Vec<u8> {
    let mut bytes = 2u16.to_ne_bytes().to_vec();
    bytes.extend([0; 2]);
    bytes.extend(octets);
    bytes.extend([0; 8]);
    bytes
}

fn name(request: &[u8]) -> &[u8] {
    request[..NAME_SIZE].split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Requests about interfaces, for sockets of every family; `ENOTTY` for all others.
pub fn ioctl(task: &Arc<Task>, request: u32, argument: u64) -> Result<usize, Errno> {
    let answer = match request {
        raw_ioctl::SIOCGIFCONF => return list(task, argument),
        raw_ioctl::SIOCGIFNAME => {
            let mut bytes: [u8; REQUEST_SIZE] = task.read(argument)?;
            if bytes[NAME_SIZE..NAME_SIZE + 4] != LOOPBACK_INDEX.to_ne_bytes() {
                return Err(Errno::ENODEV);
            }
            bytes[..NAME_SIZE].fill(0);
            bytes[..LOOPBACK_NAME.len()].copy_from_slice(LOOPBACK_NAME);
            return task.write(argument, &bytes).map(|()| 0);
        }
        raw_ioctl::SIOCGIFFLAGS => (LOOPBACK_FLAGS as u16).to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFADDR => address([127, 0, 0, 1]),
        raw_ioctl::SIOCGIFNETMASK => address([255, 0, 0, 0]),
        raw_ioctl::SIOCGIFBRDADDR | raw_ioctl::SIOCGIFDSTADDR => address([0; 4]),
        raw_ioctl::SIOCGIFMTU => LOOPBACK_MTU.to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFINDEX => LOOPBACK_INDEX.to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFMETRIC => 0u32.to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFTXQLEN => 1000u32.to_ne_bytes().to_vec(),
        raw_ioctl::SIOCGIFHWADDR => [&LOOPBACK_TYPE.to_ne_bytes()[..], &[0; 14]].concat(),
        raw_ioctl::SIOCGIFMAP => vec![0; 24],
        raw_ioctl::SIOCSIFFLAGS | raw_ioctl::SIOCSIFADDR | raw_ioctl::SIOCSIFNETMASK | raw_ioctl::SIOCSIFMTU => {
            let bytes: [u8; REQUEST_SIZE] = task.read(argument)?;
            check_name(&bytes)?;
            let unchanged = request == raw_ioctl::SIOCSIFFLAGS && bytes[NAME_SIZE] & 1 == 1;
            // Programs that bring the interface up find it up.
            return if unchanged && task.credentials().has(raw::CAP_NET_ADMIN) { Ok(0) } else { Err(Errno::EPERM) };
        }
        _ => return Err(Errno::ENOTTY),
    };
    let mut bytes: [u8; REQUEST_SIZE] = task.read(argument)?;
    check_name(&bytes)?;
    bytes[NAME_SIZE..].fill(0);
    bytes[NAME_SIZE..NAME_SIZE + answer.len()].copy_from_slice(&answer);
    task.write(argument, &bytes).map(|()| 0)
}

fn check_name(request: &[u8]) -> Result<(), Errno> {
    if name(request) == LOOPBACK_NAME { Ok(()) } else { Err(Errno::ENODEV) }
}

/// `SIOCGIFCONF`: `struct ifconf` is a length and, after padding, a pointer.
fn list(task: &Task, argument: u64) -> Result<usize, Errno> {
    let [length, buffer]: [u64; 2] = task.read(argument)?;
    let room = length as u32 as usize;
    let mut written = 0;
    if buffer == 0 {
        written = REQUEST_SIZE;
    } else if room >= REQUEST_SIZE {
        let mut entry = [0; REQUEST_SIZE];
        entry[..LOOPBACK_NAME.len()].copy_from_slice(LOOPBACK_NAME);
        let address = address([127, 0, 0, 1]);
        entry[NAME_SIZE..NAME_SIZE + address.len()].copy_from_slice(&address);
        task.write(buffer, &entry)?;
        written = REQUEST_SIZE;
    }
    task.write(argument, &(written as i32)).map(|()| 0)
}
