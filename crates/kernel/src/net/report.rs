//! What `/proc/net` shows of sockets, in Linux's formats.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::inet::tcp::info::TcpState;
use super::unix::Bound;
use super::{Base, Net, Socket, interface};
use crate::config::Network;
use crate::task::activity::Activity;

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const HEAD6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const UDP_HEAD: &str =
    "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
const UDP_HEAD6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

/// An address as words in the machine's byte order.
fn address(address: SocketAddr, v6: bool) -> String {
    let octets = match (address.ip(), v6) {
        (IpAddr::V4(ip), false) => ip.octets().to_vec(),
        (IpAddr::V4(ip), true) => ip.to_ipv6_mapped().octets().to_vec(),
        (IpAddr::V6(ip), _) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for word in octets.chunks_exact(4) {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

fn owner(base: &Base) -> (u32, u64) {
    (base.owner.load(Ordering::Relaxed), base.inode.load(Ordering::Relaxed))
}

/// `/proc/net/tcp` and `tcp6`.
pub fn tcp(net: &Net, v6: bool) -> String {
    let mut text = if v6 { HEAD6 } else { HEAD }.to_owned();
    let sockets = net.inet.tcp.all().into_iter().filter_map(|socket| socket.upgrade());
    let shown = sockets.filter_map(|socket| Some((socket.figures()?, owner(socket.base())))).filter(|(figures, _)| figures.v6 == v6);
    for (index, (figures, (uid, inode))) in shown.enumerate() {
        let (local, remote) = (address(figures.local, v6), address(figures.remote, v6));
        let (state, sending, receiving) = (figures.state as u8, figures.sending, figures.receiving);
        let _ = writeln!(
            text,
            "{index:4}: {local} {remote} {state:02X} {sending:08X}:{receiving:08X} 00:00000000 00000000 {uid:5}        0 {inode} 1 0000000000000000 100 0 0 10 0"
        );
    }
    text
}

/// `/proc/net/udp` and `udp6`.
pub fn udp(net: &Net, v6: bool) -> String {
    let mut text = if v6 { UDP_HEAD6 } else { UDP_HEAD }.to_owned();
    let sockets = net.inet.udp.all().into_iter().filter_map(|socket| socket.upgrade());
    let shown = sockets.filter_map(|socket| Some((socket.figures()?, owner(socket.base())))).filter(|(figures, _)| figures.3 == v6);
    for (index, ((local, remote, receiving, _), (uid, inode))) in shown.enumerate() {
        let state = if remote.port() == 0 { TcpState::Close } else { TcpState::Established } as u8;
        let (local, remote) = (address(local, v6), address(remote, v6));
        let _ = writeln!(
            text,
            "{index:5}: {local} {remote} {state:02X} 00000000:{receiving:08X} 00:00000000 00000000 {uid:5}        0 {inode} 2 0000000000000000 0"
        );
    }
    text
}

/// `/proc/net/unix`: the sockets that have a name.
pub fn unix(net: &Net) -> Vec<u8> {
    /// `__SO_ACCEPTCON`.
    const LISTENS: u32 = 0x1_0000;
    let mut text = b"Num       RefCount Protocol Flags    Type St Inode Path\n".to_vec();
    for bound in net.unix.all() {
        let (base, listens, connected, name) = match &bound {
            Bound::Stream(_, socket) => match socket.upgrade() {
                Some(socket) => {
                    (owner(socket.base()), socket.listens(), socket.peer_address().is_ok(), (socket.base().kind, socket.address()))
                }
                None => continue,
            },
            Bound::Datagram(socket) => match socket.upgrade() {
                Some(socket) => (owner(socket.base()), false, socket.peer_address().is_ok(), (socket.base().kind, socket.address())),
                None => continue,
            },
        };
        let (flags, state, kind, inode) = (if listens { LISTENS } else { 0 }, if connected { 3 } else { 1 }, name.0 as u32, base.1);
        let encoded = name.1.encode();
        let path: Vec<u8> = encoded[2..].iter().map(|byte| if *byte == 0 { b'@' } else { *byte }).collect();
        // Paths end in the zero byte that their address carries.
        let path = if encoded.get(2) == Some(&0) { &path[..] } else { path.strip_suffix(b"@").unwrap_or(&path) };
        text.extend(format!("0000000000000000: 00000002 00000000 {flags:08X} {kind:04X} {state:02X} {inode:5} ").into_bytes());
        text.extend(path);
        text.push(b'\n');
    }
    text
}

/// `/proc/net/sockstat`.
pub fn sockstat(net: &Net) -> String {
    fn live<T>(sockets: &[Weak<T>]) -> usize {
        sockets.iter().filter(|socket| socket.strong_count() > 0).count()
    }
    let (tcp, udp) = (live(&net.inet.tcp.all()), live(&net.inet.udp.all()));
    let used = tcp + udp + net.unix.all().len();
    format!(
        "sockets: used {used}\nTCP: inuse {tcp} orphan 0 tw 0 alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
    )
}

/// `/proc/net/snmp`. Only connections are counted.
pub fn snmp(net: &Net) -> String {
    let sockets = net.inet.tcp.all().into_iter().filter_map(|socket| socket.upgrade()?.figures());
    let established = sockets.filter(|figures| matches!(figures.state, TcpState::Established | TcpState::CloseWait)).count();
    let zeros = |count: usize| " 0".repeat(count);
    let (ip, icmp, udp) = (zeros(17), zeros(27), zeros(8));
    format!(
        "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates\n\
         Ip: 2 64{ip}\n\
         Icmp: InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps\n\
         Icmp:{icmp}\n\
         Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\n\
         Tcp: 1 200 120000 -1 0 0 0 0 {established} 0 0 0 0 0 0\n\
         Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti\n\
         Udp:{udp}\n"
    )
}

/// `/proc/net/dev`. Nothing is counted: nothing passes an interface.
pub fn dev(network: Network, activity: &Activity) -> String {
    let mut text = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n".to_owned();
    for interface in interface::all(network) {
        let name = String::from_utf8_lossy(interface.name);
        let flow = if interface.index == interface::LOOPBACK_INDEX { activity.loopback } else { activity.network };
        let _ = writeln!(
            text,
            "{name:>6}: {:7} {:7}    0    0    0     0          0         0 {:8} {:7}    0    0    0     0       0          0",
            flow.bytes_in, flow.operations_in, flow.bytes_out, flow.operations_out
        );
    }
    text
}

/// `/proc/net/if_inet6`.
pub fn if_inet6(network: Network) -> String {
    let mut text = String::new();
    for interface in interface::all(network) {
        for (ip, prefix) in &interface.addresses {
            if let IpAddr::V6(ip) = ip {
                let octets: String = ip.octets().iter().map(|byte| format!("{byte:02x}")).collect();
                let scope = if ip.is_loopback() { 0x10 } else { 0 };
                let name = String::from_utf8_lossy(interface.name);
                let _ = writeln!(text, "{octets} {:02x} {prefix:02x} {scope:02x} 80 {name:>8}", interface.index);
            }
        }
    }
    text
}
