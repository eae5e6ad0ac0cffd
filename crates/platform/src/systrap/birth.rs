//! The stub's page in the kernel process, and the first stub.

use std::ffi::c_void;
use std::io;
use std::sync::Arc;

use cloudpilot_abi::raw;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::Shared;
use super::filter;
use super::layout::{HOST_END, HostCall, SLOT_SIZE, STUB_CODE, STUB_CODE_SIZE, TURN_KERNEL, TURN_RESUME, VDSO};
use super::slots::Slots;
use super::stub;
use super::thread::SystrapThread;

/// Maps the stub's page where every stub will inherit it.
pub fn map_stub_code() -> io::Result<()> {
    let address = STUB_CODE as *mut c_void;
    let size = STUB_CODE_SIZE as usize;
    // SAFETY: the address lies where neither the program nor the host's allocator puts anything; NOREPLACE refuses if one did.
    unsafe {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        let page = rustix::mm::mmap_anonymous(address, size, ProtFlags::READ | ProtFlags::WRITE, flags)?;
        let code = stub::code();
        assert!(code.len() <= size, "the stub's code outgrew its page");
        std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len());
        rustix::mm::mprotect(page, size, MprotectFlags::READ | MprotectFlags::EXEC)?;
    }
    Ok(())
}

/// Where the host put its vDSO and the data pages before it: the mappings as (start, end), and the ELF header's address.
#[derive(Clone, Debug, Default)]
pub struct HostVdso {
    areas: Vec<(u64, u64)>,
    header: u64,
}

/// Finds the host's vDSO in `/proc/self/maps`. The first call decides: make it while that can be reached; forks keep the place. None where there
/// is none: programs then make system calls for the time.
pub fn find_vdso() -> Option<&'static HostVdso> {
    static FOUND: std::sync::OnceLock<Option<HostVdso>> = std::sync::OnceLock::new();
    FOUND.get_or_init(read_vdso).as_ref()
}

fn read_vdso() -> Option<HostVdso> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut found = HostVdso::default();
    for line in maps.lines() {
        if !(line.ends_with("[vvar]") || line.ends_with("[vvar_vclock]") || line.ends_with("[vdso]")) {
            continue;
        }
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let area = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        if found.areas.last().is_some_and(|last| last.1 != area.0) {
            return None;
        }
        found.areas.push(area);
        if line.ends_with("[vdso]") {
            found.header = area.0;
        }
    }
    (found.header != 0).then_some(found)
}

/// Where it lies in stubs: start (with its data), end, ELF header.
pub fn moved(vdso: &HostVdso) -> Option<(u64, u64, u64)> {
    let (start, end) = (vdso.areas.first()?.0, vdso.areas.last()?.1);
    Some((VDSO, VDSO + (end - start), VDSO + (vdso.header - start)))
}

/// The first stub between its birth and its first stop.
pub struct FirstStub {
    slot: u32,
    pid: i32,
    vdso: Option<&'static HostVdso>,
}

impl FirstStub {
    /// Makes it from a copy of this process. `vdso` is where it lies in this process.
    pub fn bear(shared: &Shared, vdso: Option<&'static HostVdso>) -> io::Result<Self> {
        let slot = shared.slots.allocate().ok_or(io::ErrorKind::OutOfMemory)?;
        let program = filter::program();
        let rseq = rseq_registration();
        // The first stop, an illegal instruction, is awaited like any other: as if the stub had been resumed.
        shared.slots.prepare(slot);
        shared.slots.header(slot).turn.store(TURN_RESUME, std::sync::atomic::Ordering::SeqCst);
        let flags = u64::from(raw::CLONE_FILES | raw::SIGCHLD);
        // SAFETY: a fork; the child runs on its own copy of the stack and makes nothing but system calls.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            become_stub(shared.slots.descriptor(), slot, &program, rseq, vdso);
        }
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        shared.slots.assign(pid as i32, slot);
        Ok(Self { slot, pid: pid as i32, vdso })
    }

    /// Waits for its first stop and empties its address space.
    pub fn grow_up(self, shared: &Arc<Shared>) -> io::Result<SystrapThread> {
        let Self { slot, pid, vdso } = self;
        if let Some(status) = await_first_stop(shared.slots.header(slot), pid)? {
            shared.slots.process_died(pid);
            // Once more, without what may lie in the way.
            if vdso.is_some() {
                return Self::bear(shared, None)?.grow_up(shared);
            }
            return Err(io::Error::other(format!("the first stub ended before its first instruction, with status {status}")));
        }
        let mut thread = SystrapThread::new(Arc::clone(shared), slot, pid, pid);
        if !thread.note_stop() || thread.stop_signal() != libc::SIGILL {
            return Err(io::Error::other("the first stub crashed before its first instruction"));
        }
        if !thread.forget_origin() {
            return Err(io::Error::other("the host's signal frames are not as expected"));
        }
        let own = Slots::guest_address(slot);
        // Its thread pointer is that of the kernel process, whose place is nobody's business.
        let mut calls = vec![
            HostCall::new(raw::__NR_madvise, &[own, SLOT_SIZE, u64::from(raw::MADV_DONTFORK)]),
            HostCall::new(raw::__NR_arch_prctl, &[ARCH_SET_FS, 0]),
        ];
        let mut from = 0;
        let code = (STUB_CODE, STUB_CODE + STUB_CODE_SIZE);
        let kept = [
            Some(code),
            vdso.and_then(moved).map(|(start, end, _)| (start, end)),
            Some((own, own + SLOT_SIZE)),
            Some((HOST_END, HOST_END)),
        ];
        for (start, end) in kept.into_iter().flatten() {
            calls.push(HostCall::new(raw::__NR_munmap, &[from, start - from]));
            from = end;
        }
        thread.call_all(&mut calls).map_err(|_| io::Error::other("the first stub ended while it emptied its address space"))?;
        Ok(thread)
    }
}

/// Waits for the first stop of a stub that nobody watches yet; answers the exit status of one that ended instead.
fn await_first_stop(header: &super::layout::Header, pid: i32) -> io::Result<Option<i32>> {
    use rustix::process::{Pid, WaitOptions, waitpid};
    loop {
        let interval = rustix::thread::futex::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        header.kernel_sleeping.store(1, std::sync::atomic::Ordering::SeqCst);
        let turn = header.turn.load(std::sync::atomic::Ordering::SeqCst);
        if turn == TURN_KERNEL {
            header.kernel_sleeping.store(0, std::sync::atomic::Ordering::SeqCst);
            return Ok(None);
        }
        let _ = rustix::thread::futex::wait(&header.turn, rustix::thread::futex::Flags::empty(), turn, Some(&interval));
        if let Some((_, status)) = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG)? {
            return Ok(Some(status.exit_status().unwrap_or(-1)));
        }
    }
}

/// Address and size of the calling thread's registered `rseq` area. A stub must withdraw it: the host would write to it after it is unmapped.
fn rseq_registration() -> Option<(u64, u32)> {
    unsafe extern "C" {
        static __rseq_offset: isize;
        static __rseq_size: u32;
    }
    let thread_pointer: u64;
    // SAFETY: on x86-64 the first word of the thread block is its own address; the two symbols are glibc's constants.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) thread_pointer, options(nostack, readonly));
        (__rseq_size != 0).then(|| (thread_pointer.wrapping_add_signed(__rseq_offset as i64), __rseq_size.max(32)))
    }
}

/// `arch_prctl(2)`.
const ARCH_SET_FS: u64 = 0x1002;
/// Exit status of a first stub that could not move the vDSO.
const EXIT_VDSO: u64 = 2;
/// Signature that glibc registers `rseq` with on x86-64.
const RSEQ_SIGNATURE: u64 = 0x5305_3053;
const RSEQ_FLAG_UNREGISTER: u64 = 1;

/// Signals that a stub handles: stops of the guest, and the interrupter's.
const STOP_SIGNALS: [i32; 7] =
    [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, super::thread::INTERRUPT];

/// In the child: installs the handler and the filter, then stops for the first time.
fn become_stub(slots: i32, slot: u32, program: &[libc::sock_filter], rseq: Option<(u64, u32)>, vdso: Option<&HostVdso>) -> ! {
    let call = |number: i64, args: [u64; 6]| {
        // SAFETY: each call below only touches this child.
        unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) }
    };
    let address = Slots::guest_address(slot);
    call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0, 0, 0]);
    call(libc::SYS_prctl, [libc::PR_SET_NAME as u64, c"cloudpilot-stub".as_ptr() as u64, 0, 0, 0, 0]);
    if let Some((area, size)) = rseq {
        call(libc::SYS_rseq, [area, u64::from(size), RSEQ_FLAG_UNREGISTER, RSEQ_SIGNATURE, 0, 0]);
    }
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
    call(libc::SYS_mmap, [address, SLOT_SIZE, protection, flags, slots as u64, u64::from(slot) * SLOT_SIZE]);
    let stack = libc::stack_t { ss_sp: (address + 4096) as *mut c_void, ss_flags: 0, ss_size: (SLOT_SIZE - 4096) as usize };
    call(libc::SYS_sigaltstack, [(&raw const stack) as u64, 0, 0, 0, 0, 0]);
    // handler, flags, restorer, mask
    const SA_RESTORER: u64 = 0x0400_0000;
    let action = [stub::HANDLER, libc::SA_SIGINFO as u64 | libc::SA_ONSTACK as u64 | SA_RESTORER, stub::HANDLER, u64::MAX];
    let mut mask = u64::MAX;
    for signal in STOP_SIGNALS {
        call(libc::SYS_rt_sigaction, [signal as u64, action.as_ptr() as u64, 0, 8, 0, 0]);
        mask &= !(1 << (signal - 1));
    }
    call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, (&raw const mask) as u64, 0, 8, 0, 0]);
    if let Some(vdso) = vdso {
        let start = vdso.areas[0].0;
        for &(from, to) in &vdso.areas {
            let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
            if call(libc::SYS_mremap, [from, to - from, to - from, flags, VDSO + (from - start), 0]) < 0 {
                call(libc::SYS_exit_group, [EXIT_VDSO, 0, 0, 0, 0, 0]);
            }
        }
    }
    call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0, 0]);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let refused = call(libc::SYS_seccomp, [u64::from(libc::SECCOMP_SET_MODE_FILTER), 0, (&raw const filter) as u64, 0, 0, 0]);
    if refused != 0 {
        call(libc::SYS_exit_group, [1, 0, 0, 0, 0, 0]);
    }
    // SAFETY: stops here for good; the handler hands the turn over, and the kernel resumes elsewhere.
    unsafe { std::arch::asm!("ud2", options(noreturn)) }
}
