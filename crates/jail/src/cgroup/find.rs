//! Where the control groups of this host are mounted, and which one we are in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Limits;

/// One hierarchy of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version1 {
    /// Controllers on it.
    pub controllers: Vec<String>,
    /// The directory of the group that this process is in.
    pub own: PathBuf,
}

/// All hierarchies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 1.
    pub version1: Vec<Version1>,
    /// Version 2: mount point, and the directory of the group that this process is in.
    pub unified: Option<(PathBuf, PathBuf)>,
}

impl Hierarchies {
    /// Reads them.
    pub fn find() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string("/proc/self/cgroup")?))
    }

    fn parse(mounts: &str, groups: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some(mount) = Mount::parse(line) else { continue };
            match mount.kind {
                "cgroup2" => {
                    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
                    found.unified = Some((mount.point.clone(), mount.directory_of(group)));
                }
                "cgroup" => {
                    let group = groups.lines().find_map(|line| {
                        let mut fields = line.splitn(3, ':');
                        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
                        let same = controllers.split(',').all(|one| mount.options.split(',').any(|option| option == one));
                        (same && !controllers.is_empty()).then_some((controllers, group))
                    });
                    if let Some((controllers, group)) = group {
                        let controllers = controllers.split(',').map(str::to_owned).collect();
                        found.version1.push(Version1 { controllers, own: mount.directory_of(group) });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether version 2 has every controller that these limits need.
    pub fn unified_controls(&self, limits: &Limits) -> bool {
        let Some((mount, _)) = &self.unified else { return false };
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        controllers_for(limits).iter().all(|needed| controllers.split_whitespace().any(|one| one == *needed))
    }
}

/// Names of the controllers that limits need.
pub fn controllers_for(limits: &Limits) -> Vec<&'static str> {
    let needs = [("memory", limits.memory_bytes.is_some()), ("cpu", limits.cpus.is_some()), ("pids", limits.processes.is_some())];
    needs.into_iter().filter(|need| need.1).map(|need| need.0).collect()
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
        Some(Self { root, point: PathBuf::from(point), kind, options })
    }

    /// Where a group's directory is found beneath this mount, which may show a part of the hierarchy only.
    fn directory_of(&self, group: &str) -> PathBuf {
        let inside = Path::new(group).strip_prefix(self.root).unwrap_or(Path::new(""));
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        if inside.as_os_str().is_empty() { self.point.clone() } else { self.point.join(inside) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_with_our_own_group() {
        let mounts = "\
30 20 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 20 0:27 /docker/abc /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
32 20 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
33 20 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
34 20 0:30 / /proc rw - proc proc rw
";
        let groups = "4:memory:/docker/abc/x\n3:cpu,cpuacct:/\n1:name=systemd:/s\n0::/user.slice/a\n";
        let found = Hierarchies::parse(mounts, groups);
        let own: Vec<_> = found.version1.iter().map(|one| one.own.to_str().unwrap()).collect();
        assert_eq!(own, ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/systemd/s"]);
        assert_eq!(found.version1[0].controllers, ["cpu", "cpuacct"]);
        let unified = found.unified.unwrap();
        assert_eq!(unified.1.to_str().unwrap(), "/sys/fs/cgroup/unified/user.slice/a");
    }
}
