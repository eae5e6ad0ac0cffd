//! Version 2: one group with all controllers, made in the nearest group above ours that may pass them on.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::find::{Hierarchies, controllers_for};
use super::{Cgroup, Limits, PERIOD, make};

pub fn create(hierarchies: &Hierarchies, name: &str, limits: &Limits) -> io::Result<Cgroup> {
    let Some((mount, own)) = &hierarchies.unified else { return Err(io::ErrorKind::Unsupported.into()) };
    let mut last = io::Error::from(io::ErrorKind::PermissionDenied);
    for parent in own.ancestors().take_while(|parent| parent.starts_with(mount)) {
        let attempt = pass_on(parent, &controllers_for(limits)).and_then(|()| {
            let directory = parent.join(name);
            make(&directory, &settings(limits))?;
            let handle = rustix::fs::open(&directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Cgroup { directories: vec![directory], unified: Some(handle) })
        });
        match attempt {
            Ok(cgroup) => return Ok(cgroup),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes sure that children of `parent` get the controllers.
fn pass_on(parent: &Path, controllers: &[&str]) -> io::Result<()> {
    let file = parent.join("cgroup.subtree_control");
    let present = fs::read_to_string(&file)?;
    let missing: String =
        controllers.iter().filter(|needed| !present.split_whitespace().any(|one| one == **needed)).map(|one| format!("+{one} ")).collect();
    if missing.is_empty() { Ok(()) } else { fs::write(&file, missing) }
}

fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    let memory = limits.memory().map(|bytes| ("memory.max", bytes.to_string()));
    let processes = limits.threads().map(|threads| ("pids.max", threads.to_string()));
    let cpu = limits.quota().map(|quota| ("cpu.max", format!("{quota} {PERIOD}")));
    [memory, processes, cpu].into_iter().flatten().collect()
}
