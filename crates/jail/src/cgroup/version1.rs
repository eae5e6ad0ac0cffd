//! Version 1: a group in each controller's own hierarchy.

use std::io;

use super::find::{Hierarchies, controllers_for};
use super::{Cgroup, Limits, PERIOD, make, remove};

pub fn create(hierarchies: &Hierarchies, name: &str, limits: &Limits) -> io::Result<Cgroup> {
    let mut directories = Vec::new();
    for controller in controllers_for(limits) {
        let result = match hierarchies.version1.iter().find(|one| one.controllers.iter().any(|has| has == controller)) {
            Some(hierarchy) => {
                let directory = hierarchy.own.join(name);
                make(&directory, &settings(controller, limits)).map(|()| directory)
            }
            None => Err(io::Error::new(io::ErrorKind::Unsupported, format!("the `{controller}` controller is not mounted"))),
        };
        match result {
            Ok(directory) => directories.push(directory),
            Err(error) => {
                let _ = remove(&directories);
                return Err(error);
            }
        }
    }
    Ok(Cgroup { directories, unified: None })
}

fn settings(controller: &str, limits: &Limits) -> Vec<(&'static str, String)> {
    let setting = match controller {
        "memory" => limits.memory().map(|bytes| ("memory.limit_in_bytes", bytes)),
        "pids" => limits.threads().map(|threads| ("pids.max", threads)),
        _ => limits.quota().map(|quota| ("cpu.cfs_quota_us", quota)),
    };
    let mut settings: Vec<_> = setting.into_iter().map(|(file, value)| (file, value.to_string())).collect();
    if controller == "cpu" {
        settings.insert(0, ("cpu.cfs_period_us", PERIOD.to_string()));
    }
    settings
}
