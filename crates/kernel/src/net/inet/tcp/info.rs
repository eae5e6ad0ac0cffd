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

/// Size of the structure as of Linux 6.9; programs ask for as much as they know.
const SIZE: usize = 248;
/// Segments that connections over the loopback interface agree on, and what any two hosts can do.
const SEGMENT: u32 = 32_741;
const USUAL_SEGMENT: u32 = 536;
/// The longest v4 packet.
const PATH_MTU: u32 = 65_535;
/// Microseconds until a retransmission: Linux's least, and until anything is known.
const LEAST_TIMEOUT: u32 = 200_000;
const FIRST_TIMEOUT: u32 = 1_000_000;
/// Window that a receiver offers at first.
const FIRST_WINDOW: u32 = 65_495;

/// The structure. `waiting` and `backlog` are a listener's, who has nothing else to tell.
pub fn encode(state: TcpState, waiting: u32, backlog: u32) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    bytes[0] = state as u8;
    let connected = !matches!(state, TcpState::Close | TcpState::Listen | TcpState::SynSent);
    if connected {
        // Timestamps, selective acknowledgements and window scaling, as any two Linux hosts agree on.
        bytes[5] = 7;
        bytes[6] = 0xaa;
    }
    bytes[7] = u8::from(state != TcpState::Listen);
    let mut put = |offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    put(24, waiting);
    put(28, backlog);
    if state == TcpState::Listen {
        return bytes;
    }
    put(8, if connected { LEAST_TIMEOUT } else { FIRST_TIMEOUT });
    put(16, if connected { SEGMENT } else { USUAL_SEGMENT });
    // The size of received segments is guessed low until there are some.
    put(20, if connected { USUAL_SEGMENT } else { 0 });
    if connected {
        put(60, PATH_MTU);
        put(64, FIRST_WINDOW);
    }
    // Round trips: no time at all, or not known.
    put(68, u32::from(connected));
    put(72, if connected { 1 } else { FIRST_TIMEOUT / 4 });
    put(76, u32::MAX >> 1);
    put(80, 10);
    put(84, if connected { SEGMENT } else { 0 });
    put(88, 3);
    bytes
}
