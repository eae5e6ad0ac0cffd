//! `/proc/net`: interfaces, routes and sockets.

use super::subject::Subject;
use crate::fs::generated::{Fixed, Listing, Plan};
use crate::vfs::inode::FileType;

/// `/proc/<pid>/net`.
pub fn directory(subject: &Subject) -> Plan {
    Plan::directory(Fixed { about: subject.clone(), listing: LISTING })
}

/// A table of which only the heading and fixed rows exist.
fn table(text: &'static str) -> Plan {
    Plan::file(move || Ok(text.as_bytes().to_vec()))
}

const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
";
const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
const IF_INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n";
const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";
const ARP: &str = "IP address       HW type     Flags       HW address            Mask     Device\n";
const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n";
const NETLINK: &str = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
const PROTOCOLS: &str =
    "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n";
const SOCKSTAT: &str = "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n";

const LISTING: Listing<Subject> = &[
    ("arp", FileType::Regular, |_| table(ARP)),
    ("dev", FileType::Regular, |_| table(DEV)),
    ("if_inet6", FileType::Regular, |_| table(IF_INET6)),
    ("ipv6_route", FileType::Regular, |_| table("")),
    ("netlink", FileType::Regular, |_| table(NETLINK)),
    ("packet", FileType::Regular, |_| table(PACKET)),
    ("protocols", FileType::Regular, |_| table(PROTOCOLS)),
    ("raw", FileType::Regular, |_| table(TCP)),
    ("raw6", FileType::Regular, |_| table(TCP6)),
    ("route", FileType::Regular, |_| table(ROUTE)),
    ("sockstat", FileType::Regular, |_| table(SOCKSTAT)),
    ("tcp", FileType::Regular, |_| table(TCP)),
    ("tcp6", FileType::Regular, |_| table(TCP6)),
    ("udp", FileType::Regular, |_| table(UDP)),
    ("udp6", FileType::Regular, |_| table(UDP6)),
    ("unix", FileType::Regular, |_| table(UNIX)),
];
