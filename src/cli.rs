//! The command line, as it is written.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};

use crate::config::Override;

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
    Map,
    /// Collect and map in one process
    Run,
    /// Show both stages at work on an invented fleet, without Kafka, AWS or network
    Demo(Demo),
    /// Map instances from a file to events on standard output, without Kafka
    Render(Render),
    /// Ask whether everything is in place: credentials, permissions, regions, clock, Kafka, topics, registry
    Check(Check),
    /// Show what the topics are and should be, and create them
    Topics(Topics),
    /// Show what the collectors remember of their scopes, and accept what vanished
    #[command(subcommand)]
    Sweeps(Sweeps),
    /// Print the least that the sources `aws` need of IAM: policies and trust policies
    Policy(Policy),
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

    /// Go on until Ctrl-C
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
