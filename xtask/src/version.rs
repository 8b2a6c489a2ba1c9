//! Versions as far as they decide anything here.

use std::fmt;

/// A major and a minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// The version that `text` begins with, whatever follows the minor number.
    pub(crate) fn at_start_of(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_letter() {
        let version = |text| Version::at_start_of(text).expect("a version");
        assert!(version("10.0.2") > version("9.2"));
        assert!(version("9.10") > version("9.2.4"));
        assert_eq!(version("9.2rc1"), Version { major: 9, minor: 2 });
    }

    #[test]
    fn what_is_no_version_gives_none() {
        for text in ["", "9", "x.1", "9.x", ".", "(none)"] {
            assert_eq!(Version::at_start_of(text), None, "{text:?}");
        }
    }
}
