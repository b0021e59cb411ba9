//! Which regions: names, globs, or all; and the partitions that they lie in.

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// The regions of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Regions {
    /// Those that are enabled for the account.
    All,
    /// Names, and globs of those that are enabled for the account.
    Listed(Vec<String>),
}

/// As they are written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(String),
    List(Vec<String>),
}

impl TryFrom<Written> for Regions {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Word(word) if word == "all" => Ok(Self::All),
            Written::Word(word) => Err(format!("{word:?} is neither `all` nor a list, as in [eu-west-1, us-*]")),
            Written::List(list) => Ok(Self::Listed(list)),
        }
    }
}

impl From<Regions> for Written {
    fn from(regions: Regions) -> Self {
        match regions {
            Regions::All => Self::Word("all".to_owned()),
            Regions::Listed(list) => Self::List(list),
        }
    }
}

impl Default for Regions {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Regions {
    /// What is listed.
    pub fn listed(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::Listed(list) => list,
        }
    }

    /// The regions, where no account has to be asked for them.
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Self::Listed(list) if !list.iter().any(|region| is_glob(region)) => Some(list),
            _ => None,
        }
    }

    /// Whether a region is among them, given that it is enabled.
    pub fn cover(&self, region: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(list) => list.iter().any(|pattern| WildMatch::new(pattern).matches(region)),
        }
    }

    /// Whether a region can be in both, as far as the regions of today tell.
    pub(super) fn overlap(&self, other: &Self) -> bool {
        let known = PARTITIONS.iter().flat_map(|partition| partition.regions.iter().copied());
        let named = self.listed().iter().chain(other.listed()).map(String::as_str).filter(|region| !is_glob(region));
        known.chain(named).any(|region| self.cover(region) && other.cover(region))
    }
}

/// Whether a name stands for several regions.
pub(super) fn is_glob(region: &str) -> bool {
    region.contains(['*', '?'])
}

/// Letters, a dash and more letters, at last a number: `eu-west-1`, `us-gov-east-1`.
pub(super) fn is_well_formed(name: &str) -> bool {
    let parts: Vec<_> = name.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.len() >= 2 && words.iter().all(is_word) && number.parse::<u8>().is_ok()
}

/// Whether a glob could match the name of a region.
pub(super) fn is_well_formed_glob(pattern: &str) -> bool {
    pattern.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*?".contains(&byte))
}

/// A part of AWS that shares no accounts and no credentials with the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// As in ARNs.
    pub name: &'static str,
    /// Where STS is asked when nothing says where.
    pub home: &'static str,
    /// What the names of its regions begin with, where another partition's do not begin with more.
    prefixes: &'static [&'static str],
    /// Its regions, as of botocore 1.44.
    pub regions: &'static [&'static str],
}

/// Every partition, the more particular ones first.
pub static PARTITIONS: [Partition; 8] = [
    Partition {
        name: "aws-us-gov",
        home: "us-gov-west-1",
        prefixes: &["us-gov-"],
        regions: &["us-gov-east-1", "us-gov-west-1"],
    },
    Partition {
        name: "aws-iso",
        home: "us-iso-east-1",
        prefixes: &["us-iso-"],
        regions: &["us-iso-east-1", "us-iso-west-1"],
    },
    Partition {
        name: "aws-iso-b",
        home: "us-isob-east-1",
        prefixes: &["us-isob-"],
        regions: &["us-isob-east-1", "us-isob-west-1"],
    },
    Partition { name: "aws-iso-e", home: "eu-isoe-west-1", prefixes: &["eu-isoe-"], regions: &["eu-isoe-west-1"] },
    Partition {
        name: "aws-iso-f",
        home: "us-isof-south-1",
        prefixes: &["us-isof-"],
        regions: &["us-isof-east-1", "us-isof-south-1"],
    },
    Partition {
        name: "aws-cn",
        home: "cn-northwest-1",
        prefixes: &["cn-"],
        regions: &["cn-north-1", "cn-northwest-1"],
    },
    Partition { name: "aws-eusc", home: "eusc-de-east-1", prefixes: &["eusc-"], regions: &["eusc-de-east-1"] },
    Partition {
        name: "aws",
        home: "us-east-1",
        prefixes: &["af-", "ap-", "ca-", "eu-", "il-", "me-", "mx-", "sa-", "us-"],
        regions: &[
            "af-south-1",
            "ap-east-1",
            "ap-east-2",
            "ap-northeast-1",
            "ap-northeast-2",
            "ap-northeast-3",
            "ap-south-1",
            "ap-south-2",
            "ap-southeast-1",
            "ap-southeast-2",
            "ap-southeast-3",
            "ap-southeast-4",
            "ap-southeast-5",
            "ap-southeast-6",
            "ap-southeast-7",
            "ca-central-1",
            "ca-west-1",
            "eu-central-1",
            "eu-central-2",
            "eu-north-1",
            "eu-south-1",
            "eu-south-2",
            "eu-west-1",
            "eu-west-2",
            "eu-west-3",
            "il-central-1",
            "me-central-1",
            "me-south-1",
            "me-west-1",
            "mx-central-1",
            "sa-east-1",
            "sa-west-1",
            "us-east-1",
            "us-east-2",
            "us-west-1",
            "us-west-2",
        ],
    },
];

impl Partition {
    /// The partition of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PARTITIONS.iter().find(|partition| partition.name == name)
    }

    /// Where a region lies, by its name; also one that is not known yet.
    pub fn of_region(region: &str) -> Option<&'static Self> {
        PARTITIONS.iter().find(|partition| partition.prefixes.iter().any(|prefix| region.starts_with(prefix)))
    }

    /// The only one that has regions like this.
    pub(super) fn of_glob(pattern: &str) -> Option<&'static Self> {
        let glob = WildMatch::new(pattern);
        let mut matching = PARTITIONS.iter().filter(|it| it.regions.iter().any(|region| glob.matches(region)));
        let first = matching.next()?;
        matching.next().is_none().then_some(first)
    }
}

/// Whether that region was there when this was built.
pub(super) fn is_known(region: &str) -> bool {
    PARTITIONS.iter().any(|partition| partition.regions.contains(&region))
}

/// Whether the glob matches a region that was there when this was built.
pub(super) fn matches_known(pattern: &str) -> bool {
    let glob = WildMatch::new(pattern);
    PARTITIONS.iter().any(|partition| partition.regions.iter().any(|region| glob.matches(region)))
}
