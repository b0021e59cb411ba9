//! The command line, as it is written.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};

use crate::config::Override;
use crate::replay::position::Position;
use crate::tail::filter::{Filter, Kind};
use crate::tail::start::Start;
use crate::tail::{Order, Topic};

/// Takes the roll of an EC2 fleet: every device, every change, once.
#[derive(Debug, Clone, Parser)]
#[command(version, about, max_term_width = 100, after_help = AFTER)]
pub struct Cli {
    /// Configuration file, YAML or JSON
    #[arg(short, long, global = true, env = "ROLLCALL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one key of the configuration, as in `mapper.profile=sekoia`; may be repeated
    #[arg(short, long, global = true, value_name = "KEY=VALUE", value_parser = Override::from_flag)]
    pub set: Vec<Override>,

    /// Kafka brokers, short for `--set kafka.bootstrap_servers=…`
    #[arg(short, long, global = true, value_name = "HOST:PORT,…")]
    pub bootstrap_servers: Option<String>,

    /// What to log, short for `--set log.filter=…`: a level, or `info,rollcall::mapper=debug`
    #[arg(short, long, global = true, value_name = "FILTER")]
    pub log: Option<String>,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "Every key of the configuration can also be a variable: ROLLCALL_KAFKA__BOOTSTRAP_SERVERS. \
Flags win over variables, variables over the file.\n\n\
Exit codes: 0 done, 2 usage or configuration, 1 anything else.";

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Sweep the sources and publish raw records
    Collect(Collect),
    /// Map raw records to change events
    Map(Map),
    /// Collect and map in one process
    Run,
    /// Show both stages at work on an invented fleet, without Kafka, AWS or network
    Demo(Demo),
    /// Map instances from a file to events on standard output, without Kafka
    Render(Render),
    /// Ask whether everything is in place: credentials, permissions, regions, clock, Kafka, topics, registry
    Check(Check),
    /// Map raw records again: into topics of their own, or where the live ones would come out otherwise
    Replay(Replay),
    /// Show events, or what else is written to a topic, as they come
    Tail(Tail),
    /// Show what the topics are and should be, and create them
    Topics(Topics),
    /// Show what the collectors remember of their scopes, and accept what vanished
    #[command(subcommand)]
    Sweeps(Sweeps),
    /// Print the least that the sources `aws` need of IAM: policies and trust policies
    Policy(Policy),
    /// Print the Avro schemas, register that of the events, or ask the registry what it would say
    #[command(subcommand)]
    Schema(Schema),
    /// Print the effective configuration, secrets redacted
    Config(Config),
}

/// `collect`.
#[derive(Debug, Clone, Args)]
pub struct Collect {
    /// Sweep each scope once, then end: 1 where a sweep was incomplete
    #[arg(long)]
    pub once: bool,
}

/// `map`.
#[derive(Debug, Clone, Args)]
pub struct Map {
    /// Where the group's offsets are gone or their records deleted: go on behind the last record that the state knows
    #[arg(long)]
    pub resume_from_state: bool,
}

/// `sweeps`.
#[derive(Debug, Clone, Subcommand)]
pub enum Sweeps {
    /// One line a scope: its last sweep, the instances known, what is held back
    List {
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Take what vanished from a scope for gone, with the next sweeps; not more than is held back now
    Accept {
        /// As `sweeps list` shows it: source/account/region
        scope: String,
    },
    /// Publish the tombstones of devices that the mapper knows and no scope does any more, after an outage of the mapper
    Reconcile {
        /// Write nothing: tell what would be published
        #[arg(long)]
        dry_run: bool,

        /// Form of the output
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// Form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// `demo`.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Take the fleet from the output of `aws ec2 describe-instances` instead of inventing one; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Go on until Ctrl-C, with a status page
    #[arg(long)]
    pub watch: bool,

    /// Sweeps of each scope
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sweeps: u32,

    /// The same seed invents the same fleet
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// `render`.
#[derive(Debug, Clone, Args)]
pub struct Render {
    /// What `aws ec2 describe-instances` prints, or raw records one a line; `-` is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,

    /// Form of the events; default: as configured
    #[arg(short, long)]
    pub profile: Option<crate::profile::Profile>,

    /// When the instances were observed, RFC 3339; default: now, save for profile ocsf, which needs it
    #[arg(long, value_name = "TIME")]
    pub observed_at: Option<DateTime<Utc>>,

    /// Account of instances that do not name their owner
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,

    /// Region that the instances are in; default, where a profile has it: what their zone begins with
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
}

/// `replay`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("into").args(["output_topic", "from_dlq", "in_place"]))]
#[command(group = clap::ArgGroup::new("what").args(["output_topic", "from_dlq", "in_place", "dry_run"]).required(true).multiple(true))]
pub struct Replay {
    /// Write the events to this topic, and the states to TOPIC.state; both are created where they are missing
    #[arg(long, value_name = "TOPIC", requires = "name", conflicts_with = "dry_run")]
    pub output_topic: Option<String>,

    /// Emit the devices of the live topics that today's mapping renders otherwise, while no mapper runs
    #[arg(long)]
    pub in_place: bool,

    /// Send the dead letters that would be accepted now through the raw topic again
    #[arg(long, requires = "name")]
    pub from_dlq: bool,

    /// Write nothing: report what `--in-place`, or `--from-dlq`, would do
    #[arg(long)]
    pub dry_run: bool,

    /// Devices that the report shows with all that differs; with `--output json` every one is told
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub samples: usize,

    /// Name of the replay: called by it again, it goes on where it stopped
    #[arg(long, value_name = "NAME", value_parser = replay_name)]
    pub name: Option<String>,

    /// Where to begin: earliest, a time (2026-01-02T03:04:05Z), how long ago (6h), or an offset of each partition
    #[arg(long, value_name = "PLACE", default_value = "earliest")]
    pub from: Position,

    /// Where to end, fixed when the replay is begun: now, or as `--from`
    #[arg(long, value_name = "PLACE", default_value = "now")]
    pub to: Position,

    /// Read raw records from a file, as `rollcall tail raw --output json` writes them, instead of the raw topic
    #[arg(short, long, value_name = "FILE", requires = "output_topic", conflicts_with_all = ["from", "to"])]
    pub input: Option<PathBuf>,

    /// Form of the events; default: as configured
    #[arg(short, long, requires = "output_topic")]
    pub profile: Option<crate::profile::Profile>,

    /// Form of the summary
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// It becomes part of the names of groups and transactions.
fn replay_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=100).contains(&text.len()) && text.chars().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("a name has up to 100 letters, digits, dots, dashes and underscores".to_owned())
    }
}

/// `tail`.
#[derive(Debug, Clone, Args)]
pub struct Tail {
    /// What to follow
    #[arg(value_enum, default_value_t = Topic::Events)]
    pub topic: Topic,

    /// Short for the topic `raw`
    #[arg(long, conflicts_with = "topic")]
    pub raw: bool,

    /// Where to begin: beginning, now, a time (2026-01-02T03:04:05Z), how long ago (6h), an offset of each partition, or
    /// -N for the last N records of each partition; default: now, with --until-end the beginning
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    pub from: Option<Start>,

    /// End where the topic ends now, instead of following it
    #[arg(long)]
    pub until_end: bool,

    /// End when so many records were shown
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Only these instances; may be repeated, as the other filters
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub instance: Vec<String>,

    /// Only of these accounts
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub account: Vec<String>,

    /// Only of these regions; what does not tell its region, as in profile cse, is left out
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    pub region: Vec<String>,

    /// Only events that report this
    #[arg(long, value_enum, value_name = "CHANGE", value_delimiter = ',')]
    pub change: Vec<Kind>,

    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

impl Tail {
    /// What is asked for.
    pub fn order(&self) -> Order {
        let default = if self.until_end { Position::Earliest } else { Position::Now };
        Order {
            topic: if self.raw { Topic::Raw } else { self.topic },
            start: self.from.unwrap_or(Start::At(default)),
            to_the_end: self.until_end,
            count: self.count,
            filter: Filter {
                instances: self.instance.clone(),
                accounts: self.account.clone(),
                regions: self.region.clone(),
                changes: self.change.clone(),
            },
            as_json: self.output == Output::Json,
        }
    }
}

/// `topics`.
#[derive(Debug, Clone, Args)]
pub struct Topics {
    /// Create those that do not exist; those that do are never altered
    #[arg(long)]
    pub create: bool,
}

/// `config`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Something else than to print it
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
}

/// What else can be done with a configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Translate the JSON of Sumo Logic's EC2 inventory sources; notes go to standard error
    Import(Import),
}

/// `config import`.
#[derive(Debug, Clone, Args)]
pub struct Import {
    /// The source's JSON configuration, or a list of them; `-` is standard input
    #[arg(value_name = "FILE")]
    pub input: PathBuf,
}

/// `check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `policy`.
#[derive(Debug, Clone, Args)]
pub struct Policy {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `schema`.
#[derive(Debug, Clone, Subcommand)]
pub enum Schema {
    /// Print a schema, without Kafka or registry
    Print {
        /// Form of the events; default: as configured
        #[arg(short, long)]
        profile: Option<crate::profile::Profile>,
        /// What is written with it
        #[arg(long, value_enum, default_value_t = crate::schema::Of::Events)]
        of: crate::schema::Of,
    },
    /// Register the schema of the events under EVENTS-TOPIC-value; one that is there keeps its ID
    Register(SchemaArgs),
    /// Ask whether the registry has the schema, or would take it, and show the difference; registers nothing
    Check(SchemaArgs),
}

/// `schema register` and `schema check`.
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Form of the events; default: as configured
    #[arg(short, long)]
    pub profile: Option<crate::profile::Profile>,

    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}
