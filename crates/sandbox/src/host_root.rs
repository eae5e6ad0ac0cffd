//! What a sandbox shows of the host: which directories become handles, and what lies beside them.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cloudpilot_jail::handles;
use cloudpilot_kernel::config::{ProvidedFile, RootEntry, Volume};

use crate::config::{Config, Network, Root};
use crate::failure::Failure;

/// What the host's own root shows: programs and their libraries, and configuration. Homes, `/root`, `/var`, `/srv` and `/run` are not the
/// guest's business.
const SHOWN: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc"];

/// The root and the volumes, opened.
#[derive(Debug)]
pub struct Opened {
    /// Lower layer of the root.
    pub root: Vec<RootEntry>,
    /// Volumes.
    pub volumes: Vec<Volume>,
}

/// Whether the host itself can keep the sandbox from what is not for everybody, by an unprivileged user of its own: nothing that the sandbox
/// shows may depend on the starter's rights.
pub fn is_for_everybody(config: &Config) -> bool {
    matches!(config.root, Root::Host | Root::Directory { owners: Some(_), .. }) && config.volumes.is_empty()
}

/// Opens everything.
pub fn open(config: &Config) -> Result<Opened, Failure> {
    let root = match &config.root {
        Root::Host => SHOWN.iter().filter_map(|path| host_entry(path).transpose()).collect::<Result<_, _>>()?,
        Root::Directory { path, owners } => {
            if !path.is_dir() {
                let message = format!("The root `{}` is not a directory that you can reach", path.display());
                return Err(Failure::invalid(message).hint("`--rootfs` takes a directory that holds a Linux file system"));
            }
            let owners = owners.as_deref().map(read_owners).transpose()?;
            vec![RootEntry::Directory { guest: "/".to_owned(), handle: handles::open(path, true)?, world_readable_only: false, owners }]
        }
    };
    let volumes = config.volumes.iter().map(|volume| {
        let handle = handles::open(&volume.host, volume.readonly)?;
        Ok(Volume { guest: volume.guest.clone(), handle, read_only: volume.readonly })
    });
    Ok(Opened { root, volumes: volumes.collect::<Result<_, Failure>>()? })
}

/// Longest table of owners: a few million entries that are not root's.
const LARGEST_OWNERS: u64 = 256 << 20;

fn read_owners(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || {
        let mut table = Vec::new();
        std::fs::File::open(path)?.take(LARGEST_OWNERS).read_to_end(&mut table)?;
        Ok(table)
    };
    read().map_err(|error: std::io::Error| {
        Failure::invalid(format!("The table of owners `{}` cannot be read: {error}", path.display())).hint("import the image again")
    })
}

fn host_entry(path: &str) -> Result<Option<RootEntry>, Failure> {
    let guest = path.to_owned();
    if let Ok(target) = std::fs::read_link(path) {
        return Ok(Some(RootEntry::Symlink { guest, target: target.to_string_lossy().into_owned() }));
    }
    if !Path::new(path).is_dir() {
        return Ok(None);
    }
    Ok(Some(RootEntry::Directory { guest, handle: handles::open(Path::new(path), true)?, world_readable_only: true, owners: None }))
}

impl Opened {
    /// Each handle and whether it may be written to.
    pub fn handles(&self) -> impl Iterator<Item = (&OwnedFd, bool)> {
        let root = self.root.iter().filter_map(|entry| match entry {
            RootEntry::Directory { handle, .. } => Some((handle, false)),
            RootEntry::Symlink { .. } => None,
        });
        root.chain(self.volumes.iter().map(|volume| (&volume.handle, !volume.read_only)))
    }
}

/// What of the host's files goes into those that the sandbox provides, read while the host's tree is still there.
#[derive(Debug)]
pub struct Borrowed {
    resolver: Option<Vec<u8>>,
    shadow: Option<[String; 2]>,
}

impl Borrowed {
    /// Reads it.
    pub fn read(config: &Config) -> Self {
        // How names are resolved on the host concerns sandboxes that use its network.
        let resolver = (config.network == Network::Host).then(|| std::fs::read(PathBuf::from("/etc/resolv.conf")).ok()).flatten();
        let shadow =
            matches!(config.root, Root::Host).then(|| [locked("/etc/passwd", ":*:20000:0:99999:7:::"), locked("/etc/group", ":*::")]);
        Self { resolver, shadow }
    }
}

/// Files that the sandbox provides itself.
pub fn provided_files(config: &Config, borrowed: Borrowed) -> Vec<ProvidedFile> {
    let name = &config.hostname;
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n");
    let file = |guest: &str, contents: Vec<u8>| ProvidedFile { guest: guest.to_owned(), contents, mode: 0o644 };
    let mut files = vec![
        file("/etc/hostname", format!("{name}\n").into_bytes()),
        file("/etc/hosts", hosts.into_bytes()),
        file("/etc/resolv.conf", borrowed.resolver.unwrap_or_default()),
    ];
    if let Some([users, groups]) = borrowed.shadow {
        let secret = |guest: &str, contents: String| ProvidedFile { mode: 0o600, ..file(guest, contents.into_bytes()) };
        files.extend([secret("/etc/shadow", users), secret("/etc/gshadow", groups)]);
    }
    files
}

/// Longest file of names that is read: hosts with more users have them elsewhere.
const LONGEST_NAMES: u64 = 64 << 10;

/// What stands beside a file of names: the same names, none with a password. The host's own is a secret, but programs that let users in
/// (`su`, `sshd`) look for one, and refuse those who are not in it.
fn locked(names: &str, rest: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(names) {
        // Whoever is in the part that cannot be read has no password either.
        let _ = file.take(LONGEST_NAMES).read_to_string(&mut text);
    }
    let entries = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| !name.is_empty());
    entries.map(|(name, _)| format!("{name}{rest}\n")).collect()
}
