//! `/proc/net`: interfaces, routes and sockets.

use super::subject::Subject;
use crate::Kernel;
use crate::fs::generated::{Fixed, Listing, Plan};
use crate::net::report;
use crate::vfs::inode::FileType;

/// `/proc/<pid>/net`.
pub fn directory(subject: &Subject) -> Plan {
    Plan::directory(Fixed { about: subject.clone(), listing: LISTING })
}

/// A table of which only the heading and fixed rows exist.
fn table(text: &'static str) -> Plan {
    Plan::file(move || Ok(text.as_bytes().to_vec()))
}

const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
const RAW: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
const ARP: &str = "IP address       HW type     Flags       HW address            Mask     Device\n";
const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n";
const NETLINK: &str = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
const PROTOCOLS: &str =
    "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n";
/// What the loopback interface's groups are: that of all hosts.
const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
/// Who takes packets of which protocol.
const PTYPE: &str = "Type Device      Function\n0800          ip_rcv\n0806          arp_rcv\n86dd          ipv6_rcv\n";
/// How finely packets are scheduled: what every Linux says.
const PSCHED: &str = "000003e8 00000040 000f4240 3b9aca00\n";
const SOCKSTAT6: &str = "TCP6: inuse 0\nUDP6: inuse 0\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n";
/// Counters of what does not happen here.
const NETSTAT: &str = "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled TW ListenOverflows ListenDrops\n\
    TcpExt: 0 0 0 0 0 0 0 0\n\
    IpExt: InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets\n\
    IpExt: 0 0 0 0 0 0 0 0\n";
/// A file about the sockets of the kernel.
fn report(subject: &Subject, make: fn(&Kernel) -> Vec<u8>) -> Plan {
    let subject = subject.clone();
    Plan::file(move || Ok(make(&subject.live()?.kernel)))
}

const LISTING: Listing<Subject> = &[
    ("arp", FileType::Regular, |_| table(ARP)),
    ("dev", FileType::Regular, |subject| report(subject, |kernel| report::dev(kernel.network, &kernel.activity()).into_bytes())),
    ("icmp", FileType::Regular, |_| table(RAW)),
    ("icmp6", FileType::Regular, |_| table(RAW)),
    ("if_inet6", FileType::Regular, |subject| report(subject, |kernel| report::if_inet6(kernel.network).into_bytes())),
    ("igmp", FileType::Regular, |_| table(IGMP)),
    ("ipv6_route", FileType::Regular, |_| table("")),
    ("netlink", FileType::Regular, |_| table(NETLINK)),
    ("netstat", FileType::Regular, |_| table(NETSTAT)),
    ("packet", FileType::Regular, |_| table(PACKET)),
    ("protocols", FileType::Regular, |_| table(PROTOCOLS)),
    ("psched", FileType::Regular, |_| table(PSCHED)),
    ("ptype", FileType::Regular, |_| table(PTYPE)),
    ("raw", FileType::Regular, |_| table(RAW)),
    ("raw6", FileType::Regular, |_| table(RAW)),
    ("route", FileType::Regular, |_| table(ROUTE)),
    ("snmp", FileType::Regular, |subject| report(subject, |kernel| report::snmp(&kernel.net).into_bytes())),
    ("sockstat", FileType::Regular, |subject| report(subject, |kernel| report::sockstat(&kernel.net).into_bytes())),
    ("sockstat6", FileType::Regular, |_| table(SOCKSTAT6)),
    ("tcp", FileType::Regular, |subject| report(subject, |kernel| report::tcp(&kernel.net, false).into_bytes())),
    ("tcp6", FileType::Regular, |subject| report(subject, |kernel| report::tcp(&kernel.net, true).into_bytes())),
    ("udp", FileType::Regular, |subject| report(subject, |kernel| report::udp(&kernel.net, false).into_bytes())),
    ("udp6", FileType::Regular, |subject| report(subject, |kernel| report::udp(&kernel.net, true).into_bytes())),
    ("udplite", FileType::Regular, |_| table(RAW)),
    ("udplite6", FileType::Regular, |_| table(RAW)),
    ("unix", FileType::Regular, |subject| report(subject, |kernel| report::unix(&kernel.net))),
];
