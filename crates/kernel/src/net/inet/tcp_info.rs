//! `TCP_INFO`: `struct tcp_info` of a connection that has no packets.

/// States as Linux numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// Both directions open.
    Established = 1,
    /// Waiting for the listener to take more.
    SynSent = 2,
    /// This end has finished, the other not yet.
    FinWait2 = 5,
    /// Nothing.
    Close = 7,
    /// The other end has finished, this one not yet.
    CloseWait = 8,
    /// Waiting for connections.
    Listen = 10,
}

/// Size of the structure as of Linux 5.x; programs ask for as much as they know.
const SIZE: usize = 232;
/// Segments on the loopback interface.
const MSS: u32 = 65_483;
/// Microseconds until a retransmission, Linux's least.
const RTO: u32 = 200_000;

/// The structure. `waiting` and `backlog` are a listener's.
pub fn encode(state: TcpState, waiting: u32, backlog: u32) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    bytes[0] = state as u8;
    // Timestamps, selective acknowledgements and window scaling, as any two Linux hosts agree on.
    bytes[5] = 7;
    bytes[6] = 0x77;
    let mut put = |offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    put(8, RTO);
    put(12, 40_000);
    put(16, MSS);
    put(20, MSS);
    put(24, waiting);
    put(28, backlog);
    put(60, 65_535);
    put(64, MSS);
    // Round trips: no time at all.
    put(68, 1);
    put(72, 1);
    put(76, u32::MAX >> 1);
    put(80, 10);
    put(84, MSS);
    put(88, 3);
    bytes
}
