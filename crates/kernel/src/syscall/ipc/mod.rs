//! System V IPC and POSIX message queues: arguments and structures.

mod memory;
mod messages;
mod queues;
mod semaphores;

use cloudpilot_abi::raw;

use super::Arg::{Fd, Flags, Int, Mode, Path, Ptr, Size};
use super::{Args, Call, SysResult};

/// This family.
pub const CALLS: &[Call] = &[
    Call::partial(raw::__NR_shmget, memory::shmget, &[Int, Size, Flags], "huge pages are refused"),
    Call::full(raw::__NR_shmat, memory::shmat, &[Int, Ptr, Flags]),
    Call::full(raw::__NR_shmdt, memory::shmdt, &[Ptr]),
    Call::full(raw::__NR_shmctl, memory::shmctl, &[Int, Int, Ptr]),
    Call::full(raw::__NR_semget, semaphores::semget, &[Int, Int, Flags]),
    Call::full(raw::__NR_semop, |task, args| semaphores::operate(task, args, None), &[Int, Ptr, Size]),
    Call::full(raw::__NR_semtimedop, semaphores::semtimedop, &[Int, Ptr, Size, Ptr]),
    Call::full(raw::__NR_semctl, semaphores::semctl, &[Int, Int, Int, Ptr]),
    Call::full(raw::__NR_msgget, messages::msgget, &[Int, Flags]),
    Call::full(raw::__NR_msgsnd, messages::msgsnd, &[Int, Ptr, Size, Flags]),
    Call::full(raw::__NR_msgrcv, messages::msgrcv, &[Int, Ptr, Size, Int, Flags]),
    Call::full(raw::__NR_msgctl, messages::msgctl, &[Int, Int, Ptr]),
    Call::full(raw::__NR_mq_open, queues::mq_open, &[Path, Flags, Mode, Ptr]),
    Call::full(raw::__NR_mq_unlink, queues::mq_unlink, &[Path]),
    Call::full(raw::__NR_mq_timedsend, queues::mq_timedsend, &[Fd, Ptr, Size, Size, Ptr]),
    Call::full(raw::__NR_mq_timedreceive, queues::mq_timedreceive, &[Fd, Ptr, Size, Ptr, Ptr]),
    Call::full(raw::__NR_mq_notify, queues::mq_notify, &[Fd, Ptr]),
    Call::full(raw::__NR_mq_getsetattr, queues::mq_getsetattr, &[Fd, Ptr, Ptr]),
];

const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
/// A flag that old C libraries add to commands.
const IPC_64: u32 = 0x100;
const READ: u32 = 4;
const WRITE: u32 = 2;
