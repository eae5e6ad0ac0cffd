//! Who has which port of one protocol.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

/// Ports given to who asks for any, Linux's default `ip_local_port_range`.
pub const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// The part of a port that a socket wants.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Address; unspecified for all of its family.
    pub ip: IpAddr,
    /// An unspecified v6 address takes the v4 ones too.
    pub dual: bool,
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`, with the user who may share.
    pub reuse_port: Option<u32>,
    /// The lowest and the highest port for who asks for any.
    pub range: (u16, u16),
}

struct Entry<T> {
    id: u64,
    claim: Claim,
    listening: bool,
    remote: Option<SocketAddr>,
    target: T,
}

struct Table<T> {
    ports: HashMap<u16, Vec<Entry<T>>>,
    next_id: u64,
    next_port: u16,
}

/// The ports of one protocol.
pub struct Ports<T> {
    table: Mutex<Table<T>>,
    /// Whether `SO_REUSEADDR` lets sockets share although both receive (UDP).
    datagrams: bool,
}

/// A port that a socket has, until dropped.
pub struct Lease<T: Clone> {
    ports: Arc<Ports<T>>,
    id: u64,
    /// The number.
    pub port: u16,
}

impl Claim {
    fn covers(&self, ip: IpAddr) -> bool {
        match self.ip {
            own if own == ip => true,
            IpAddr::V4(own) => own.is_unspecified() && ip.is_ipv4(),
            IpAddr::V6(own) => own.is_unspecified() && (self.dual || ip.is_ipv6()),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.covers(other.ip) || other.covers(self.ip)
    }

    fn shares_port(&self, other: &Self) -> bool {
        self.reuse_port.is_some() && self.reuse_port == other.reuse_port
    }
}

impl<T: Clone> Ports<T> {
    /// All free.
    pub fn new(datagrams: bool) -> Arc<Self> {
        let span = u64::from(EPHEMERAL.end() - EPHEMERAL.start());
        // Not the same first port in every sandbox: some programs take it for a clash with their last run.
        let next_port = EPHEMERAL.start() + (crate::time::monotonic_ns() % span) as u16;
        Arc::new(Self { table: Mutex::new(Table { ports: HashMap::new(), next_id: 1, next_port }), datagrams })
    }

    /// Takes a port, or any if `port` is 0.
    pub fn bind(self: &Arc<Self>, claim: Claim, port: u16, target: T) -> Result<Lease<T>, Errno> {
        let mut table = self.table.lock();
        let port = if port != 0 {
            let free = table.ports.get(&port).is_none_or(|entries| entries.iter().all(|entry| self.allows(entry, &claim)));
            if free { port } else { return Err(Errno::EADDRINUSE) }
        } else {
            table.free_port(&claim).ok_or(Errno::EADDRINUSE)?
        };
        Ok(self.enter(&mut table, claim, port, target))
    }

    /// Enters a connection at its listener's port.
    pub fn join(self: &Arc<Self>, claim: Claim, port: u16, remote: SocketAddr, target: T) -> Lease<T> {
        let mut table = self.table.lock();
        let lease = self.enter(&mut table, claim, port, target);
        if let Some(entry) = table.entry(port, lease.id) {
            entry.remote = Some(remote);
        }
        lease
    }

    fn enter(self: &Arc<Self>, table: &mut Table<T>, claim: Claim, port: u16, target: T) -> Lease<T> {
        let id = table.next_id;
        table.next_id += 1;
        table.ports.entry(port).or_default().push(Entry { id, claim, listening: false, remote: None, target });
        Lease { ports: Arc::clone(self), id, port }
    }

    fn allows(&self, entry: &Entry<T>, claim: &Claim) -> bool {
        !entry.claim.overlaps(claim)
            || entry.claim.shares_port(claim)
            || entry.claim.reuse_address && claim.reuse_address && (self.datagrams || !entry.listening)
    }

    /// Who listens at an address; those who share a port take turns by `turn`.
    pub fn listener(&self, to: SocketAddr, turn: u64) -> Option<T> {
        self.best(to, turn, |entry| entry.listening.then_some(0))
    }

    /// Who receives datagrams for `to` that come from `from`.
    pub fn receiver(&self, to: SocketAddr, from: SocketAddr) -> Option<T> {
        let turn = u64::from(from.port());
        self.best(to, turn, |entry| match entry.remote {
            None => Some(0),
            Some(remote) => (remote == from).then_some(2),
        })
    }

    /// All who receive datagrams that go to many.
    pub fn receivers(&self, to: SocketAddr, from: SocketAddr) -> Vec<T> {
        let table = self.table.lock();
        let entries = table.ports.get(&to.port()).into_iter().flatten();
        let meant = |entry: &&Entry<T>| entry.claim.covers(to.ip()) && entry.remote.is_none_or(|remote| remote == from);
        entries.filter(meant).map(|entry| entry.target.clone()).collect()
    }

    fn best(&self, to: SocketAddr, turn: u64, score: impl Fn(&Entry<T>) -> Option<u32>) -> Option<T> {
        let table = self.table.lock();
        let mut found: Vec<&Entry<T>> = Vec::new();
        let mut best = 0;
        for entry in table.ports.get(&to.port())?.iter().filter(|entry| entry.claim.covers(to.ip())) {
            let Some(score) = score(entry).map(|score| score + u32::from(entry.claim.ip == to.ip())) else { continue };
            if score > best || found.is_empty() {
                found.clear();
                best = score;
            }
            if score == best {
                found.push(entry);
            }
        }
        let last = *found.last()?;
        // Sockets that share a port share what comes; of those that only reuse an address the last one gets it.
        let chosen = if last.claim.reuse_port.is_some() { found[(turn % found.len() as u64) as usize] } else { last };
        Some(chosen.target.clone())
    }

    /// Everybody, for `/proc/net`.
    pub fn all(&self) -> Vec<T> {
        self.table.lock().ports.values().flatten().map(|entry| entry.target.clone()).collect()
    }
}

impl<T> Table<T> {
    fn entry(&mut self, port: u16, id: u64) -> Option<&mut Entry<T>> {
        self.ports.get_mut(&port)?.iter_mut().find(|entry| entry.id == id)
    }

    fn free_port(&mut self, claim: &Claim) -> Option<u16> {
        let (low, high) = claim.range;
        for _ in low..=high {
            let port = if (low..=high).contains(&self.next_port) { self.next_port } else { low };
            self.next_port = if port >= high { low } else { port + 1 };
            if self.ports.get(&port).is_none_or(|entries| entries.iter().all(|entry| !entry.claim.overlaps(claim))) {
                return Some(port);
            }
        }
        None
    }
}

impl<T: Clone> Lease<T> {
    /// Starts to listen, unless somebody else does at the same address.
    pub fn listen(&self) -> Result<(), Errno> {
        let mut table = self.ports.table.lock();
        let Some(entries) = table.ports.get_mut(&self.port) else { return Err(Errno::EINVAL) };
        let Some(own) = entries.iter().position(|entry| entry.id == self.id) else { return Err(Errno::EINVAL) };
        let claim = entries[own].claim;
        let taken =
            |entry: &Entry<T>| entry.id != self.id && entry.listening && entry.claim.overlaps(&claim) && !entry.claim.shares_port(&claim);
        if entries.iter().any(taken) {
            return Err(Errno::EADDRINUSE);
        }
        entries[own].listening = true;
        Ok(())
    }

    /// Stops listening.
    pub fn stop_listening(&self) {
        if let Some(entry) = self.ports.table.lock().entry(self.port, self.id) {
            entry.listening = false;
        }
    }

    /// From now on for one peer, or for all again; at `ip`.
    pub fn set_remote(&self, ip: IpAddr, remote: Option<SocketAddr>) {
        if let Some(entry) = self.ports.table.lock().entry(self.port, self.id) {
            entry.claim.ip = ip;
            entry.remote = remote;
        }
    }

    /// `SO_REUSEADDR` was changed.
    pub fn set_reuse(&self, reuse_address: bool) {
        if let Some(entry) = self.ports.table.lock().entry(self.port, self.id) {
            entry.claim.reuse_address = reuse_address;
        }
    }

    /// The part of the port that it has.
    pub fn claim(&self) -> Option<Claim> {
        self.ports.table.lock().entry(self.port, self.id).map(|entry| entry.claim)
    }
}

impl<T: Clone> Drop for Lease<T> {
    fn drop(&mut self) {
        let mut table = self.ports.table.lock();
        if let Some(entries) = table.ports.get_mut(&self.port) {
            entries.retain(|entry| entry.id != self.id);
            if entries.is_empty() {
                table.ports.remove(&self.port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn claim(ip: IpAddr) -> Claim {
        Claim { ip, dual: ip == ANY6, reuse_address: false, reuse_port: None, range: (*EPHEMERAL.start(), *EPHEMERAL.end()) }
    }

    #[test]
    fn wildcards_take_the_whole_port() {
        let ports = Ports::new(false);
        let first = ports.bind(claim(ANY4), 80, 1).unwrap();
        assert_eq!(ports.bind(claim(LOCAL), 80, 2).err(), Some(Errno::EADDRINUSE));
        assert_eq!(ports.bind(claim(ANY6), 80, 2).err(), Some(Errno::EADDRINUSE));
        let only = Claim { dual: false, ..claim(ANY6) };
        let second = ports.bind(only, 80, 2).unwrap();
        drop((first, second));
        ports.bind(claim(ANY6), 80, 3).unwrap();
    }

    #[test]
    fn reused_addresses_have_one_listener() {
        let ports = Ports::new(false);
        let reuse = Claim { reuse_address: true, ..claim(LOCAL) };
        let first = ports.bind(reuse, 80, 1).unwrap();
        let second = ports.bind(reuse, 80, 2).unwrap();
        first.listen().unwrap();
        assert_eq!(second.listen(), Err(Errno::EADDRINUSE));
        assert_eq!(ports.bind(reuse, 80, 3).err(), Some(Errno::EADDRINUSE));
        assert_eq!(ports.listener(SocketAddr::new(LOCAL, 80), 0), Some(1));
        first.stop_listening();
        second.listen().unwrap();
        assert_eq!(ports.listener(SocketAddr::new(LOCAL, 80), 0), Some(2));
    }

    #[test]
    fn shared_ports_take_turns() {
        let ports = Ports::new(false);
        let share = Claim { reuse_port: Some(1000), ..claim(ANY4) };
        let leases = [ports.bind(share, 80, 0).unwrap(), ports.bind(share, 80, 1).unwrap()];
        leases.iter().for_each(|lease| lease.listen().unwrap());
        assert_eq!(ports.bind(Claim { reuse_port: Some(1), ..share }, 80, 2).err(), Some(Errno::EADDRINUSE));
        let turns = [0, 1, 2].map(|turn| ports.listener(SocketAddr::new(LOCAL, 80), turn));
        assert_eq!(turns, [Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn datagrams_go_to_who_fits_best() {
        let ports = Ports::new(true);
        let from = SocketAddr::new(LOCAL, 9);
        let reuse = |ip| Claim { reuse_address: true, ..claim(ip) };
        let _any = ports.bind(reuse(ANY4), 53, "any").unwrap();
        assert_eq!(ports.receiver(SocketAddr::new(LOCAL, 53), from), Some("any"));
        let _local = ports.bind(reuse(LOCAL), 53, "local").unwrap();
        assert_eq!(ports.receiver(SocketAddr::new(LOCAL, 53), from), Some("local"));
        let connected = ports.bind(reuse(ANY4), 53, "connected").unwrap();
        connected.set_remote(LOCAL, Some(from));
        assert_eq!(ports.receiver(SocketAddr::new(LOCAL, 53), from), Some("connected"));
        assert_eq!(ports.receiver(SocketAddr::new(LOCAL, 53), SocketAddr::new(LOCAL, 8)), Some("local"));
        assert_eq!(ports.receiver(SocketAddr::new(LOCAL, 54), from), None);
    }

    #[test]
    fn ephemeral_ports_differ() {
        let ports = Ports::new(true);
        let leases: Vec<_> = (0..100).map(|_| ports.bind(claim(ANY4), 0, ()).unwrap()).collect();
        let mut numbers: Vec<u16> = leases.iter().map(|lease| lease.port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100);
        assert!(numbers.iter().all(|port| EPHEMERAL.contains(port)));
    }
}
