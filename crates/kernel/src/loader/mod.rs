//! Program loading: ELF images and `#!` scripts, `execve(2)`, `elf(5)`.
//!
//! In two steps, so that a failure leaves the caller's program intact: [`prepare`] finds and checks everything, [`load`] maps it into an empty
//! address space.

mod elf;
mod stack;

use std::sync::Arc;

use cloudpilot_abi::{Errno, raw};

use crate::io::Destination;
use crate::task::Task;
use crate::vfs::inode::FileType;
use crate::vfs::permission::{self, EXECUTE};
use crate::vfs::write_access::RunAccess;
use crate::vfs::{File, Path, Walk};

pub use elf::{Start, load};

/// Scripts whose interpreter is a script whose interpreter …, as on Linux.
const MAX_SCRIPTS: usize = 5;
/// Bytes of a file that decide what it is, `BINPRM_BUF_SIZE`.
const HEAD_SIZE: usize = 256;
/// One argument or environment string, with its end, `MAX_ARG_STRLEN`.
pub const MAX_STRING: usize = 131_072;
/// All strings and their pointers together, Linux's ceiling of three quarters of 8 MiB.
const MAX_STRINGS: usize = 6 << 20;

/// What to execute.
pub struct Request {
    /// The opened program.
    pub file: Arc<File>,
    /// What the caller named it, for `AT_EXECFN` and script arguments.
    pub name: Vec<u8>,
    /// `argv`.
    pub arguments: Vec<Vec<u8>>,
    /// `envp`.
    pub environment: Vec<Vec<u8>>,
    /// Its name leads through a descriptor that exec closes: the interpreter of a script would not find it.
    pub is_lost: bool,
}

/// A checked program, ready to be mapped.
pub struct Program {
    /// The ELF file (of a script: its interpreter).
    pub file: Arc<File>,
    /// Keeps writers away from it.
    pub access: Arc<RunAccess>,
    image: elf::Image,
    interpreter: Option<(Arc<File>, elf::Image)>,
    /// For `AT_EXECFN`.
    name: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
    /// `comm`: the last component of what was named.
    pub command: Vec<u8>,
}

/// Opens a program: it must be a regular file that the caller may execute.
pub fn open_program(walk: &Walk<'_>, path: &[u8], flags: u32) -> Result<Arc<File>, Errno> {
    let place = walk.lookup(path, flags & raw::O_NOFOLLOW == 0)?;
    open_place(walk.task, walk, place)
}

/// The same for a place already found.
pub fn open_place(task: &Arc<Task>, walk: &Walk<'_>, place: Path) -> Result<Arc<File>, Errno> {
    let inode = Arc::clone(place.inode());
    match inode.file_type() {
        FileType::Regular => {}
        FileType::Symlink => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if place.mount.flags() & raw::MS_NOEXEC != 0 {
        return Err(Errno::EACCES);
    }
    permission::check(&inode, &walk.credentials, EXECUTE)?;
    let ops = Arc::clone(&inode).open(raw::O_RDONLY, task)?;
    Ok(File::new(ops, inode, Some(place), raw::O_RDONLY))
}

/// Reads a part of a program file; shorter at its end.
fn read_at(file: &File, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; length];
    let mut done = 0;
    while done < length {
        match file.ops.read(file, &mut Destination::own(&mut buffer[done..]), offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    buffer.truncate(done);
    Ok(buffer)
}

/// Follows scripts to their interpreters and checks the ELF files; nothing of the task changes.
pub fn prepare(task: &Arc<Task>, request: Request) -> Result<Program, Errno> {
    let Request { mut file, name, mut arguments, environment, is_lost } = request;
    let walk = Walk::of(task);
    let command = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec();
    let mut script = name.clone();
    for _ in 0..MAX_SCRIPTS {
        let access = Arc::new(RunAccess::take(&file.inode)?);
        let head = read_at(&file, 0, HEAD_SIZE)?;
        if !head.starts_with(b"#!") {
            check_strings(&arguments, &environment, &name)?;
            let image = elf::Image::parse(&file, &head)?;
            let interpreter = match &image.interpreter {
                Some(path) => Some(open_interpreter(&walk, path)?),
                None => None,
            };
            return Ok(Program { file, access, image, interpreter, name, arguments, environment, command });
        }
        let (interpreter, argument) = parse_script(&head).ok_or(Errno::ENOEXEC)?;
        if is_lost {
            return Err(Errno::ENOENT);
        }
        let mut front = vec![interpreter.clone()];
        front.extend(argument);
        front.push(script);
        arguments.splice(..arguments.len().min(1), front);
        file = open_program(&walk, &interpreter, 0)?;
        script = interpreter;
    }
    Err(Errno::ELOOP)
}

fn open_interpreter(walk: &Walk<'_>, path: &[u8]) -> Result<(Arc<File>, elf::Image), Errno> {
    let file = open_program(walk, path, 0)?;
    let head = read_at(&file, 0, HEAD_SIZE)?;
    let image = elf::Image::parse(&file, &head).map_err(|errno| if errno == Errno::ENOEXEC { Errno::ELIBBAD } else { errno })?;
    Ok((file, image))
}

/// Interpreter and its one optional argument. A first line cut off within the interpreter's path is no script.
fn parse_script(head: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let line_end = head.iter().position(|&byte| byte == b'\n');
    let line = &head[2..line_end.unwrap_or(head.len())];
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start = line.iter().position(|byte| !blank(byte))?;
    let line = &line[start..];
    let end = line.iter().position(|byte| blank(byte) || *byte == 0);
    if end.is_none() && line_end.is_none() && head.len() == HEAD_SIZE {
        return None;
    }
    let (interpreter, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let trimmed: &[u8] = match (rest.iter().position(|byte| !blank(byte)), rest.iter().rposition(|byte| !blank(byte))) {
        (Some(first), Some(last)) => &rest[first..=last],
        _ => &[],
    };
    (!interpreter.is_empty()).then(|| (interpreter.to_vec(), (!trimmed.is_empty()).then(|| trimmed.to_vec())))
}

fn check_strings(arguments: &[Vec<u8>], environment: &[Vec<u8>], name: &[u8]) -> Result<(), Errno> {
    let mut total = name.len() + 1;
    for string in arguments.iter().chain(environment) {
        if string.len() + 1 > MAX_STRING {
            return Err(Errno::E2BIG);
        }
        total += string.len() + 1 + size_of::<u64>();
    }
    if total > MAX_STRINGS { Err(Errno::E2BIG) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::parse_script;

    #[test]
    fn first_lines_of_scripts() {
        let parse = |text: &str| {
            parse_script(text.as_bytes())
                .map(|(one, two)| (String::from_utf8(one).unwrap(), two.map(|two| String::from_utf8(two).unwrap())))
        };
        assert_eq!(parse("#!/bin/sh\necho"), Some(("/bin/sh".into(), None)));
        assert_eq!(parse("#! \t/usr/bin/env  python3 -u \n"), Some(("/usr/bin/env".into(), Some("python3 -u".into()))));
        assert_eq!(parse("#!/bin/sh"), Some(("/bin/sh".into(), None)));
        assert_eq!(parse("#!\n"), None);
        assert_eq!(parse(&format!("#!/{}", "x".repeat(300))[..256]), None);
    }
}
