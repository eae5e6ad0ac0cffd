//! What the guest has changed about its root, as an image's layer: a tar archive with whiteouts.

use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloudpilot_abi::Errno;
use cloudpilot_kernel::Kernel;
use cloudpilot_kernel::fs::tmpfs::changes::{self, Change, Contents};
use cloudpilot_kernel::vfs::inode::Attributes;
use tar::{Builder, EntryType, Header};

/// Bytes that are written at once.
const PIECE: usize = 256 << 10;
/// Zeros at the end.
const END: u64 = 1024;

/// Writes the layer; answers its length.
pub fn write(kernel: &Arc<Kernel>, left_out: &[Vec<u8>], to: OwnedFd) -> Result<u64, Errno> {
    let init = kernel.init().ok_or(Errno::ESRCH)?;
    let counted = Counted { to: std::fs::File::from(to), count: 0 };
    let mut archive = Builder::new(BufWriter::with_capacity(PIECE, counted));
    changes::compare(init.fs().root.inode(), left_out, &mut |path, change, attributes| {
        add(&mut archive, path, change, attributes).map_err(|error| errno(&error))
    })?;
    let mut file = archive.into_inner().map_err(|error| errno(&error))?;
    file.flush().map_err(|error| errno(&error))?;
    Ok(file.get_ref().count.max(END))
}

fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().and_then(|number| u16::try_from(number).ok()).unwrap_or(Errno::EIO.0))
}

fn add(archive: &mut Builder<impl Write>, path: &[u8], change: Change, attributes: &Attributes) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(attributes.permissions);
    header.set_uid(attributes.uid.into());
    header.set_gid(attributes.gid.into());
    header.set_mtime(u64::try_from(attributes.modified.tv_sec).unwrap_or(0));
    header.set_size(0);
    let path = as_path(path);
    match change {
        Change::Removed => {
            header.set_mode(0o644);
            let name = path.file_name().unwrap_or_default();
            let mut hidden = std::ffi::OsString::from(".wh.");
            hidden.push(name);
            header.set_entry_type(EntryType::Regular);
            archive.append_data(&mut header, path.with_file_name(hidden), io::empty())
        }
        Change::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, path, io::empty())
        }
        Change::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            archive.append_data(&mut header, path, io::empty())
        }
        Change::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, path, as_path(&target))
        }
        Change::HardLink(first) => {
            header.set_entry_type(EntryType::Link);
            archive.append_link(&mut header, path, as_path(&first))
        }
        Change::File(contents) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(attributes.size);
            archive.append_data(&mut header, path, Exactly { contents, offset: 0, size: attributes.size })
        }
    }
}

fn as_path(bytes: &[u8]) -> &std::path::Path {
    std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

/// A file's contents, as long as the header says even if somebody shortens it meanwhile.
struct Exactly {
    contents: Contents,
    offset: u64,
    size: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..left];
        let mut count = self.contents.read_at(self.offset, buffer).map_err(|errno| io::Error::from_raw_os_error(errno.0.into()))?;
        if count == 0 {
            buffer.fill(0);
            count = left;
        }
        self.offset += count as u64;
        Ok(count)
    }
}

struct Counted {
    to: std::fs::File,
    count: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
