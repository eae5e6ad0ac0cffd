//! What numbers each level of `setsockopt(2)` knows: default, what is taken, and what shorter values mean (`socket(7)`, `ip(7)`, `ipv6(7)`,
//! `tcp(7)`, `udp(7)`). Options that are not numbers, or that need more than the socket's options, are not here.

use cloudpilot_abi::Errno;
use cloudpilot_abi::raw_net::*;

use super::{LEVEL_IP, LEVEL_IPV6, LEVEL_TCP, LEVEL_UDP, SOL_SOCKET};
use crate::net::Kind;

/// What happens to a number that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Only whether it is zero counts.
    Flag,
    /// From the first to the second; `EINVAL` otherwise.
    Range(i32, i32),
    /// These bits of it.
    Masked(i32),
    /// It is checked as a flag and forgotten.
    Forgotten,
    /// It can only be asked for.
    Fixed,
}

/// What a value of fewer bytes than a number has means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// `EINVAL`.
    Refused,
    /// Zero.
    Zero,
    /// Its first byte, and none at all zero.
    Byte,
    /// Its first byte; none at all is `EINVAL`.
    OneByte,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// `SOL_*`, `IPPROTO_*`.
    pub level: i32,
    /// `SO_*` and so on.
    pub name: i32,
    /// Until it is set.
    pub default: i32,
    /// What is taken.
    pub take: Take,
    /// Values that are too short.
    pub short: Short,
    /// The only kinds of sockets on which it can be set, and what others answer.
    only: Option<(&'static [Kind], Errno)>,
    /// Whether others do not know it when asked, either.
    hidden: bool,
}

impl Entry {
    const fn new(level: i32, name: u32, default: i32, take: Take) -> Self {
        let short = if level == LEVEL_IP { Short::Byte } else { Short::Refused };
        Self { level, name: name as i32, default, take, short, only: None, hidden: false }
    }

    const fn on(self, kinds: &'static [Kind], otherwise: Errno) -> Self {
        Self { only: Some((kinds, otherwise)), ..self }
    }

    const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    const fn short(self, short: Short) -> Self {
        Self { short, ..self }
    }

    /// Why a socket of this kind cannot have it set.
    pub fn refusal(&self, kind: Kind) -> Option<Errno> {
        self.only.filter(|(kinds, _)| !kinds.contains(&kind)).map(|(_, errno)| errno)
    }

    /// Why a socket of this kind cannot tell it.
    pub fn secret(&self, kind: Kind) -> Option<Errno> {
        self.refusal(kind).filter(|_| self.hidden)
    }

    /// The number that `value` stands for, as it is kept.
    ///
    /// # Errors
    ///
    /// `EINVAL` for too short values, and for numbers outside the range; `ENOPROTOOPT` for what can only be asked for.
    pub fn decode(&self, value: &[u8]) -> Result<i32, Errno> {
        let number = match (value.first_chunk(), self.short, value.first()) {
            (Some(bytes), ..) => i32::from_ne_bytes(*bytes),
            (None, Short::Byte | Short::OneByte, Some(byte)) => i32::from(*byte),
            (None, Short::Zero, _) | (None, Short::Byte, None) => 0,
            (None, Short::Refused, _) | (None, Short::OneByte, None) => return Err(Errno::EINVAL),
        };
        match self.take {
            Take::Flag => Ok(i32::from(number != 0)),
            Take::Range(least, greatest) if !(least..=greatest).contains(&number) => Err(Errno::EINVAL),
            Take::Range(..) => Ok(number),
            Take::Masked(mask) => Ok(number & mask),
            Take::Forgotten => Ok(self.default),
            Take::Fixed => Err(Errno::ENOPROTOOPT),
        }
    }
}

const fn flag(level: i32, name: u32) -> Entry {
    Entry::new(level, name, 0, Take::Flag)
}

const fn number(level: i32, name: u32, default: i32, least: i32, greatest: i32) -> Entry {
    Entry::new(level, name, default, Take::Range(least, greatest))
}

const fn any(level: i32, name: u32, default: i32) -> Entry {
    number(level, name, default, i32::MIN, i32::MAX)
}

const fn fixed(level: i32, name: u32, value: i32) -> Entry {
    Entry::new(level, name, value, Take::Fixed)
}

const RAW: &[Kind] = &[Kind::Raw];
const NOT_STREAMS: &[Kind] = &[Kind::Datagram, Kind::Raw];
/// Extensions of packet filters that Linux counts up to.
const BPF_EXTENSIONS: i32 = 64;

const SOCKET: &[Entry] = &[
    flag(SOL_SOCKET, SO_DEBUG),
    flag(SOL_SOCKET, SO_REUSEADDR),
    flag(SOL_SOCKET, SO_DONTROUTE),
    flag(SOL_SOCKET, SO_BROADCAST),
    flag(SOL_SOCKET, SO_KEEPALIVE),
    flag(SOL_SOCKET, SO_OOBINLINE),
    flag(SOL_SOCKET, SO_NO_CHECK),
    any(SOL_SOCKET, SO_PRIORITY, 0),
    // Without effect for decades.
    Entry::new(SOL_SOCKET, SO_BSDCOMPAT, 0, Take::Forgotten),
    flag(SOL_SOCKET, SO_REUSEPORT),
    flag(SOL_SOCKET, SO_PASSCRED),
    any(SOL_SOCKET, SO_RCVLOWAT, 1),
    fixed(SOL_SOCKET, SO_SNDLOWAT, 1),
    fixed(SOL_SOCKET, SO_ACCEPTCONN, 0),
    flag(SOL_SOCKET, SO_PASSSEC),
    any(SOL_SOCKET, SO_MARK, 0),
    flag(SOL_SOCKET, SO_RXQ_OVFL),
    flag(SOL_SOCKET, SO_WIFI_STATUS),
    any(SOL_SOCKET, SO_PEEK_OFF, -1),
    flag(SOL_SOCKET, SO_NOFCS),
    flag(SOL_SOCKET, SO_LOCK_FILTER),
    flag(SOL_SOCKET, SO_SELECT_ERR_QUEUE),
    number(SOL_SOCKET, SO_BUSY_POLL, 0, 0, i32::MAX),
    fixed(SOL_SOCKET, SO_BPF_EXTENSIONS, BPF_EXTENSIONS),
    any(SOL_SOCKET, SO_INCOMING_CPU, -1),
    fixed(SOL_SOCKET, SO_INCOMING_NAPI_ID, 0),
    number(SOL_SOCKET, SO_ZEROCOPY, 0, 0, 1),
    number(SOL_SOCKET, SO_BINDTOIFINDEX, 0, 0, i32::MAX),
    flag(SOL_SOCKET, SO_PREFER_BUSY_POLL),
    number(SOL_SOCKET, SO_BUF_LOCK, 0, 0, 3),
    fixed(SOL_SOCKET, SO_RESERVE_MEM, 0),
    number(SOL_SOCKET, SO_TXREHASH, 1, -1, 1),
    flag(SOL_SOCKET, SO_RCVMARK),
    flag(SOL_SOCKET, SO_PASSPIDFD),
    flag(SOL_SOCKET, SO_RCVPRIORITY),
    Entry::new(SOL_SOCKET, SO_PASSRIGHTS, 1, Take::Flag),
];

const IP: &[Entry] = &[
    Entry::new(LEVEL_IP, IP_TOS, 0, Take::Masked(0xff)),
    number(LEVEL_IP, IP_TTL, -1, -1, 255).short(Short::OneByte),
    flag(LEVEL_IP, IP_HDRINCL).on(RAW, Errno::ENOPROTOOPT),
    flag(LEVEL_IP, IP_ROUTER_ALERT).on(RAW, Errno::EINVAL),
    flag(LEVEL_IP, IP_RECVOPTS),
    flag(LEVEL_IP, IP_RETOPTS),
    flag(LEVEL_IP, IP_PKTINFO),
    number(LEVEL_IP, IP_MTU_DISCOVER, 1, 0, 5),
    flag(LEVEL_IP, IP_RECVERR),
    flag(LEVEL_IP, IP_RECVTTL),
    flag(LEVEL_IP, IP_RECVTOS),
    flag(LEVEL_IP, IP_FREEBIND).short(Short::OneByte),
    flag(LEVEL_IP, IP_PASSSEC),
    flag(LEVEL_IP, IP_TRANSPARENT).short(Short::OneByte),
    flag(LEVEL_IP, IP_RECVORIGDSTADDR),
    number(LEVEL_IP, IP_MINTTL, 0, 0, 255).short(Short::OneByte),
    flag(LEVEL_IP, IP_NODEFRAG).on(RAW, Errno::ENOPROTOOPT),
    flag(LEVEL_IP, IP_CHECKSUM),
    flag(LEVEL_IP, IP_BIND_ADDRESS_NO_PORT),
    flag(LEVEL_IP, IP_RECVFRAGSIZE).on(NOT_STREAMS, Errno::EINVAL),
    number(LEVEL_IP, IP_RECVERR_RFC4884, 0, 0, 1),
    number(LEVEL_IP, IP_MULTICAST_TTL, 1, -1, 255).short(Short::OneByte).on(NOT_STREAMS, Errno::EINVAL),
    Entry::new(LEVEL_IP, IP_MULTICAST_LOOP, 1, Take::Flag).short(Short::OneByte),
    number(LEVEL_IP, IP_MULTICAST_ALL, 1, 0, 1).short(Short::OneByte),
];

const IPV6: &[Entry] = &[
    flag(LEVEL_IPV6, IPV6_2292PKTINFO),
    flag(LEVEL_IPV6, IPV6_2292HOPOPTS),
    flag(LEVEL_IPV6, IPV6_2292DSTOPTS),
    flag(LEVEL_IPV6, IPV6_2292RTHDR),
    flag(LEVEL_IPV6, IPV6_2292HOPLIMIT),
    flag(LEVEL_IPV6, IPV6_FLOWINFO),
    number(LEVEL_IPV6, IPV6_UNICAST_HOPS, -1, -1, 255),
    number(LEVEL_IPV6, IPV6_MULTICAST_HOPS, 1, -1, 255).on(NOT_STREAMS, Errno::ENOPROTOOPT),
    number(LEVEL_IPV6, IPV6_MULTICAST_LOOP, 1, 0, 1),
    fixed(LEVEL_IPV6, IPV6_ROUTER_ALERT, 0),
    number(LEVEL_IPV6, IPV6_MTU_DISCOVER, 1, 0, 5),
    flag(LEVEL_IPV6, IPV6_RECVERR),
    flag(LEVEL_IPV6, IPV6_V6ONLY),
    Entry::new(LEVEL_IPV6, IPV6_MULTICAST_ALL, 1, Take::Flag),
    flag(LEVEL_IPV6, IPV6_ROUTER_ALERT_ISOLATE),
    number(LEVEL_IPV6, IPV6_RECVERR_RFC4884, 0, 0, 1),
    flag(LEVEL_IPV6, IPV6_FLOWINFO_SEND),
    flag(LEVEL_IPV6, IPV6_HDRINCL).on(RAW, Errno::ENOPROTOOPT).hidden(),
    flag(LEVEL_IPV6, IPV6_RECVPKTINFO),
    flag(LEVEL_IPV6, IPV6_RECVHOPLIMIT),
    flag(LEVEL_IPV6, IPV6_RECVHOPOPTS),
    flag(LEVEL_IPV6, IPV6_RECVRTHDR),
    flag(LEVEL_IPV6, IPV6_RECVDSTOPTS),
    flag(LEVEL_IPV6, IPV6_RECVPATHMTU),
    flag(LEVEL_IPV6, IPV6_DONTFRAG).short(Short::Zero),
    flag(LEVEL_IPV6, IPV6_RECVTCLASS),
    number(LEVEL_IPV6, IPV6_TCLASS, 0, -1, 255),
    Entry::new(LEVEL_IPV6, IPV6_AUTOFLOWLABEL, 1, Take::Flag).short(Short::Zero),
    number(LEVEL_IPV6, IPV6_MINHOPCOUNT, 0, 0, 255),
    flag(LEVEL_IPV6, IPV6_RECVORIGDSTADDR),
    flag(LEVEL_IPV6, IPV6_TRANSPARENT),
    flag(LEVEL_IPV6, IPV6_RECVFRAGSIZE).short(Short::Zero),
    flag(LEVEL_IPV6, IPV6_FREEBIND),
];

const TCP: &[Entry] = &[
    flag(LEVEL_TCP, TCP_NODELAY),
    flag(LEVEL_TCP, TCP_CORK),
    number(LEVEL_TCP, TCP_KEEPIDLE, 7200, 1, 32_767),
    number(LEVEL_TCP, TCP_KEEPINTVL, 75, 1, 32_767),
    number(LEVEL_TCP, TCP_KEEPCNT, 9, 1, 127),
    number(LEVEL_TCP, TCP_SYNCNT, 6, 1, 127),
    any(LEVEL_TCP, TCP_LINGER2, 60),
    any(LEVEL_TCP, TCP_DEFER_ACCEPT, 0),
    any(LEVEL_TCP, TCP_WINDOW_CLAMP, 0),
    Entry::new(LEVEL_TCP, TCP_QUICKACK, 1, Take::Flag),
    number(LEVEL_TCP, TCP_THIN_LINEAR_TIMEOUTS, 0, 0, 1),
    number(LEVEL_TCP, TCP_THIN_DUPACK, 0, 0, 1),
    number(LEVEL_TCP, TCP_USER_TIMEOUT, 0, 0, i32::MAX),
    number(LEVEL_TCP, TCP_FASTOPEN, 0, 0, i32::MAX),
    any(LEVEL_TCP, TCP_NOTSENT_LOWAT, 0),
    number(LEVEL_TCP, TCP_SAVE_SYN, 0, 0, 2),
    number(LEVEL_TCP, TCP_FASTOPEN_CONNECT, 0, 0, 1),
    number(LEVEL_TCP, TCP_FASTOPEN_NO_COOKIE, 0, 0, 1),
    number(LEVEL_TCP, TCP_INQ, 0, 0, 1),
    number(LEVEL_TCP, TCP_TX_DELAY, 0, 0, i32::MAX),
    fixed(LEVEL_TCP, TCP_IS_MPTCP, 0),
];

/// `UDP_CORK`, `UDP_NO_CHECK6_TX`, `UDP_NO_CHECK6_RX`, `UDP_SEGMENT`, `UDP_GRO`.
const UDP: &[Entry] =
    &[flag(LEVEL_UDP, 1), flag(LEVEL_UDP, 101), flag(LEVEL_UDP, 102), number(LEVEL_UDP, 103, 0, 0, u16::MAX as i32), flag(LEVEL_UDP, 104)];

/// The row of an option.
pub fn find(level: i32, name: i32) -> Option<&'static Entry> {
    let table = match level {
        SOL_SOCKET => SOCKET,
        LEVEL_IP => IP,
        LEVEL_IPV6 => IPV6,
        LEVEL_TCP => TCP,
        LEVEL_UDP => UDP,
        _ => return None,
    };
    table.iter().find(|entry| entry.name == name)
}
