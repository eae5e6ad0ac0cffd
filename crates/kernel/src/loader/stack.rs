//! A program's first stack: strings, vectors and the auxiliary vector, as the System V ABI for x86-64 lays them out.

use cloudpilot_abi::{Errno, PAGE_SIZE, page_down, raw, raw_auxvec};
use cloudpilot_platform::Executor;

use super::elf::PROGRAM_HEADER_SIZE;
use crate::mm::{Layout, MapRequest, Mm, Placement};
use crate::system::{MACHINE, random_bytes};
use crate::task::Credentials;

/// Stack that exists from the start beyond what the strings need; the rest grows on demand.
const INITIAL_ROOM: u64 = 128 << 10;
/// Bytes by which the stack's top varies (16 GiB), in pages.
const TOP_RANDOM_PAGES: u64 = 1 << 22;
/// Least room kept free for the stack to grow, whatever its limit (Linux's `MIN_GAP`).
const SMALLEST_GAP: u64 = 128 << 20;
/// Most room kept free for it: five sixths of the address space on Linux; less here, so that an unlimited stack leaves room for mappings.
const LARGEST_GAP: u64 = 64 << 30;
/// Largest initial area: strings and vectors at their limits, and the room.
const LARGEST_INITIAL: u64 = 16 << 20;

/// What the vectors are made of.
pub(super) struct Strings<'a> {
    pub name: &'a [u8],
    pub arguments: &'a [Vec<u8>],
    pub environment: &'a [Vec<u8>],
}

/// What the auxiliary vector tells.
pub(super) struct Facts<'a> {
    pub headers: u64,
    pub header_count: u64,
    pub entry: u64,
    pub interpreter_base: u64,
    pub credentials: &'a Credentials,
    pub secure: bool,
    /// Address of the vDSO's ELF header.
    pub vdso: Option<u64>,
}

/// Makes the stack's area; answers its top and size.
pub(super) fn reserve(mm: &Mm, executor: &mut dyn Executor, stack_limit: u64, executable: bool, limit: u64) -> Result<(u64, u64), Errno> {
    let mut random = [0; 8];
    random_bytes(&mut random);
    let shift = u64::from_le_bytes(random) % TOP_RANDOM_PAGES * PAGE_SIZE;
    let top = mm.limits().highest - PAGE_SIZE - shift;
    let protection = raw::PROT_READ | raw::PROT_WRITE | if executable { raw::PROT_EXEC } else { 0 };
    let request = MapRequest {
        grows_down: true,
        name: Some("[stack]".to_owned()),
        ..MapRequest::anonymous(Placement::FixedFree(top - INITIAL_ROOM), INITIAL_ROOM, protection)
    };
    mm.map(executor, request, limit)?;
    mm.set_mmap_top(page_down(top - stack_limit.clamp(SMALLEST_GAP, LARGEST_GAP) - (shift >> 4)));
    Ok((top, LARGEST_INITIAL))
}

/// Writes strings, vectors and auxiliary vector; answers the stack pointer and the auxiliary vector.
pub(super) fn fill(
    mm: &Mm,
    executor: &mut dyn Executor,
    strings: Strings<'_>,
    facts: &Facts<'_>,
    (top, largest): (u64, u64),
    layout: &mut Layout,
) -> Result<(u64, Vec<u64>), Errno> {
    // The whole block is made here and copied at once; addresses count from its end, which is the stack's top.
    let mut block: Vec<u8> = Vec::new();
    let total: usize = strings.arguments.iter().chain(strings.environment).map(|string| string.len() + 1).sum();
    let tail = 8 + strings.name.len() + 1;
    let strings_start = (top - (tail + total) as u64) & !15;
    let mut pointers: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    let mut ranges = [(0, 0); 2];
    for (index, list) in [strings.arguments, strings.environment].into_iter().enumerate() {
        ranges[index].0 = strings_start + block.len() as u64;
        for string in list {
            pointers[index].push(strings_start + block.len() as u64);
            block.extend_from_slice(string);
            block.push(0);
        }
        ranges[index].1 = strings_start + block.len() as u64;
    }
    let name_address = strings_start + block.len() as u64;
    block.extend_from_slice(strings.name);
    block.push(0);
    let mut random = [0; 16];
    random_bytes(&mut random);
    let mut platform = [0; 8];
    platform[..MACHINE.len()].copy_from_slice(MACHINE.as_bytes());
    let fixed_start = strings_start - 32;
    let (random_address, platform_address) = (fixed_start, fixed_start + 16);
    let vector = auxiliary_vector(facts, name_address, random_address, platform_address);
    let words = 1 + pointers[0].len() + 1 + pointers[1].len() + 1 + vector.len();
    let stack = (fixed_start - words as u64 * 8) & !15;
    let mut image = Vec::with_capacity((top - stack) as usize);
    let push = |image: &mut Vec<u8>, word: u64| image.extend_from_slice(&word.to_le_bytes());
    push(&mut image, pointers[0].len() as u64);
    for list in &pointers {
        list.iter().for_each(|&pointer| push(&mut image, pointer));
        push(&mut image, 0);
    }
    vector.iter().for_each(|&word| push(&mut image, word));
    image.resize((fixed_start - stack) as usize, 0);
    image.extend_from_slice(&random);
    image.extend_from_slice(&platform);
    image.resize((strings_start - stack) as usize, 0);
    image.append(&mut block);
    if top - stack > largest {
        return Err(Errno::E2BIG);
    }
    let area_start = top - INITIAL_ROOM;
    if stack < area_start + INITIAL_ROOM / 2 {
        // Long strings: the area grows as it would by being touched.
        let low = page_down(stack) - INITIAL_ROOM;
        mm.fault(executor, low, cloudpilot_platform::Access::Write, u64::MAX).map_err(Errno::from)?;
    }
    mm.write(executor, stack, &image)?;
    layout.stack = stack;
    layout.arguments = ranges[0];
    layout.environment = ranges[1];
    Ok((stack, vector))
}

fn auxiliary_vector(facts: &Facts<'_>, name: u64, random: u64, platform: u64) -> Vec<u64> {
    // SAFETY: only reads what the host told this process about its processor.
    let host = |kind: u32| unsafe { libc::getauxval(u64::from(kind)) };
    let credentials = facts.credentials;
    let mut vector = Vec::with_capacity(48);
    let mut add = |kind: u32, value: u64| vector.extend([u64::from(kind), value]);
    if let Some(header) = facts.vdso {
        add(raw_auxvec::AT_SYSINFO_EHDR, header);
    }
    add(raw_auxvec::AT_HWCAP, host(raw_auxvec::AT_HWCAP));
    add(raw_auxvec::AT_PAGESZ, PAGE_SIZE);
    add(raw_auxvec::AT_CLKTCK, 100);
    add(raw_auxvec::AT_PHDR, facts.headers);
    add(raw_auxvec::AT_PHENT, PROGRAM_HEADER_SIZE as u64);
    add(raw_auxvec::AT_PHNUM, facts.header_count);
    add(raw_auxvec::AT_BASE, facts.interpreter_base);
    add(raw_auxvec::AT_FLAGS, 0);
    add(raw_auxvec::AT_ENTRY, facts.entry);
    add(raw_auxvec::AT_UID, u64::from(credentials.ruid));
    add(raw_auxvec::AT_EUID, u64::from(credentials.euid));
    add(raw_auxvec::AT_GID, u64::from(credentials.rgid));
    add(raw_auxvec::AT_EGID, u64::from(credentials.egid));
    add(raw_auxvec::AT_SECURE, u64::from(facts.secure));
    add(raw_auxvec::AT_RANDOM, random);
    add(raw_auxvec::AT_HWCAP2, host(raw_auxvec::AT_HWCAP2));
    add(raw_auxvec::AT_EXECFN, name);
    add(raw_auxvec::AT_PLATFORM, platform);
    add(raw_auxvec::AT_MINSIGSTKSZ, host(raw_auxvec::AT_MINSIGSTKSZ));
    add(raw_auxvec::AT_NULL, 0);
    vector
}
