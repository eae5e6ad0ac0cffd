use super::*;
use crate::vfs::anonymous::AnonymousInode;
use crate::vfs::watch;

fn read(file: &File) -> Result<Vec<(i32, u32, Vec<u8>)>, Errno> {
    let mut buffer = vec![0; 4096];
    let count = file.ops.read(file, &mut Destination::own(&mut buffer), 0)?;
    let mut events = Vec::new();
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let end = HEADER + word(12) as usize;
        let name = rest[HEADER..end].split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        events.push((word(0) as i32, word(4), name));
        rest = &rest[end..];
    }
    Ok(events)
}

#[test]
fn events_are_filtered_named_and_end_with_their_inode() {
    let file = open(0);
    let inotify = file.ops_as::<Inotify>().expect("an instance");
    let directory: Arc<dyn Inode> = AnonymousInode::new("directory", FileType::Directory);
    let watch = inotify.add(&directory, None, raw::IN_CREATE | raw::IN_DELETE_SELF).expect("watched");
    assert_eq!(inotify.add(&directory, None, raw::IN_DELETE | raw::IN_MASK_ADD), Ok(watch));
    watch::entry_event(&*directory, b"new", FileType::Regular, raw::IN_CREATE, 0);
    watch::entry_event(&*directory, b"new", FileType::Regular, raw::IN_CREATE, 0);
    watch::entry_event(&*directory, b"sub", FileType::Directory, raw::IN_DELETE, 0);
    watch::entry_event(&*directory, b"new", FileType::Regular, raw::IN_ATTRIB, 0);
    directory.common().watches.notify(raw::IN_DELETE_SELF, 0, None);
    directory.common().watches.notify(raw::IN_DELETE_SELF, 0, None);
    let expected = vec![
        (watch, raw::IN_CREATE, b"new".to_vec()),
        (watch, raw::IN_DELETE | raw::IN_ISDIR, b"sub".to_vec()),
        (watch, raw::IN_DELETE_SELF, vec![]),
        (watch, raw::IN_IGNORED, vec![]),
    ];
    assert_eq!(read(&file), Ok(expected));
    assert_eq!(read(&file), Err(Errno::EAGAIN));
    assert_eq!(inotify.remove(watch), Err(Errno::EINVAL));
}
