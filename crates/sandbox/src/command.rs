//! The command line: what the Python package calls. People use `pilot`.

use std::io::Read;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::FdFlags;

use crate::config::Config;
use crate::failure::{Code, Failure, STATUS_OURS};
use crate::kernel_process::Streams;
use crate::machine::Boot;
use crate::news::News;
use crate::packet::{self, Received};
use crate::signals::Signals;
use crate::start;
use crate::supervisor::{End, Supervisor};
use crate::terminal::{self, RawMode};

const HELP: &str = "\
Runs sandboxes for `pilot`; people use `pilot run`.

Usage: cloudpilot-sandbox run --config-fd N      run one, with this process's standard streams
       cloudpilot-sandbox create --config-fd N   start one that ends with its lifeline
       cloudpilot-sandbox --version
       cloudpilot-sandbox --help

N is a descriptor from which the configuration is read as JSON.
";

/// Longest configuration: arguments and environment are bounded by the host to 2 MiB anyway.
const LONGEST_CONFIG: u64 = 8 << 20;

/// Runs the command line; answers the exit status.
pub fn main(arguments: &[String], boot: Boot) -> u8 {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["run", "--config-fd", number] => read_config(number).and_then(|config| run(&config, boot)),
        ["create", "--config-fd", number] => read_config(number).and_then(|config| create(&config, boot)),
        ["--version"] => {
            println!("cloudpilot-sandbox {}", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        ["--help"] => {
            print!("{HELP}");
            Ok(0)
        }
        _ => Err(Failure::invalid("Unknown command or option").hint("`cloudpilot-sandbox --help` lists them")),
    };
    result.unwrap_or_else(|failure| {
        failure.print();
        STATUS_OURS
    })
}

/// Takes over a descriptor that the command line or the configuration names.
fn inherited(number: RawFd) -> Result<OwnedFd, Failure> {
    let unusable = || Failure::invalid(format!("Descriptor {number} is not open")).hint("pass it on to this process");
    if number < 3 {
        return Err(unusable());
    }
    // SAFETY: only looked at; if it is not open the call fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(|_| unusable())?;
    // SAFETY: open, and handed to us by whoever started us; nothing else here uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn read_config(number: &str) -> Result<Config, Failure> {
    let number = number.parse().map_err(|_| Failure::invalid(format!("`{number}` is not a descriptor")))?;
    let mut file = std::fs::File::from(inherited(number)?);
    let mut text = Vec::new();
    // A memory file's position is where its writer left it.
    let _ = rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0));
    file.by_ref().take(LONGEST_CONFIG).read_to_end(&mut text).map_err(|error| Failure::host("Cannot read the configuration", error))?;
    Config::parse(&text)
}

fn run(config: &Config, boot: Boot) -> Result<u8, Failure> {
    if config.detach {
        return detach(config, boot);
    }
    let signals = Signals::collect()?;
    let streams = match config.tty {
        true => {
            let (rows, columns) = terminal::size();
            Streams::Terminal(rows, columns)
        }
        false => Streams::Own,
    };
    let sandbox = start::start(config, streams, boot)?;
    let raw_mode = if config.tty { RawMode::enter() } else { None };
    let end = Supervisor::new(sandbox, config, &signals, None).watch();
    drop(raw_mode);
    Ok(end.status())
}

fn create(config: &Config, boot: Boot) -> Result<u8, Failure> {
    let number = config.lifeline_fd.ok_or_else(|| Failure::invalid("`create` needs `lifeline_fd`"))?;
    let lifeline = inherited(number)?;
    let streams = if config.args.is_some() { Streams::Own } else { Streams::Null };
    supervise(config, boot, streams, &lifeline)
}

/// Supervises a sandbox whose starter listens on a lifeline.
fn supervise(config: &Config, boot: Boot, streams: Streams, lifeline: &OwnedFd) -> Result<u8, Failure> {
    let end = Signals::collect().and_then(|signals| {
        let sandbox = start::start(config, streams, boot)?;
        Ok(Supervisor::new(sandbox, config, &signals, Some(lifeline)).watch())
    });
    let end = end.unwrap_or_else(End::NotStarted);
    // If nobody listens any more, nobody needs to know.
    let _ = packet::send(lifeline, &end.news());
    Ok(match end {
        End::Exited(Ok(code)) => code,
        End::Exited(Err(signal)) => signal.saturating_add(128),
        End::NotStarted(_) | End::Crashed(_) => STATUS_OURS,
        _ => 0,
    })
}

/// Starts a sandbox that outlives us, and prints its id once its program runs.
fn detach(config: &Config, boot: Boot) -> Result<u8, Failure> {
    let (ours, theirs) = packet::pair().map_err(|error| Failure::host("Cannot make a socket pair", error))?;
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            drop(ours);
            let status = supervise_detached(config, boot, &theirs);
            std::process::exit(i32::from(status))
        }
        -1 => return Err(Failure::host("Cannot make the supervisor process", std::io::Error::last_os_error())),
        _ => drop(theirs),
    }
    let news = packet::receive(std::os::fd::AsFd::as_fd(&ours));
    let Ok(Received::Message(text, _)) = news else {
        return Err(Failure::new(Code::Internal, "The supervisor ended before its sandbox had started"));
    };
    match serde_json::from_slice(&text) {
        Ok(News::Ready { .. }) => {
            println!("{}", config.id);
            Ok(0)
        }
        Ok(News::Failed(failure)) => {
            failure.print();
            Ok(failure.status_of_start())
        }
        // It ended within moments: started it has.
        Ok(News::Ended { .. }) => {
            println!("{}", config.id);
            Ok(0)
        }
        _ => Err(Failure::new(Code::Internal, "The supervisor talks nonsense")),
    }
}

fn supervise_detached(config: &Config, boot: Boot, lifeline: &OwnedFd) -> u8 {
    let _ = rustix::process::setsid();
    let quiet = || {
        let null = start::null_device()?;
        let steps = || {
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)
        };
        steps().map_err(|error: rustix::io::Errno| Failure::host("Cannot let go of the standard streams", error))
    };
    let result = quiet().and_then(|()| supervise(config, boot, Streams::Null, lifeline));
    result.unwrap_or_else(|failure| {
        let _ = packet::send(lifeline, &News::Failed(failure));
        STATUS_OURS
    })
}
