//! `sockaddr_un`: paths, abstract names, and none at all.

use cloudpilot_abi::Errno;

use super::FAMILY;

/// `sun_path`'s size.
const PATH_SIZE: usize = 108;

/// An address that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Only the family: asks for a name (autobind).
    Unnamed,
    /// A path in the tree.
    Path(Vec<u8>),
    /// A name of its own, without the zero byte in front.
    Abstract(Vec<u8>),
}

impl Address {
    /// Decodes a `sockaddr_un`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Errno> {
        let (family, name) = bytes.split_first_chunk().ok_or(Errno::EINVAL)?;
        if u32::from(u16::from_ne_bytes(*family)) != FAMILY || name.len() > PATH_SIZE {
            return Err(Errno::EINVAL);
        }
        Ok(match name.first() {
            None => Self::Unnamed,
            Some(0) => Self::Abstract(name[1..].to_vec()),
            Some(_) => Self::Path(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
        })
    }

    /// The `sockaddr_un`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = (FAMILY as u16).to_ne_bytes().to_vec();
        match self {
            Self::Unnamed => {}
            Self::Path(path) => {
                bytes.extend(path);
                bytes.push(0);
            }
            Self::Abstract(name) => {
                bytes.push(0);
                bytes.extend(name);
            }
        }
        bytes
    }
}
