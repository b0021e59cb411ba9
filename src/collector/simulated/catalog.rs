//! What the invented instances are.

use Trait::*;

/// Tag `owner`.
pub const OWNERS: [&str; 5] = ["platform", "payments", "search", "data", "security"];
/// Tag `env`, and part of the name.
pub const ENVIRONMENTS: [&str; 4] = ["prod", "prod", "staging", "dev"];
/// Security groups that an instance may get on top of its own.
pub const EXTRA_GROUPS: [&str; 3] = ["monitoring", "ssh-from-vpn", "debug-temporary"];
/// What is put behind the name of an instance that gets a new one.
pub const SUFFIXES: [&str; 4] = ["-blue", "-green", "-canary", "-legacy"];

/// An instance type: name, cores, threads a core.
pub type Size = (&'static str, u8, u8);
/// An operating system, as EC2 tells it: platform details, usage operation, architecture, root device; and its sizes.
pub type Platform = (&'static str, &'static str, &'static str, &'static str, &'static [Size]);

const ARM: &[Size] = &[("t4g.medium", 2, 1), ("m7g.large", 2, 1), ("c7g.xlarge", 4, 1), ("r7g.2xlarge", 8, 1)];
const X86: &[Size] = &[("t3.medium", 1, 2), ("m7i.large", 1, 2), ("c7i.xlarge", 2, 2), ("r7i.2xlarge", 4, 2)];
/// There is nothing to choose: one Mac a host.
const APPLE: &[Size] = &[("mac2.metal", 8, 1)];

const LINUX: Platform = ("Linux/UNIX", "RunInstances", "x86_64", "/dev/xvda", X86);
const GRAVITON: Platform = ("Linux/UNIX", "RunInstances", "arm64", "/dev/xvda", ARM);
const RHEL: Platform = ("Red Hat Enterprise Linux", "RunInstances:0010", "x86_64", "/dev/sda1", X86);
const SUSE: Platform = ("SUSE Linux", "RunInstances:000g", "x86_64", "/dev/sda1", X86);
const UBUNTU: Platform = ("Ubuntu Pro Linux", "RunInstances:0g00", "arm64", "/dev/sda1", ARM);
const WINDOWS: Platform = ("Windows", "RunInstances:0002", "x86_64", "/dev/sda1", X86);
/// EC2 bills a Mac as Linux; its architecture tells what it is.
const MACOS: Platform = ("Linux/UNIX", "RunInstances", "arm64_mac", "/dev/sda1", APPLE);

/// What not every instance is or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trait {
    /// Has a public address while it runs.
    Public,
    /// Launched by an auto scaling group.
    Scaled,
    Spot,
    /// Has no tag `Name`.
    Unnamed,
    /// Has no tags of its owner.
    Untagged,
    /// Has a volume for data.
    Data,
    /// Has an instance profile.
    Profiled,
}

/// A kind of instance: role, how many of 40 are of this kind, platform, traits, security groups.
pub type Kind = (&'static str, usize, Platform, &'static [Trait], &'static [&'static str]);

static KINDS: [Kind; 12] = [
    ("web", 7, GRAVITON, &[Public, Scaled, Profiled], &["web", "default"]),
    ("api", 6, GRAVITON, &[Scaled, Profiled], &["api", "default"]),
    ("worker", 5, LINUX, &[Scaled, Spot, Profiled], &["worker"]),
    ("eks-node", 5, LINUX, &[Scaled, Profiled, Unnamed], &["eks-cluster", "eks-nodes"]),
    ("orders-db", 3, RHEL, &[Data], &["database", "backup"]),
    ("sap", 2, SUSE, &[Data], &["sap", "backup"]),
    ("bastion", 2, UBUNTU, &[Public, Profiled], &["bastion"]),
    ("ml-train", 2, UBUNTU, &[Data, Spot], &["ml"]),
    ("dc", 3, WINDOWS, &[Profiled], &["active-directory", "rdp-internal"]),
    ("desktop", 2, WINDOWS, &[Public], &["rdp-internal"]),
    ("ios-build", 1, MACOS, &[Data], &["build"]),
    ("scratch", 2, LINUX, &[Public, Unnamed, Untagged], &["launch-wizard-1"]),
];

/// A kind for each number; in any 40 in a row, each has its share.
pub fn kind(number: u64) -> &'static Kind {
    let mut place = (number * 17 % 40) as usize;
    let has_place = |kind: &&Kind| {
        let is_here = place < kind.1;
        place = place.saturating_sub(kind.1);
        is_here
    };
    KINDS.iter().find(has_place).unwrap_or(&KINDS[0])
}
