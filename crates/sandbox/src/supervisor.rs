//! The supervisor: watches over one sandbox until it ends, and leaves nothing of it behind. For `run` it is the front as well: it hands
//! signals and window sizes on and turns the program's end into its own exit status.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cloudpilot_jail::cgroup::Cgroup;
use cloudpilot_jail::seccomp;
use cloudpilot_kernel::host::thrift;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, WaitStatus};
use rustix::time::Timespec;
use serde::Deserialize;
use serde_json::json;

use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::kernel_process::STATUS_PANIC;
use crate::news::{News, Reason};
use crate::packet::{self, Received};
use crate::signals::Signals;
use crate::start::Started;
use crate::terminal;

/// Most bytes of a dying kernel process's last words that are passed on.
const LONGEST_LAST_WORDS: usize = 2048;

/// Longest word of the starter.
const LONGEST_WORD: usize = 256;
/// A sandbox that has lived for that long is one that stays.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// What the starter may say on the lifeline: a sandbox that was started in advance is put to use, with its own time from now on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandOut {
    /// It is to outlive its starter.
    detach: bool,
    /// How long it may live from now.
    timeout_ms: Option<u64>,
}

/// How a sandbox ended.
#[derive(Debug)]
pub enum End {
    /// Its program did: with a status, or by a signal.
    Exited(Result<u8, u8>),
    /// Its time was up.
    Timeout(Duration),
    /// Somebody asked for it.
    Shutdown,
    /// Whoever started it is gone, or told us to stop by this signal.
    StarterGone(Option<i32>),
    /// It never ran.
    NotStarted(Failure),
    /// It broke.
    Crashed(Failure),
}

/// Watches over one sandbox.
pub struct Supervisor<'a> {
    sandbox: Started,
    signals: &'a Signals,
    lifeline: Option<&'a OwnedFd>,
    ends_with_lifeline: bool,
    hands_signals_on: bool,
    timeout: Option<Duration>,
    /// When its time is up.
    deadline: Option<Instant>,
    /// When it gives back what only the start needed; none once it has.
    settles: Option<Instant>,
    /// The program's number inside, once it runs.
    program: Option<i32>,
    /// The kernel process has hung up: it is about to die, or does not want to be heard.
    hung_up: bool,
    end: Option<End>,
}

impl<'a> Supervisor<'a> {
    /// For a sandbox that was just started.
    pub fn new(sandbox: Started, config: &Config, signals: &'a Signals, lifeline: Option<&'a OwnedFd>) -> Self {
        let timeout = config.timeout_ms.map(Duration::from_millis);
        let now = Instant::now();
        Self {
            sandbox,
            signals,
            lifeline,
            ends_with_lifeline: !config.detach,
            hands_signals_on: lifeline.is_none(),
            timeout,
            deadline: timeout.map(|timeout| now + timeout),
            settles: Some(now + SETTLED_AFTER),
            program: None,
            hung_up: false,
            end: None,
        }
    }

    /// Waits for the end, removes everything, and answers why it ended.
    pub fn watch(mut self) -> End {
        let mut dead = false;
        while !dead {
            dead = self.wait_once();
        }
        // What it said before it died.
        while self.hear() {}
        let status = rustix::process::waitpid(Some(self.sandbox.kernel.pid), WaitOptions::empty()).ok().flatten().map(|(_, status)| status);
        let end = self.end.take().unwrap_or_else(|| self.explain(status));
        let removed = self.sandbox.remnants.remove();
        self.sandbox.janitor.dismiss();
        match (end, removed) {
            (End::Exited(_), Err(error)) => End::Crashed(Failure::host("Cannot remove what the sandbox left behind", error)),
            (end, _) => end,
        }
    }

    /// One wait. Answers whether the kernel process is dead.
    fn wait_once(&mut self) -> bool {
        let now = Instant::now();
        if self.end.is_none() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.finish(End::Timeout(self.timeout.unwrap_or_default()));
        }
        if self.settles.is_some_and(|settles| settles <= now) {
            thrift::give_back();
            self.settles = None;
        }
        let deadline = self.deadline.filter(|_| self.end.is_none());
        let left = deadline.into_iter().chain(self.settles).min().map(|earliest| earliest.saturating_duration_since(now));
        let timeout = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        let lifeline = self.lifeline.filter(|_| self.ends_with_lifeline && self.end.is_none());
        let mut descriptors =
            vec![PollFd::new(&self.sandbox.kernel.handle, PollFlags::IN), PollFd::new(self.signals.descriptor(), PollFlags::IN)];
        // Once hung up it is always ready: listening on would keep us awake for as long as the kernel process takes to die.
        let link = Some(&self.sandbox.link).filter(|_| !self.hung_up);
        descriptors.extend([link, lifeline].into_iter().flatten().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)));
        let waited = poll(&mut descriptors, timeout.as_ref());
        let ready: Vec<bool> = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
        let (link_ready, lifeline_ready) = match (link, lifeline) {
            (Some(_), Some(_)) => (ready[2], ready[3]),
            (Some(_), None) => (ready[2], false),
            (None, Some(_)) => (false, ready[2]),
            (None, None) => (false, false),
        };
        if let Err(error) = waited.or_else(|error| if error == Errno::INTR { Ok(0) } else { Err(error) }) {
            self.finish(End::Crashed(Failure::host("Cannot wait for the sandbox", error)));
        }
        if link_ready && !ready[0] {
            self.hear();
        }
        if ready[1] {
            while let Some(signal) = self.signals.next() {
                self.pass_on(signal);
            }
        }
        if lifeline_ready && !self.hear_starter() {
            self.finish(End::StarterGone(None));
        }
        ready[0]
    }

    /// Decides on the end; the first decision counts.
    fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        let _ = rustix::process::pidfd_send_signal(&self.sandbox.kernel.handle, Signal::KILL);
    }

    /// Takes what the starter has to say; false once it has hung up.
    fn hear_starter(&mut self) -> bool {
        let mut buffer = [0; LONGEST_WORD];
        let Some(lifeline) = self.lifeline else { return true };
        match rustix::net::recv(lifeline, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT) {
            Ok((0, _)) => false,
            Ok((length, _)) => {
                // What makes no sense changes nothing.
                if let Ok(HandOut { detach, timeout_ms }) = serde_json::from_slice(&buffer[..length.min(LONGEST_WORD)]) {
                    self.ends_with_lifeline = !detach;
                    self.timeout = timeout_ms.map(Duration::from_millis);
                    self.deadline = self.timeout.map(|timeout| Instant::now() + timeout);
                }
                true
            }
            Err(error) => error == Errno::AGAIN || error == Errno::INTR,
        }
    }

    /// Takes one piece of news from the kernel process; false when there is none.
    fn hear(&mut self) -> bool {
        let readable = poll(&mut [PollFd::new(&self.sandbox.link, PollFlags::IN)], Some(&Timespec::default()));
        if readable != Ok(1) {
            return false;
        }
        let Ok(Received::Message(text, _)) = packet::receive(self.sandbox.link.as_fd()) else {
            self.hung_up = true;
            return false;
        };
        // Replies to requests of ours are of no interest.
        match serde_json::from_slice::<News>(&text) {
            Ok(News::Ready { pid, .. }) => {
                self.program = pid;
                self.tell(&News::Ready {
                    pid,
                    supervisor_pid: rustix::process::getpid().as_raw_nonzero().get(),
                    kernel_pid: self.sandbox.kernel.pid.as_raw_nonzero().get(),
                });
                crate::state::sweep(&self.sandbox.remnants.directory);
            }
            Ok(News::Failed(failure)) => self.end = self.end.take().or(Some(End::NotStarted(failure))),
            Ok(News::Broken(failure)) => self.end = self.end.take().or(Some(End::Crashed(failure))),
            Ok(News::Exited { exit_code, signal, .. }) => {
                let result = exit_code.ok_or(signal.unwrap_or(libc::SIGKILL as u8));
                self.end = self.end.take().or(Some(End::Exited(result)));
                if self.lifeline.is_none() {
                    // Meanwhile the kernel process dies. Whoever holds a lifeline may take the directory's end for the sandbox's.
                    let removed = crate::state::remove_directory(&self.sandbox.remnants.directory);
                    if removed.is_ok() && self.sandbox.remnants.cgroups.is_empty() {
                        self.sandbox.janitor.release();
                    }
                }
            }
            Ok(news @ News::Notice { .. }) => self.pass_notice(&news),
            Ok(News::Ended { .. }) => self.end = self.end.take().or(Some(End::Shutdown)),
            Err(_) => {}
        }
        true
    }

    /// Hands a notice to whoever holds the lifeline, or else to the user.
    fn pass_notice(&self, news: &News) {
        self.tell(news);
        if let (None, News::Notice { message }) = (self.lifeline, news) {
            // Whoever does not listen on standard error misses it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("notice: {message}\n").as_bytes());
        }
    }

    /// Tells whoever holds the lifeline.
    fn tell(&self, news: &News) {
        if let Some(lifeline) = self.lifeline {
            // Gone or deaf: the next wait sees the former, the latter is their loss.
            let _ = packet::send(lifeline, news);
        }
    }

    /// Hands a signal on. Those that a terminal sends reach the whole group, as they would without us in between.
    fn pass_on(&mut self, signal: i32) {
        let request = match (self.hands_signals_on, self.program, signal) {
            (_, Some(pid), libc::SIGWINCH) => {
                let (rows, columns) = terminal::size();
                json!({"id": 0, "method": "resize", "params": {"pid": pid, "rows": rows, "columns": columns}})
            }
            (_, None, libc::SIGWINCH) => return,
            (true, Some(pid), libc::SIGINT | libc::SIGQUIT | libc::SIGHUP) => signal_request(-pid, signal),
            (true, Some(pid), _) => signal_request(pid, signal),
            _ => return self.finish(End::StarterGone(Some(signal))),
        };
        let _ = packet::send(&self.sandbox.link, &request);
    }

    /// Why the kernel process died without a word.
    fn explain(&self, status: Option<WaitStatus>) -> End {
        let mut buffer = [0; LONGEST_LAST_WORDS];
        let length = rustix::io::read(&self.sandbox.last_words, &mut buffer).unwrap_or(0);
        let words = String::from_utf8_lossy(&buffer[..length]).trim().replace('\n', "; ");
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let bug = "this is a bug of cloudpilot, or an attack by the program inside; the host is not affected";
        let forbidden =
            Failure::new(Code::Internal, format!("The kernel process made a host call that its jail forbids, and was ended{words}"));
        End::Crashed(match status.map(|status| (status.terminating_signal(), status.exit_status())) {
            Some((Some(libc::SIGSYS), _) | (_, Some(seccomp::STATUS_NAMED_VIOLATION))) => forbidden.hint(bug),
            Some((Some(libc::SIGKILL), _)) if self.sandbox.cgroup.as_ref().is_some_and(Cgroup::out_of_memory) => {
                Failure::new(Code::Limit, "The host ended the sandbox: it used more memory than its control group may")
                    .hint("raise the memory limit")
            }
            Some((Some(libc::SIGKILL), _)) => Failure::new(Code::Ended, "The kernel process was killed by somebody on the host")
                .hint("if nobody did, the host ran out of memory"),
            Some((Some(signal), _)) => {
                Failure::new(Code::Internal, format!("The kernel process crashed by signal {signal}{words}")).hint(bug)
            }
            Some((_, Some(STATUS_PANIC))) => Failure::new(Code::Internal, format!("The kernel process crashed{words}")).hint(bug),
            _ => Failure::new(Code::Internal, format!("The kernel process ended without a reason{words}")).hint(bug),
        })
    }
}

fn signal_request(pid: i32, signal: i32) -> serde_json::Value {
    json!({"id": 0, "method": "signal", "params": {"pid": pid, "signal": signal}})
}

impl End {
    /// As news for whoever holds the lifeline.
    pub fn news(&self) -> News {
        let (reason, result, message) = match self {
            Self::Exited(result) => (Reason::Exited, Some(*result), None),
            Self::Timeout(_) => (Reason::Timeout, None, None),
            Self::Shutdown => (Reason::Shutdown, None, None),
            Self::StarterGone(_) => (Reason::StarterGone, None, None),
            Self::NotStarted(failure) => return News::Failed(failure.clone()),
            Self::Crashed(failure) => (Reason::Crashed, None, Some(failure.message.clone())),
        };
        News::Ended { reason, exit_code: result.and_then(Result::ok), signal: result.and_then(Result::err), message }
    }

    /// As the exit status of `run`, told to the user where it is not the program's own.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exited(Ok(code)) => *code,
            Self::Exited(Err(signal)) => signal.saturating_add(128),
            Self::Timeout(limit) => {
                Failure::new(Code::Limit, format!("The program ran longer than {} s and was ended", limit.as_secs_f64()))
                    .hint("raise `--timeout`, or leave it out")
                    .print();
                crate::failure::STATUS_TIMEOUT
            }
            Self::Shutdown => {
                Failure::new(Code::Ended, "The sandbox was shut down").print();
                crate::failure::STATUS_OURS
            }
            Self::StarterGone(signal) => signal.map_or(crate::failure::STATUS_OURS, |signal| (signal as u8).saturating_add(128)),
            Self::NotStarted(failure) => {
                failure.print();
                failure.status_of_start()
            }
            Self::Crashed(failure) => {
                failure.print();
                crate::failure::STATUS_OURS
            }
        }
    }
}
