//! What `/proc/sys/kernel` and `/proc/sys/fs/mqueue` set for one IPC namespace.

use std::collections::BTreeMap;

use cloudpilot_abi::Errno;
use parking_lot::Mutex;

/// Largest message, `MSGMAX`.
pub const MESSAGE_SIZE: &str = "kernel/msgmax";
/// Bytes that a new queue may hold, `MSGMNB`.
pub const QUEUE_BYTES: &str = "kernel/msgmnb";
/// Most queues, `MSGMNI`.
pub const QUEUES: &str = "kernel/msgmni";
/// Number of the next queue; -1 for any.
pub const NEXT_QUEUE: &str = "kernel/msg_next_id";
/// `SEMMSL`, `SEMMNS`, `SEMOPM`, `SEMMNI`.
pub const SEMAPHORES: &str = "kernel/sem";
/// Number of the next set of semaphores.
pub const NEXT_SET: &str = "kernel/sem_next_id";
/// Pages of all segments, `SHMALL`.
pub const SEGMENT_PAGES: &str = "kernel/shmall";
/// Largest segment, `SHMMAX`.
pub const SEGMENT_SIZE: &str = "kernel/shmmax";
/// Most segments, `SHMMNI`.
pub const SEGMENTS: &str = "kernel/shmmni";
/// Number of the next segment.
pub const NEXT_SEGMENT: &str = "kernel/shm_next_id";
/// Messages of a POSIX queue that nobody said how many for, and the most of others.
pub const POSIX_DEFAULT_COUNT: &str = "fs/mqueue/msg_default";
/// See [`POSIX_DEFAULT_COUNT`].
pub const POSIX_MOST_COUNT: &str = "fs/mqueue/msg_max";
/// The same for the size of messages.
pub const POSIX_DEFAULT_SIZE: &str = "fs/mqueue/msgsize_default";
/// See [`POSIX_DEFAULT_SIZE`].
pub const POSIX_MOST_SIZE: &str = "fs/mqueue/msgsize_max";
/// Most POSIX queues.
pub const POSIX_QUEUES: &str = "fs/mqueue/queues_max";

/// No number in particular.
const ANY: i128 = -1;
/// Linux's default for sizes of shared memory: all there is.
const ALL_MEMORY: i128 = u64::MAX as i128 - (1 << 24);
/// Messages are kept in the kernel's own memory.
const LARGEST_MESSAGE: i128 = 16 << 20;
const LONGEST_INT: i128 = i32::MAX as i128;
/// Most objects of one kind that numbers leave room for, `IPCMNI`.
const MOST_OBJECTS: i128 = 32_768;

/// Path, defaults, least and most.
const SETTINGS: &[(&str, &[i128], i128, i128)] = &[
    (POSIX_DEFAULT_COUNT, &[10], 1, 65_536),
    (POSIX_MOST_COUNT, &[10], 1, 65_536),
    (POSIX_DEFAULT_SIZE, &[8192], 128, 16 << 20),
    (POSIX_MOST_SIZE, &[8192], 128, 16 << 20),
    (POSIX_QUEUES, &[256], 0, LONGEST_INT),
    (NEXT_QUEUE, &[ANY], 0, LONGEST_INT),
    (MESSAGE_SIZE, &[8192], 0, LARGEST_MESSAGE),
    (QUEUE_BYTES, &[16_384], 0, LARGEST_MESSAGE),
    (QUEUES, &[32_000], 0, MOST_OBJECTS),
    (SEMAPHORES, &[32_000, 1_024_000_000, 500, 32_000], 0, LONGEST_INT),
    (NEXT_SET, &[ANY], 0, LONGEST_INT),
    (NEXT_SEGMENT, &[ANY], 0, LONGEST_INT),
    (SEGMENT_PAGES, &[ALL_MEMORY], 0, u64::MAX as i128),
    (SEGMENT_SIZE, &[ALL_MEMORY], 0, u64::MAX as i128),
    (SEGMENTS, &[4096], 0, MOST_OBJECTS),
];

/// The settings that were written; the others have their default.
#[derive(Default)]
pub struct Limits(Mutex<BTreeMap<&'static str, Vec<i128>>>);

impl Limits {
    /// All numbers of a setting; empty for what is none.
    pub fn numbers(&self, path: &str) -> Vec<i128> {
        if let Some(numbers) = self.0.lock().get(path) {
            return numbers.clone();
        }
        SETTINGS.iter().find(|setting| setting.0 == path).map_or_else(Vec::new, |setting| setting.1.to_vec())
    }

    /// One number of a setting.
    pub fn number(&self, path: &str, index: usize) -> u64 {
        self.numbers(path).get(index).and_then(|number| u64::try_from(*number).ok()).unwrap_or(0)
    }

    /// The number that the next object is to have, which counts once.
    pub fn take_next(&self, path: &str) -> Option<i32> {
        let next = self.0.lock().remove(path)?;
        next.first().and_then(|number| i32::try_from(*number).ok()).filter(|number| *number >= 0)
    }

    /// As the file shows it.
    pub fn show(&self, path: &str) -> String {
        self.numbers(path).iter().map(ToString::to_string).collect::<Vec<_>>().join("\t")
    }

    /// Takes what was written to a file: as many numbers as are given, the others stay.
    ///
    /// # Errors
    ///
    /// `EINVAL` for what is no number, or none that the setting can have.
    pub fn write(&self, path: &str, text: &str) -> Result<(), Errno> {
        let &(path, defaults, least, most) = SETTINGS.iter().find(|setting| setting.0 == path).ok_or(Errno::EINVAL)?;
        let mut numbers = self.numbers(path);
        let given: Result<Vec<i128>, _> = text.split_whitespace().map(str::parse).collect();
        let given = given.map_err(|_| Errno::EINVAL)?;
        if given.is_empty() || given.len() > defaults.len() || given.iter().any(|number| !(least..=most).contains(number)) {
            return Err(Errno::EINVAL);
        }
        numbers.iter_mut().zip(given).for_each(|(number, given)| *number = given);
        self.0.lock().insert(path, numbers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_what_was_not_given() {
        let limits = Limits::default();
        assert_eq!(limits.show(SEMAPHORES), "32000\t1024000000\t500\t32000");
        limits.write(SEMAPHORES, "10 20\n").expect("numbers");
        assert_eq!(limits.number(SEMAPHORES, 1), 20);
        assert_eq!(limits.number(SEMAPHORES, 2), 500);
        assert_eq!(limits.write(SEMAPHORES, "x"), Err(Errno::EINVAL));
        assert_eq!(limits.write(NEXT_QUEUE, "-1"), Err(Errno::EINVAL));
        limits.write(NEXT_QUEUE, "7").expect("a number");
        assert_eq!((limits.take_next(NEXT_QUEUE), limits.take_next(NEXT_QUEUE)), (Some(7), None));
    }
}
