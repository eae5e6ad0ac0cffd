use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::io::{Destination, Source};
use crate::task::Credentials;
use crate::vfs::file::File;
use crate::vfs::inode::{NewNode, SetAttributes, SetTime};
use cloudpilot_abi::raw;
use cloudpilot_abi::types::Timespec;

/// A directory of the host and the volume on it.
struct Fixture {
    path: PathBuf,
    root: Arc<dyn Inode>,
}

impl Fixture {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cloudpilot-volume-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("made");
        let root = root(path_handle(&path), false).expect("a volume");
        Self { path, root }
    }

    fn host(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn create(&self, name: &str, node: NewNode<'_>, permissions: u32) -> Result<Arc<dyn Inode>, Errno> {
        self.root.create(name.as_bytes(), node, permissions, &Credentials::new(0, 0, Vec::new()))
    }

    fn find(&self, name: &str) -> Result<Arc<dyn Inode>, Errno> {
        self.root.lookup(name.as_bytes())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn path_handle(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("opened")
}

fn open(inode: &Arc<dyn Inode>, flags: u32) -> Result<Arc<File>, Errno> {
    let any: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(inode) as _;
    let node = any.downcast::<Node>().expect("a node of a volume");
    Ok(File::new(node.open_as(flags)?, Arc::clone(inode), None, flags))
}

fn write(file: &File, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    file.ops.write(file, &mut Source::own(bytes), offset)
}

fn read(file: &File, offset: u64) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 100];
    let count = file.ops.read(file, &mut Destination::own(&mut buffer), offset)?;
    buffer.truncate(count);
    Ok(buffer)
}

fn list(file: &File, mut cursor: u64, at_once: usize) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let (mut room, from) = (at_once, cursor);
        let mut sink = |name: &[u8], _: u64, _: FileType, after: u64| {
            if room == 0 {
                return false;
            }
            room -= 1;
            cursor = after;
            names.push(String::from_utf8_lossy(name).into_owned());
            true
        };
        file.ops.read_directory(file, from, &mut sink).expect("listed");
        if room == at_once {
            names.sort();
            return names;
        }
    }
}

#[test]
fn files_are_made_written_and_read() {
    let place = Fixture::new();
    let made = place.create("file", NewNode::File, 0o444).expect("made");
    let file = open(&made, raw::O_RDWR).expect("its maker may write whatever its mode says");
    assert_eq!(write(&file, b"hello", 2), Ok(5));
    assert_eq!(read(&file, 0), Ok(b"\0\0hello".to_vec()));
    assert_eq!(std::fs::read(place.host("file")).expect("there"), b"\0\0hello");
    assert_eq!(file.ops.end_of_file(&file), Ok(7));
    assert_eq!(place.create("file", NewNode::File, 0o644).err(), Some(Errno::EEXIST));
    made.set_attributes(&SetAttributes { size: Some(3), ..SetAttributes::default() }).expect("truncated");
    assert_eq!(made.attributes().expect("there").size, 3);
    assert_eq!(file.ops.sync(&file, false), Ok(()));
}

#[test]
fn an_inode_has_one_identity_under_all_its_names() {
    let place = Fixture::new();
    let one = place.create("one", NewNode::File, 0o644).expect("made");
    place.root.link(b"two", &one).expect("linked");
    let two = place.find("two").expect("there");
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(two.attributes().expect("there").links, 2);
    let before = one.attributes().expect("there").inode;
    drop((one, two));
    assert_eq!(place.find("one").expect("there").attributes().expect("there").inode, before);
}

#[test]
fn links_are_text_and_never_followed() {
    let place = Fixture::new();
    symlink("../..", place.host("up")).expect("made");
    symlink("/etc/passwd", place.host("passwd")).expect("made");
    let node = |name: &str| {
        let any: Arc<dyn std::any::Any + Send + Sync> = place.find(name).expect("there") as _;
        any.downcast::<Node>().expect("a node of a volume")
    };
    let up = node("up");
    assert_eq!(up.file_type(), FileType::Symlink);
    assert_eq!(up.link_target(), Ok(b"../..".to_vec()));
    assert_eq!(up.lookup(b"etc").err(), Some(Errno::ENOTDIR));
    assert_eq!(node("passwd").open_as(raw::O_RDONLY).err(), Some(Errno::ENXIO));
    let made = place.create("own", NewNode::Symlink(b"/anywhere"), 0o777).expect("made");
    assert_eq!(made.file_type(), FileType::Symlink);
    // What was a file when it was found, and a link when it is opened.
    std::fs::write(place.host("swapped"), b"").expect("written");
    let swapped = place.find("swapped").expect("there");
    std::fs::remove_file(place.host("swapped")).expect("removed");
    symlink("/etc/passwd", place.host("swapped")).expect("made");
    assert_eq!(open(&swapped, raw::O_RDONLY).err(), Some(Errno::ELOOP));
}

#[test]
fn nothing_above_or_beyond_can_be_named() {
    let place = Fixture::new();
    assert_eq!(place.find("..").err(), Some(Errno::EXDEV));
    assert_eq!(place.find("/etc").err(), Some(Errno::EXDEV));
    assert_eq!(place.find("a\0b").err(), Some(Errno::ENOENT));
}

#[test]
fn another_file_under_the_name_is_not_taken_for_the_first() {
    let place = Fixture::new();
    std::fs::write(place.host("file"), b"first").expect("written");
    let first = place.find("file").expect("there");
    std::fs::write(place.host("other"), b"second").expect("written");
    std::fs::rename(place.host("other"), place.host("file")).expect("renamed");
    assert_eq!(open(&first, raw::O_RDONLY).err(), Some(Errno::ESTALE));
    let second = place.find("file").expect("there");
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(read(&open(&second, raw::O_RDONLY).expect("opened"), 0), Ok(b"second".to_vec()));
}

#[test]
fn an_unlinked_file_lives_while_open() {
    let place = Fixture::new();
    let inode = place.create("file", NewNode::File, 0o644).expect("made");
    let file = open(&inode, raw::O_RDWR).expect("opened");
    place.root.unlink(b"file").expect("unlinked");
    assert_eq!(place.find("file").err(), Some(Errno::ENOENT));
    assert_eq!(write(&file, b"still here", 0), Ok(10));
    assert_eq!(inode.attributes().expect("there").links, 0);
    let again = open(&inode, raw::O_RDONLY).expect("opened through /proc/self/fd");
    drop(file);
    assert_eq!(read(&again, 0), Ok(b"still here".to_vec()));
}

#[test]
fn renames_keep_identity_and_say_no_where_asked() {
    let place = Fixture::new();
    let inode = place.create("a", NewNode::File, 0o644).expect("made");
    place.create("b", NewNode::File, 0o644).expect("made");
    place.create("d", NewNode::Directory, 0o755).expect("made");
    let directory = place.find("d").expect("there");
    assert_eq!(place.root.rename(b"a", &place.root, b"b", raw::RENAME_NOREPLACE), Err(Errno::EEXIST));
    place.root.rename(b"a", &directory, b"moved", 0).expect("renamed");
    let file = open(&inode, raw::O_WRONLY).expect("opened by its new name");
    write(&file, b"x", 0).expect("written");
    assert_eq!(std::fs::read(place.host("d/moved")).expect("there"), b"x");
    place.root.rename(b"b", &directory, b"moved", raw::RENAME_EXCHANGE).expect("exchanged");
    assert!(Arc::ptr_eq(&place.find("b").expect("there"), &inode));
    assert_eq!(place.root.rename(b"d", &directory, b"below", 0), Err(Errno::EINVAL));
    assert_eq!(place.root.rmdir(b"d"), Err(Errno::ENOTEMPTY));
    assert_eq!(place.root.unlink(b"d"), Err(Errno::EISDIR));
    directory.unlink(b"moved").expect("unlinked");
    place.root.rmdir(b"d").expect("removed");
    let other = Fixture::new();
    assert_eq!(place.root.rename(b"b", &other.root, b"b", 0), Err(Errno::EXDEV));
    assert_eq!(other.root.link(b"b", &inode), Err(Errno::EXDEV));
}

#[test]
fn appends_go_to_the_end_as_it_is() {
    let place = Fixture::new();
    std::fs::write(place.host("log"), b"one ").expect("written");
    let file = open(&place.find("log").expect("there"), raw::O_WRONLY | raw::O_APPEND).expect("opened");
    assert_eq!(write(&file, b"two ", 0), Ok(4));
    std::fs::OpenOptions::new()
        .append(true)
        .open(place.host("log"))
        .and_then(|mut it| std::io::Write::write_all(&mut it, b"three "))
        .expect("written");
    assert_eq!(write(&file, b"four", 0), Ok(4));
    assert_eq!(std::fs::read(place.host("log")).expect("there"), b"one two three four");
}

#[test]
fn set_id_bits_do_not_reach_the_host() {
    let place = Fixture::new();
    let inode = place.create("tool", NewNode::File, 0o6755).expect("made");
    let mode = || std::fs::metadata(place.host("tool")).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode() & 0o7000, 0);
    inode.set_attributes(&SetAttributes { permissions: Some(0o6711), ..SetAttributes::default() }).expect("changed");
    assert_eq!(mode(), 0o711);
}

#[test]
fn times_and_owners_as_far_as_they_go() {
    let place = Fixture::new();
    let inode = place.create("file", NewNode::File, 0o644).expect("made");
    let then = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
    inode.set_attributes(&SetAttributes { modified: Some(SetTime::At(then)), ..SetAttributes::default() }).expect("set");
    let metadata = std::fs::metadata(place.host("file")).expect("there");
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_000_000_000, 5));
    let present = inode.attributes().expect("there");
    let owner = |uid| SetAttributes { uid: Some(uid), ..SetAttributes::default() };
    assert_eq!(inode.set_attributes(&owner(present.uid)), Ok(()));
    assert_eq!(inode.set_attributes(&owner(present.uid + 1)), Err(Errno::EPERM));
}

#[test]
fn directories_are_listed_whatever_the_size_of_the_steps() {
    let place = Fixture::new();
    let mut expected: Vec<String> = (0..500).map(|number| format!("entry-{number}")).collect();
    for name in &expected {
        std::fs::write(place.host(name), b"").expect("written");
    }
    expected.extend([".".to_owned(), "..".to_owned()]);
    expected.sort();
    let directory = open(&place.root, raw::O_RDONLY | raw::O_DIRECTORY).expect("opened");
    assert_eq!(list(&directory, 0, usize::MAX), expected);
    assert_eq!(list(&directory, 0, 7), expected);
}

#[test]
fn pipes_and_sockets_are_names_and_devices_are_nothing() {
    let place = Fixture::new();
    assert_eq!(place.create("fifo", NewNode::Fifo, 0o4644).map(|made| made.file_type()), Ok(FileType::Fifo));
    assert_eq!(std::fs::metadata(place.host("fifo")).map(|found| found.mode() & 0o7777).ok(), Some(0o644));
    assert_eq!(place.create("name", NewNode::Socket, 0o644).map(|made| made.file_type()), Ok(FileType::Socket));
    assert_eq!(place.create("null", NewNode::Device(FileType::CharacterDevice, 0x103), 0o644).err(), Some(Errno::EPERM));
    let _listener = std::os::unix::net::UnixListener::bind(place.host("socket")).expect("bound");
    let socket = place.find("socket").expect("there");
    assert_eq!(socket.file_type(), FileType::Socket);
    assert_eq!(open(&socket, raw::O_RDONLY).err(), Some(Errno::ENXIO));
}

#[test]
fn holes_are_found_and_made() {
    let place = Fixture::new();
    let inode = place.create("sparse", NewNode::File, 0o644).expect("made");
    let file = open(&inode, raw::O_RDWR).expect("opened");
    write(&file, &[1; 8192], 1 << 20).expect("written");
    assert_eq!(file.ops.seek_data(&file, 1 << 20, true), Ok(1 << 20));
    assert_eq!(file.ops.seek_data(&file, 2 << 20, true), Err(Errno::ENXIO));
    assert_eq!(file.ops.allocate(&file, 0, 0, 3 << 20), Ok(()));
    assert_eq!(file.ops.end_of_file(&file), Ok(3 << 20));
}

#[test]
fn shared_writable_mappings_need_a_file_open_for_writing() {
    let place = Fixture::new();
    let inode = place.create("file", NewNode::File, 0o644).expect("made");
    let reading = open(&inode, raw::O_RDONLY).expect("opened");
    assert_eq!(reading.ops.mapping(&reading, true, true).err(), Some(Errno::EACCES));
    assert!(reading.ops.mapping(&reading, false, true).is_ok());
    let writing = open(&inode, raw::O_RDWR).expect("opened");
    assert!(writing.ops.mapping(&writing, true, true).is_ok());
}

#[test]
fn a_volume_may_be_a_single_file() {
    let place = Fixture::new();
    std::fs::write(place.host("file"), b"whole").expect("written");
    let handle = std::fs::OpenOptions::new().read(true).write(true).open(place.host("file")).expect("opened");
    let inode = root(handle.into(), false).expect("a volume");
    let (one, two) = (open(&inode, raw::O_RDONLY).expect("opened"), open(&inode, raw::O_WRONLY | raw::O_APPEND).expect("opened"));
    assert_eq!(write(&two, b" file", 0), Ok(5));
    assert_eq!(read(&one, 0), Ok(b"whole file".to_vec()));
    let read_only = std::fs::File::open(place.host("file")).expect("opened");
    let inode = root(read_only.into(), true).expect("a volume");
    assert_eq!(open(&inode, raw::O_RDWR).err(), Some(Errno::EROFS));
    assert_eq!(root(path_handle(&place.host("file")), false).err(), Some(Errno::EBADF));
}
