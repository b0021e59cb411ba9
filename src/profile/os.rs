//! The operating system of an instance, by the words that EC2 has for it: the same in every profile.

use crate::device::Instance;

/// OCSF's type of an operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OsType {
    Unknown,
    Windows,
    Linux,
    MacOs,
}

impl OsType {
    /// What architecture, platform details and platform tell, in this order.
    pub fn of(instance: &Instance<'_>) -> Self {
        if instance.architecture.text().is_some_and(|architecture| architecture.ends_with("_mac")) {
            return Self::MacOs;
        }
        let details = instance.platform_details.text().unwrap_or_default().to_lowercase();
        let is_word = |word: &str| details.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word);
        if details.contains("windows") {
            Self::Windows
        } else if ["linux", "unix", "red hat", "suse", "ubuntu", "debian"].iter().any(|name| details.contains(name)) {
            Self::Linux
        } else if details.contains("macos") || is_word("mac") {
            Self::MacOs
        } else if details.starts_with("sql server") {
            // Where Windows is below it, EC2 says so.
            Self::Linux
        } else if instance.platform.text().is_some_and(|platform| platform.eq_ignore_ascii_case("windows")) {
            Self::Windows
        } else {
            Self::Unknown
        }
    }

    /// OCSF's word for it.
    pub fn caption(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Windows => "Windows",
            Self::Linux => "Linux",
            Self::MacOs => "macOS",
        }
    }

    /// OCSF's number for it.
    pub fn id(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Windows => 100,
            Self::Linux => 200,
            Self::MacOs => 300,
        }
    }
}
