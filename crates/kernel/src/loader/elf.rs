//! ELF images, `elf(5)`: checked as a whole before anything is mapped.

use std::sync::Arc;

use cloudpilot_abi::{Errno, PAGE_SIZE, page_down, page_up, raw};
use cloudpilot_platform::Executor;

use super::{Program, read_at, stack};
use crate::mm::{Layout, MapRequest, Mm, Placement};
use crate::system::random_bytes;
use crate::task::Credentials;
use crate::vfs::File;

const HEADER_SIZE: usize = 64;
pub(super) const PROGRAM_HEADER_SIZE: usize = 56;
/// Most program headers: Linux bounds the table to 64 KiB.
const MAX_HEADERS: usize = 65_536 / PROGRAM_HEADER_SIZE;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// Where position-independent programs go, before randomisation: two thirds of the address space, as on Linux.
const PIE_BASE: u64 = 0x5555_5555_4000;
/// Pages by which such a program's base varies, `vm.mmap_rnd_bits` of 28.
const PIE_RANDOM_PAGES: u64 = 1 << 28;
/// Pages by which the heap's start varies (32 MiB).
const BREAK_RANDOM_PAGES: u64 = 0x2000;

/// One `PT_LOAD` segment.
#[derive(Clone, Copy)]
struct Segment {
    address: u64,
    offset: u64,
    file_size: u64,
    memory_size: u64,
    flags: u32,
}

impl Segment {
    fn end(&self) -> u64 {
        self.address + self.memory_size
    }

    fn protection(&self) -> u32 {
        let mut protection = raw::PROT_NONE;
        for (flag, bit) in [(PF_R, raw::PROT_READ), (PF_W, raw::PROT_WRITE), (PF_X, raw::PROT_EXEC)] {
            if self.flags & flag != 0 {
                protection |= bit;
            }
        }
        protection
    }
}

/// The parts of an ELF file that loading needs.
pub(super) struct Image {
    entry: u64,
    position_independent: bool,
    segments: Vec<Segment>,
    /// Address of the program headers in the image.
    headers: u64,
    header_count: u64,
    pub(super) interpreter: Option<Vec<u8>>,
    executable_stack: bool,
    alignment: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Image {
    /// Checks headers and segments: hostile files are refused here with `ENOEXEC`.
    pub(super) fn parse(file: &File, head: &[u8]) -> Result<Self, Errno> {
        let identification = b"\x7fELF\x02\x01\x01";
        if head.len() < HEADER_SIZE || !head.starts_with(identification) || u16_at(head, 18) != EM_X86_64 {
            return Err(Errno::ENOEXEC);
        }
        let kind = u16_at(head, 16);
        let (header_offset, count) = (u64_at(head, 32), usize::from(u16_at(head, 56)));
        if !matches!(kind, ET_EXEC | ET_DYN)
            || usize::from(u16_at(head, 54)) != PROGRAM_HEADER_SIZE
            || !(1..=MAX_HEADERS).contains(&count)
            || header_offset > i64::MAX as u64 - 65_536
        {
            return Err(Errno::ENOEXEC);
        }
        let table = read_at(file, header_offset, count * PROGRAM_HEADER_SIZE)?;
        if table.len() < count * PROGRAM_HEADER_SIZE {
            return Err(Errno::ENOEXEC);
        }
        let mut image = Self {
            entry: u64_at(head, 24),
            position_independent: kind == ET_DYN,
            segments: Vec::new(),
            headers: 0,
            header_count: count as u64,
            interpreter: None,
            executable_stack: false,
            alignment: PAGE_SIZE,
        };
        for header in table.chunks_exact(PROGRAM_HEADER_SIZE) {
            image.take_header(file, header, header_offset)?;
        }
        image.check_segments()?;
        Ok(image)
    }

    fn take_header(&mut self, file: &File, header: &[u8], table_offset: u64) -> Result<(), Errno> {
        let (offset, address) = (u64_at(header, 8), u64_at(header, 16));
        let (file_size, memory_size) = (u64_at(header, 32), u64_at(header, 40));
        match u32_at(header, 0) {
            PT_LOAD => {
                let segment = Segment { address, offset, file_size, memory_size, flags: u32_at(header, 4) };
                if table_offset >= offset && table_offset < offset.saturating_add(file_size) && self.headers == 0 {
                    self.headers = address.wrapping_add(table_offset - offset);
                }
                let alignment = u64_at(header, 48);
                if alignment.is_power_of_two() {
                    self.alignment = self.alignment.max(alignment);
                }
                self.segments.push(segment);
            }
            PT_PHDR => self.headers = address,
            PT_INTERP if self.interpreter.is_none() => {
                if !(2..=4096).contains(&file_size) {
                    return Err(Errno::ENOEXEC);
                }
                let mut path = read_at(file, offset, file_size as usize)?;
                if path.len() as u64 != file_size || path.pop() != Some(0) {
                    return Err(Errno::ENOEXEC);
                }
                path.truncate(path.iter().position(|&byte| byte == 0).unwrap_or(path.len()));
                self.interpreter = Some(path);
            }
            PT_GNU_STACK => self.executable_stack = u32_at(header, 4) & PF_X != 0,
            _ => {}
        }
        Ok(())
    }

    fn check_segments(&mut self) -> Result<(), Errno> {
        self.segments.retain(|segment| segment.memory_size > 0);
        if self.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        let mut previous_end = 0;
        for segment in &self.segments {
            let end = segment.address.checked_add(segment.memory_size).ok_or(Errno::ENOEXEC)?;
            if segment.file_size > segment.memory_size
                || segment.offset.checked_add(segment.file_size).is_none_or(|end| end > i64::MAX as u64)
                || segment.address % PAGE_SIZE != segment.offset % PAGE_SIZE
                || segment.address < previous_end
                || end > 1 << 47
            {
                return Err(Errno::ENOEXEC);
            }
            previous_end = end;
        }
        Ok(())
    }

    /// First page and end of the last one.
    fn extent(&self) -> Result<(u64, u64), Errno> {
        let (first, last) = (self.segments.first(), self.segments.last());
        match (first, last) {
            (Some(first), Some(last)) => Ok((page_down(first.address), page_up(last.end()).ok_or(Errno::ENOEXEC)?)),
            _ => Err(Errno::ENOEXEC),
        }
    }

    /// Maps all segments, moved by `bias`.
    fn map(&self, mm: &Mm, executor: &mut dyn Executor, file: &Arc<File>, bias: u64, limit: u64) -> Result<(), Errno> {
        for segment in &self.segments {
            map_segment(mm, executor, file, segment, bias, limit)?;
        }
        Ok(())
    }
}

fn map_segment(mm: &Mm, executor: &mut dyn Executor, file: &Arc<File>, segment: &Segment, bias: u64, limit: u64) -> Result<(), Errno> {
    let address = segment.address.wrapping_add(bias);
    let start = page_down(address);
    let lead = address - start;
    let protection = segment.protection();
    let file_end = address + segment.file_size;
    let end = page_up(address + segment.memory_size).ok_or(Errno::ENOEXEC)?;
    let mut mapped_end = start;
    if segment.file_size > 0 {
        mapped_end = page_up(file_end).ok_or(Errno::ENOEXEC)?;
        let mapping = file.ops.mapping(file, false, protection & raw::PROT_WRITE != 0)?;
        let request = MapRequest {
            mapping,
            offset: segment.offset - lead,
            file: Some(Arc::clone(file)),
            ..MapRequest::anonymous(Placement::FixedFree(start), mapped_end - start, protection)
        };
        mm.map(executor, request, limit)?;
        // Zeroes follow the file's bytes in the last page; a segment that may not be written keeps what the file has there, as on Linux.
        if segment.memory_size > segment.file_size && protection & raw::PROT_WRITE != 0 && mapped_end > file_end {
            mm.write(executor, file_end, &vec![0; (mapped_end - file_end) as usize])?;
        }
    }
    if end > mapped_end {
        let request = MapRequest::anonymous(Placement::FixedFree(mapped_end), end - mapped_end, protection);
        mm.map(executor, request, limit)?;
    }
    Ok(())
}

/// A random number below `bound`.
fn random_below(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes);
    u64::from_le_bytes(bytes) % bound
}

/// Where a program starts.
pub struct Start {
    /// First instruction: the interpreter's, if there is one.
    pub entry: u64,
    /// Stack pointer.
    pub stack: u64,
}

/// Maps a program into an empty address space. `limits`: `RLIMIT_AS` and `RLIMIT_STACK`.
pub fn load(
    program: &Program,
    mm: &Mm,
    executor: &mut dyn Executor,
    credentials: &Credentials,
    secure: bool,
    (space_limit, stack_limit): (u64, u64),
) -> Result<Start, Errno> {
    let image = &program.image;
    let (first, last) = image.extent()?;
    let bias = match image.position_independent {
        // An interpreter run by hand, or a static program: as if placed by mmap. Both go to the place of programs here.
        true => {
            let base = PIE_BASE + random_below(PIE_RANDOM_PAGES) * PAGE_SIZE;
            (base & !(image.alignment.min(1 << 30) - 1)).wrapping_sub(first)
        }
        false => 0,
    };
    let (stack_top, stack_size) = stack::reserve(mm, executor, stack_limit, image.executable_stack, space_limit)?;
    image.map(mm, executor, &program.file, bias, space_limit)?;
    let end = last.wrapping_add(bias);
    let brk = end + random_below(BREAK_RANDOM_PAGES) * PAGE_SIZE;
    let mut entry = image.entry.wrapping_add(bias);
    let mut interpreter_base = 0;
    if let Some((file, interpreter)) = &program.interpreter {
        let (first, last) = interpreter.extent()?;
        let interpreter_bias = match interpreter.position_independent {
            true => {
                // Found by a reservation that goes again at once.
                let place = Placement::Anywhere(0);
                let at = mm.map(executor, MapRequest::anonymous(place, last - first, raw::PROT_NONE), space_limit)?;
                mm.unmap(executor, at, last - first)?;
                at.wrapping_sub(first)
            }
            false => 0,
        };
        interpreter.map(mm, executor, file, interpreter_bias, space_limit)?;
        interpreter_base = interpreter_bias;
        entry = interpreter.entry.wrapping_add(interpreter_bias);
    }
    let executable = image.segments.iter().find(|segment| segment.flags & PF_X != 0);
    let range = |segment: Option<&Segment>| {
        segment.map_or((0, 0), |segment| (segment.address.wrapping_add(bias), segment.address.wrapping_add(bias) + segment.file_size))
    };
    let mut layout = Layout { code: range(executable), data: range(image.segments.last()), brk: (brk, brk), ..Layout::default() };
    let facts = stack::Facts {
        headers: image.headers.wrapping_add(bias),
        header_count: image.header_count,
        entry: image.entry.wrapping_add(bias),
        interpreter_base,
        credentials,
        secure,
        vdso: mm.limits().vdso.map(|vdso| vdso.2),
    };
    let (stack, auxiliary_vector) = stack::fill(mm, executor, program_strings(program), &facts, (stack_top, stack_size), &mut layout)?;
    mm.set_layout(layout, auxiliary_vector);
    Ok(Start { entry, stack })
}

fn program_strings(program: &Program) -> stack::Strings<'_> {
    stack::Strings { name: &program.name, arguments: &program.arguments, environment: &program.environment }
}
