use super::*;
use crate::fs::pipe;
use crate::io::{Destination, Source};

fn write(file: &File, bytes: &[u8]) {
    file.ops.write(file, &mut Source::own(bytes), 0).expect("room");
}

fn read(file: &File, length: usize) {
    file.ops.read(file, &mut Destination::own(&mut vec![0; length]), 0).expect("bytes");
}

#[test]
fn level_edge_and_one_shot() {
    let (reader, writer) = pipe::new_pair(0);
    let level = open();
    let edge = open();
    let once = open();
    of_file(&level).expect("epoll").add(3, &reader, raw::EPOLLIN, 1).expect("added");
    of_file(&edge).expect("epoll").add(3, &reader, raw::EPOLLIN | raw::EPOLLET, 2).expect("added");
    of_file(&once).expect("epoll").add(3, &reader, raw::EPOLLIN | raw::EPOLLONESHOT, 3).expect("added");
    let collect = |file: &Arc<File>| of_file(file).expect("epoll").collect(8);
    assert_eq!(collect(&level), vec![]);
    write(&writer, b"abc");
    for _ in 0..2 {
        assert_eq!(collect(&level), vec![(raw::EPOLLIN, 1)]);
    }
    assert_eq!(collect(&edge), vec![(raw::EPOLLIN, 2)]);
    assert_eq!(collect(&edge), vec![]);
    assert_eq!(collect(&once), vec![(raw::EPOLLIN, 3)]);
    write(&writer, b"d");
    assert_eq!(collect(&edge), vec![(raw::EPOLLIN, 2)]);
    assert_eq!(collect(&once), vec![]);
    of_file(&once).expect("epoll").modify(3, &reader, raw::EPOLLIN | raw::EPOLLONESHOT, 4).expect("armed");
    assert_eq!(collect(&once), vec![(raw::EPOLLIN, 4)]);
    read(&reader, 10);
    assert_eq!(collect(&level), vec![]);
    drop(writer);
    assert_eq!(collect(&level), vec![(raw::EPOLLHUP, 1)]);
    drop(reader);
    assert_eq!(collect(&level), vec![]);
}

#[test]
fn nesting_is_bounded_and_free_of_circles() {
    let chain: Vec<_> = (0..8).map(|_| open()).collect();
    let add = |outer: usize, inner: usize| of_file(&chain[outer]).expect("epoll").add(inner as i32, &chain[inner], raw::EPOLLIN, 0);
    for index in 0..4 {
        add(index + 1, index).expect("shallow");
    }
    assert_eq!(add(5, 4), Err(Errno::ELOOP));
    assert_eq!(add(0, 3), Err(Errno::ELOOP));
    let (reader, writer) = pipe::new_pair(0);
    of_file(&chain[0]).expect("epoll").add(9, &reader, raw::EPOLLIN, 0).expect("added");
    assert!(!chain[3].ops.poll(&chain[3]).contains(PollEvents::IN));
    write(&writer, b"x");
    assert!(chain[3].ops.poll(&chain[3]).contains(PollEvents::IN));
}
