//! Landlock: even if the filter of host calls let something through, files are reachable only beneath the handles that the sandbox was given.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, make_bitflags,
};

use crate::JailError;

/// The newest rules that we know the meaning of; older hosts get what they have.
const NEWEST: ABI = ABI::V6;

/// A handle that stays reachable.
#[derive(Debug)]
pub struct Reachable<F> {
    /// Root of a detached mount.
    pub handle: F,
    /// Directory or file.
    pub directory: bool,
    /// Whether it may be changed.
    pub writable: bool,
}

/// Confines the calling thread, and the threads and processes that it will make. `network` leaves TCP alone. Answers whether the host
/// has Landlock at all.
pub fn confine<F: AsFd>(reachable: &[Reachable<F>], network: bool) -> Result<bool, JailError> {
    let status = rules(reachable, network).map_err(|error| JailError::plain(format!("Cannot set up Landlock: {error}")))?;
    Ok(status != RulesetStatus::NotEnforced)
}

fn rules<F: AsFd>(reachable: &[Reachable<F>], network: bool) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(NEWEST))?;
    ruleset = ruleset.scope(Scope::from_all(NEWEST))?;
    if !network {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let mut created = ruleset.create()?;
    for one in reachable {
        created = created.add_rule(PathBeneath::new(&one.handle, access(one.directory, one.writable)))?;
    }
    Ok(created.restrict_self()?.ruleset)
}

/// Changes that no volume allows.
const MADE_BY_NOBODY: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeChar | MakeBlock | IoctlDev});

fn access(directory: bool, writable: bool) -> BitFlags<AccessFs> {
    // Mapping a file executable is reading to Landlock: nothing here ever executes one.
    let mut access = AccessFs::ReadFile | AccessFs::ReadDir;
    if writable {
        access |= AccessFs::from_write(NEWEST) & !MADE_BY_NOBODY;
    }
    if directory { access } else { access & AccessFs::from_file(NEWEST) }
}
