//! What can go wrong while collecting, by who has to act: the three error types of Sumo Logic's source, and the kinds
//! under them. Every kind has a remedy, so that nobody is told of a fault without being told what to do.

use serde::Serialize;

/// Who has to act, and whether it is tried again. The names are those of the health events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Class {
    /// Credentials, permissions, opt-in, configuration: not tried again before the next scheduled sweep.
    ThirdPartyConfig,
    /// AWS cannot be reached, throttles, answers with errors: tried again until the sweep's deadline, save for a repeated token.
    ThirdPartyGeneric,
    /// Kafka or the registry: likewise.
    FirstPartyGeneric,
}

impl Class {
    /// As in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::ThirdPartyConfig => "ThirdPartyConfig",
            Self::ThirdPartyGeneric => "ThirdPartyGeneric",
            Self::FirstPartyGeneric => "FirstPartyGeneric",
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The credentials may not do it: a policy, a boundary or an SCP.
    Denied,
    /// There are no credentials, or AWS does not take them.
    Credentials,
    /// The credentials are good elsewhere: the region is not enabled for the account.
    RegionDisabled,
    /// The account is suspended, closed, or not signed up.
    AccountRetired,
    /// This machine's clock is off so far that signatures are refused.
    Clock,
    /// AWS does not take the request: a filter, a name, a parameter.
    InvalidRequest,
    /// A file cannot be read, or is not what it should be.
    InvalidFile,
    /// More of a scope vanished at once than is believed without an operator.
    Vanished,
    /// Too many calls.
    Throttled,
    /// No answer, or a server's error.
    Unavailable,
    /// An answer that is cut, is not XML, or has no list.
    Unreadable,
    /// An answer that names a page as the next one that was had before.
    RepeatedToken,
    /// The registry does not take the schema, or does not let this client in.
    Registry,
    /// Kafka did not take it.
    Kafka,
}

impl FaultKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::Denied,
        Self::Credentials,
        Self::RegionDisabled,
        Self::AccountRetired,
        Self::Clock,
        Self::InvalidRequest,
        Self::InvalidFile,
        Self::Vanished,
        Self::Throttled,
        Self::Unavailable,
        Self::Unreadable,
        Self::RepeatedToken,
        Self::Registry,
        Self::Kafka,
    ];

    /// Who has to act.
    pub fn class(self) -> Class {
        match self {
            Self::Denied
            | Self::Credentials
            | Self::RegionDisabled
            | Self::AccountRetired
            | Self::Clock
            | Self::InvalidRequest
            | Self::InvalidFile
            | Self::Vanished
            | Self::Registry => Class::ThirdPartyConfig,
            Self::Throttled | Self::Unavailable | Self::Unreadable | Self::RepeatedToken => Class::ThirdPartyGeneric,
            Self::Kafka => Class::FirstPartyGeneric,
        }
    }

    /// As in metrics, events and `ec2.sweeps`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Credentials => "credentials",
            Self::RegionDisabled => "region-disabled",
            Self::AccountRetired => "account-retired",
            Self::Clock => "clock",
            Self::InvalidRequest => "invalid-request",
            Self::InvalidFile => "invalid-file",
            Self::Vanished => "vanished",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unreadable => "unreadable",
            Self::RepeatedToken => "repeated-token",
            Self::Registry => "registry",
            Self::Kafka => "kafka",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Denied => {
                "grant the action: `rollcall policy` prints what is needed; look for SCPs and boundaries too"
            }
            Self::Credentials => "check the keys, the role's ARN, its trust policy and external ID, or the token file",
            Self::RegionDisabled => "enable the region for the account, or take it out of `regions`",
            Self::AccountRetired => "take the account out of `accounts`, or reactivate it",
            Self::Clock => "set this machine's clock; AWS tolerates five minutes",
            Self::InvalidRequest => "check `filters` and the endpoint; the message names what is not taken",
            Self::InvalidFile => "check the path, its permissions and its content",
            Self::Vanished => "check identity, opt-in and filters; if they are really gone: `rollcall sweeps accept`",
            Self::Throttled => "lower `calls_per_second`, or find out who else calls EC2 in the account",
            Self::Unavailable => "check network, proxy and endpoint, and AWS's health page; it is tried again",
            Self::Unreadable => "check what lies between here and AWS (proxy, endpoint); it is tried again",
            Self::RepeatedToken => "nothing: the next sweep starts over; report it to AWS if it stays",
            Self::Registry => {
                "check the configuration's `registry`; the message says what is refused, and what differs"
            }
            Self::Kafka => "check the brokers and this client's permissions; it is tried again",
        }
    }
}

/// Something that went wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Which call, with which code and value. No secrets.
    pub message: String,
}

impl Fault {
    /// A fault of that kind.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Who has to act.
    pub fn class(&self) -> Class {
        self.kind.class()
    }
}
