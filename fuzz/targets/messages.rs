//! What calls read from memory in formats of their own: netlink requests, control messages, filters, signal frames, options, addresses.

#![no_main]

use cloudpilot_abi::raw;
use cloudpilot_fuzz::generator::Argument::{Constant, Memory, Path, Result};
use cloudpilot_fuzz::generator::Program;
use cloudpilot_fuzz::guest;
use libfuzzer_sys::fuzz_target;

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_NETLINK: u64 = 16;
/// Where the executor has a message header, whose vector and control message are beside it.
const MESSAGE: u64 = 0x100;
const CONTROL: u64 = 0x200;
const NONBLOCK: u64 = 0x40;

fn netlink(program: &mut Program) {
    let (data, length) = program.data();
    let socket = program.call(raw::__NR_socket, &[Constant(AF_NETLINK), Constant(3), Constant(0)]);
    program.call(raw::__NR_sendto, &[Result(socket), data, length, Constant(NONBLOCK)]);
    for _ in 0..3 {
        program.call(raw::__NR_recvfrom, &[Result(socket), Memory(0x9000), Constant(4096), Constant(NONBLOCK)]);
    }
}

fn control(program: &mut Program, kind: u64, bytes: &[u8]) {
    program.call(raw::__NR_socketpair, &[Constant(AF_UNIX), Constant(kind), Constant(0), Memory(0x9000)]);
    // The control message and the header are the data, eight bytes after eight.
    for (index, word) in bytes.chunks(8).take(40).enumerate() {
        let mut value = [0; 8];
        value[..word.len()].copy_from_slice(word);
        let place = if index < 8 { CONTROL + index as u64 * 8 } else { MESSAGE + (index as u64 - 8) * 8 };
        if place != MESSAGE + 16 {
            program.call(0xffff, &[Constant(place), Constant(u64::from_le_bytes(value))]);
        }
    }
    program.call(raw::__NR_sendmsg, &[Constant(3), Memory(MESSAGE), Constant(NONBLOCK)]);
    program.call(raw::__NR_recvmsg, &[Constant(4), Memory(MESSAGE), Constant(NONBLOCK)]);
}

fn filter(program: &mut Program) {
    let (Memory(data), Constant(length)) = program.data() else { return };
    program.call(raw::__NR_prctl, &[Constant(38), Constant(1)]);
    // `struct sock_fprog`: the data are the filter's instructions.
    program.call(0xffff, &[Constant(0xd00), Constant(length / 8)]);
    program.call(0xffff, &[Constant(0xd08), Constant(0x2000_0000 + data)]);
    program.call(raw::__NR_seccomp, &[Constant(1), Constant(0), Memory(0xd00)]);
    for _ in 0..3 {
        program.call(raw::__NR_getppid, &[]);
    }
    program.call(raw::__NR_socket, &[Constant(AF_INET), Constant(2), Constant(0)]);
    program.call(raw::__NR_setsockopt, &[Constant(3), Constant(1), Constant(26), Memory(0xd00), Constant(16)]);
}

fn options(program: &mut Program, level: u64, name: u64) {
    let (data, length) = program.data();
    for (family, kind) in [(AF_INET, 1), (AF_INET, 2), (AF_UNIX, 1), (AF_NETLINK, 3)] {
        let socket = program.call(raw::__NR_socket, &[Constant(family), Constant(kind), Constant(0)]);
        program.call(raw::__NR_setsockopt, &[Result(socket), Constant(level), Constant(name), data, length]);
        program.call(raw::__NR_getsockopt, &[Result(socket), Constant(level), Constant(name), Memory(0x9000), Memory(0xd00)]);
        program.call(raw::__NR_bind, &[Result(socket), data, length]);
        program.call(raw::__NR_connect, &[Result(socket), data, length]);
    }
}

fn terminal(program: &mut Program, request: u64) {
    let (data, length) = program.data();
    let opened = program.call(raw::__NR_open, &[Path(12), Constant(2)]);
    program.call(raw::__NR_ioctl, &[Result(opened), Constant(0x4004_5431), Memory(0xff00)]);
    program.call(raw::__NR_ioctl, &[Result(opened), Constant(request), data]);
    program.call(raw::__NR_write, &[Result(opened), data, length]);
    program.call(raw::__NR_ioctl, &[Result(opened), Constant(0x5402), data]);
    program.call(raw::__NR_write, &[Result(opened), data, length]);
}

fn structures(program: &mut Program, number: u32) {
    let (data, length) = program.data();
    program.call(number, &[data, length, data, length, data, length]);
    program.call(number, &[Constant(0), data, length, data, length, Constant(0)]);
    program.call(number, &[Constant(1), Constant(1), data, data, length, data]);
}

/// Calls whose argument is a structure that `messages` has no better way for.
const STRUCTURED: &[u32] = &[
    raw::__NR_clone3,
    raw::__NR_rt_sigaction,
    raw::__NR_rt_sigreturn,
    raw::__NR_sigaltstack,
    raw::__NR_mount,
    raw::__NR_openat2,
    raw::__NR_statx,
    raw::__NR_futex_waitv,
    raw::__NR_timer_create,
    raw::__NR_capset,
    raw::__NR_semop,
    raw::__NR_msgsnd,
    raw::__NR_sched_setattr,
    raw::__NR_setxattr,
    raw::__NR_prlimit64,
    raw::__NR_select,
    raw::__NR_pselect6,
    raw::__NR_ppoll,
    raw::__NR_set_robust_list,
    raw::__NR_rseq,
];

fuzz_target!(|bytes: &[u8]| {
    let [first, second, third, rest @ ..] = bytes else { return };
    let mut program = Program::default();
    program.set_data(rest);
    match first % 8 {
        0 => netlink(&mut program),
        1 => control(&mut program, 1 + u64::from(second % 5), rest),
        2 => filter(&mut program),
        3 => options(&mut program, [1, 0, 6, 17, 41, 270][usize::from(second % 6)], u64::from(*third)),
        4 => terminal(&mut program, 0x5400 + u64::from(*second % 0x80)),
        _ => structures(&mut program, STRUCTURED[usize::from(*second) % STRUCTURED.len()]),
    }
    guest::execute(&program.encode());
});
