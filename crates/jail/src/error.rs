//! Why a jail could not be built.

use std::fmt;
use std::io;

/// What was refused, why, and what to do about it.
#[derive(Debug)]
pub struct JailError {
    /// What could not be done, as the start of a sentence: "Cannot …".
    pub what: String,
    /// The host's answer.
    pub source: Option<io::Error>,
    /// What to do.
    pub hint: Option<String>,
}

impl JailError {
    /// A refusal by the host.
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { what: what.into(), source: Some(source.into()), hint: None }
    }

    /// A refusal of our own.
    pub fn plain(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None }
    }

    /// Adds the remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for JailError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(formatter, ": {}", text(source)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for JailError {}

/// The message of an error number without "(os error 28)".
fn text(error: &io::Error) -> String {
    let whole = error.to_string();
    match whole.find(" (os error ") {
        Some(end) => whole[..end].to_owned(),
        None => whole,
    }
}
