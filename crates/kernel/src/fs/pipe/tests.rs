use super::*;

fn write(pipe: &Pipe, bytes: &[u8], packet: bool) -> Result<usize, Errno> {
    pipe.write(&mut Source::own(bytes), packet)
}

fn read(pipe: &Pipe, length: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; length];
    let count = pipe.read(&mut Destination::own(&mut buffer))?;
    buffer.truncate(count);
    Ok(buffer)
}

#[test]
fn bytes_arrive_in_order_and_the_end_is_seen() {
    let (reader, writer) = new_pair(0);
    let pipe = of_file(&reader).expect("a pipe").clone();
    assert_eq!(read(&pipe, 1), Err(Errno::EAGAIN));
    write(&pipe, b"hello ", false).expect("room");
    write(&pipe, b"world", false).expect("room");
    assert_eq!(read(&pipe, 8).expect("bytes"), b"hello wo");
    drop(writer);
    assert_eq!(read(&pipe, 8).expect("bytes"), b"rld");
    assert_eq!(read(&pipe, 8).expect("end"), b"");
    assert!(pipe.poll(true, false).contains(PollEvents::HUP));
}

#[test]
fn small_writes_are_whole_or_not_at_all() {
    let (reader, writer) = new_pair(0);
    let pipe = of_file(&reader).expect("a pipe").clone();
    let big = vec![7; 16 * PAGE - 10];
    assert_eq!(write(&pipe, &big, false), Ok(big.len()));
    assert_eq!(write(&pipe, &[1; 11], false), Err(Errno::EAGAIN));
    assert_eq!(write(&pipe, &[1; 10], false), Ok(10));
    assert_eq!(write(&pipe, &vec![2; 2 * PAGE], false), Err(Errno::EAGAIN));
    read(&pipe, PAGE).expect("bytes");
    assert_eq!(write(&pipe, &vec![2; 2 * PAGE], false), Ok(PAGE));
    drop(reader);
    assert_eq!(write(&pipe, b"x", false), Err(Errno::EPIPE));
    drop(writer);
}

#[test]
fn packets_keep_their_bounds() {
    let (reader, _writer) = new_pair(0);
    let pipe = of_file(&reader).expect("a pipe").clone();
    write(&pipe, b"one", true).expect("room");
    write(&pipe, b"two", true).expect("room");
    assert_eq!(read(&pipe, 100).expect("packet"), b"one");
    assert_eq!(read(&pipe, 2).expect("packet"), b"tw");
    assert_eq!(read(&pipe, 2), Err(Errno::EAGAIN));
}

#[test]
fn splice_and_tee() {
    let (first, _first_writer) = new_pair(0);
    let (second, _second_writer) = new_pair(0);
    let (from, to) = (of_file(&first).expect("a pipe").clone(), of_file(&second).expect("a pipe").clone());
    write(&from, &vec![b'a'; PAGE + 5], false).expect("room");
    assert_eq!(tee_between(&from, &to, 3), Ok(3));
    assert_eq!(move_between(&from, &to, PAGE + 2), Ok(PAGE + 2));
    assert_eq!(read(&to, 2 * PAGE).expect("bytes").len(), PAGE + 5);
    assert_eq!(read(&from, 100).expect("bytes"), b"aaa");
    assert_eq!(move_between(&from, &from, 1), Err(Errno::EINVAL));
}
