//! Runs a few instructions in real stubs and looks at the stops.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use cloudpilot_memory::MemoryFile;
use cloudpilot_platform::systrap::{Systrap, find_vdso};
use cloudpilot_platform::{Access, Backing, GuestThread, Platform, Registers, Stop};

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const READ_EXEC: u32 = 5;
const READ_WRITE: u32 = 3;

/// `1: syscall; jmp 1b`
const LOOP: [u8; 4] = [0x0f, 0x05, 0xeb, 0xfc];

/// One platform a process, as in the product.
fn machine(code: &[u8]) -> (Arc<MemoryFile>, &'static Systrap, Box<dyn GuestThread>, u64) {
    static MACHINE: OnceLock<(Arc<MemoryFile>, Systrap)> = OnceLock::new();
    let (memory, platform) = MACHINE.get_or_init(|| {
        let memory = MemoryFile::new().expect("memory file");
        let platform = Systrap::new(memory.descriptor().as_raw_fd(), find_vdso(), Box::new(|_| ())).expect("platform");
        (memory, platform)
    });
    let memory = Arc::clone(memory);
    let mut thread = platform.spawn().expect("thread");
    let range = memory.allocate(0x2000).expect("range");
    memory.write(range.start, code);
    thread.map(CODE, 0x1000, READ_EXEC, Backing::Memory(range.start)).expect("map code");
    thread.map(DATA, 0x1000, READ_WRITE, Backing::Memory(range.start + 0x1000)).expect("map data");
    (memory, platform, thread, range.start + 0x1000)
}

fn system_calls_stop_and_results_arrive() {
    let (_memory, _platform, mut thread, _) = machine(&LOOP);
    let mut registers = Registers { rip: CODE, rax: 39, rdi: 7, eflags: 0x202, rsp: DATA + 0x800, ..Registers::default() };
    for round in 0..1000 {
        assert_eq!(thread.run(&mut registers, &mut || {}), Stop::SystemCall);
        assert_eq!((registers.rdi, registers.rip), (7, CODE + 2));
        registers.rax = 1000 + round;
    }
    thread.finish(true);
}

fn faults_tell_address_and_access() {
    // mov [rdi], rax; jmp rsi
    let (_memory, _platform, mut thread, _) = machine(&[0x48, 0x89, 0x07, 0xff, 0xe6]);
    let mut registers = Registers { rip: CODE, rdi: 0x60_0008, rsi: 0x70_0000, eflags: 0x202, ..Registers::default() };
    assert_eq!(thread.run(&mut registers, &mut || {}), Stop::Fault { address: 0x60_0008, access: Access::Write });
    registers.rdi = DATA;
    assert_eq!(thread.run(&mut registers, &mut || {}), Stop::Fault { address: 0x70_0000, access: Access::Execute });
    thread.finish(true);
}

fn a_fork_has_its_own_registers_and_the_same_mappings() {
    // mov [rdi], rax; syscall
    let (memory, _platform, mut thread, data) = machine(&[0x48, 0x89, 0x07, 0x0f, 0x05]);
    let mut registers = Registers { rip: CODE, rdi: DATA, rax: 5, eflags: 0x202, ..Registers::default() };
    assert_eq!(thread.run(&mut registers, &mut || {}), Stop::SystemCall);
    let mut child = thread.fork().expect("fork");
    let mut sibling = thread.spawn_thread().expect("thread");
    for (value, runner) in [(6_u64, &mut child), (7, &mut sibling)] {
        let mut own = Registers { rip: CODE, rax: value, ..registers };
        let stop = runner.run(&mut own, &mut || {});
        assert_eq!(stop, Stop::SystemCall);
        let mut bytes = [0; 8];
        memory.read(data, &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), value);
    }
    let mut empty = thread.fork_empty().expect("empty");
    let mut own = Registers { rip: CODE, ..registers };
    assert_eq!(empty.run(&mut own, &mut || {}), Stop::Fault { address: CODE, access: Access::Execute });
    thread.set_fs_base(0x1234_5000).expect("set");
    assert_eq!(thread.fs_base().expect("get"), 0x1234_5000);
    // Outside of a namespace of their own, stubs outlive the process that they served.
    sibling.finish(false);
    for last in [child, empty, thread] {
        last.finish(true);
    }
}

fn an_endless_loop_can_be_interrupted_and_killed() {
    let (_memory, _platform, mut thread, _) = machine(&[0xeb, 0xfe]);
    let interrupter = thread.interrupter();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let helper = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            interrupter.interrupt();
            std::thread::sleep(std::time::Duration::from_millis(50));
            while !done.load(Ordering::SeqCst) {
                interrupter.kill();
            }
        }
    });
    let mut registers = Registers { rip: CODE, eflags: 0x202, ..Registers::default() };
    assert_eq!(thread.run(&mut registers, &mut || {}), Stop::Interrupted);
    assert_eq!(thread.run(&mut registers, &mut || {}), Stop::Gone);
    done.store(true, Ordering::SeqCst);
    helper.join().expect("helper");
}

/// One test, since a stub dies with the thread that made the platform.
#[test]
fn stops() {
    system_calls_stop_and_results_arrive();
    faults_tell_address_and_access();
    a_fork_has_its_own_registers_and_the_same_mappings();
    an_endless_loop_can_be_interrupted_and_killed();
}
