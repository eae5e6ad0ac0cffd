use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use super::*;
use crate::wait::{Parker, Wake};

fn read(file: &File, length: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; length];
    let count = file.ops.read(file, &mut Destination::own(&mut buffer), u64::MAX)?;
    buffer.truncate(count);
    Ok(buffer)
}

#[test]
fn pipes_never_block_and_announce_bytes() {
    let (reader, mut writer) = std::io::pipe().expect("host pipe");
    let file = open(OwnedFd::from(reader)).expect("opened");
    assert_eq!(file.inode.file_type(), FileType::Fifo);
    assert_eq!(read(&file, 10), Err(Errno::EAGAIN));
    let parker = Arc::new(Parker::default());
    file.ops.watch(true);
    let number = file.ops.queue().expect("a queue").register(PollEvents::READ, parker.clone() as Arc<dyn Wake>);
    for _ in 0..3 {
        writer.write_all(b"hello").expect("written");
        parker.park(Some(crate::time::monotonic_ns() + 5_000_000_000));
        assert_eq!(read(&file, 10), Ok(b"hello".to_vec()));
        assert_eq!(read(&file, 10), Err(Errno::EAGAIN));
    }
    file.ops.queue().expect("a queue").unregister(number);
    file.ops.watch(false);
    drop(writer);
    assert_eq!(read(&file, 10), Ok(vec![]));
}

#[test]
fn two_descriptors_of_one_file_write_one_after_the_other() {
    let mut host = tempfile();
    let (first, second) = (host.try_clone().expect("cloned"), host.try_clone().expect("cloned"));
    let (first, second) = (open(first.into()).expect("opened"), open(second.into()).expect("opened"));
    for (file, text) in [(&first, "one "), (&second, "two "), (&first, "three")] {
        assert_eq!(file.ops.write(file, &mut Source::own(text.as_bytes()), u64::MAX), Ok(text.len()));
    }
    assert_eq!(first.current_position(), Ok(13));
    host.rewind().expect("rewound");
    let mut text = String::new();
    host.read_to_string(&mut text).expect("read");
    assert_eq!(text, "one two three");
}

fn tempfile() -> std::fs::File {
    let fd = rustix::fs::memfd_create(c"stdio-test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    fd.into()
}
