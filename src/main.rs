//! The program: parses, loads the configuration, starts logging, dispatches, and turns the outcome into an exit code.
//! Only here are arguments read, and signals.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rollcall::cli::{self, Cli, Command};
use rollcall::collector::fault::Class;
use rollcall::collector::{Outcome, Repeat, file};
use rollcall::config::import::{ImportError, Translation, translate};
use rollcall::config::{self, Config, ConfigError, Override};
use rollcall::kafka::client;
use rollcall::kafka::topics::{self, Admin};
use rollcall::profile::Profile;
use rollcall::stage::{Process, unreachable_kafka};
use rollcall::{admin, check, demo, policy, render, sweeps, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What an end is worth.
const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;
/// An operator is promised ten seconds.
const END_WITHIN: Duration = Duration::from_millis(9500);

fn main() -> ExitCode {
    // clap ends the process by itself, with 2, where the usage is wrong.
    let cli = Cli::parse();
    // What there is to import needs no configuration, and may be the first there is.
    if let Command::Config(cli::Config { action: Some(cli::ConfigAction::Import(args)) }) = &cli.command {
        return import(args);
    }
    let config = match load(&cli) {
        Ok(mut config) => {
            // Their output is a table.
            if config.log == config::Log::default() {
                match cli.command {
                    Command::Demo(_) => config.log.filter = "error".to_owned(),
                    // Whatever would be logged is a line of it.
                    Command::Check(_) => config.log.filter = "off".to_owned(),
                    _ => {}
                }
            }
            config
        }
        Err(error) => {
            eprintln!("rollcall: {error}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    if let Err(error) = telemetry::log::init(&config.log) {
        eprintln!("rollcall: log.filter: {:?} is not a filter: {error}", config.log.filter);
        return ExitCode::from(MISCONFIGURED);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rollcall: the runtime cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let outcome = runtime.block_on(dispatch(cli, config));
    // A client that waits for a coordinator that is away must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rollcall: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn load(cli: &Cli) -> Result<Config, ConfigError> {
    // `vars` would panic on a stranger's variable that is not UTF-8.
    let variables = std::env::vars_os();
    let mut overrides: Vec<_> = variables
        .filter_map(|(name, value)| Override::from_variable(name.to_str()?, &value.to_string_lossy()))
        .collect();
    overrides.sort_by_key(Override::depth);
    overrides.extend(cli.set.iter().cloned());
    let short = [("kafka.bootstrap_servers", &cli.bootstrap_servers), ("log.filter", &cli.log)];
    overrides
        .extend(short.into_iter().filter_map(|(key, value)| Some(Override::new(key, value.as_deref()?, "a flag"))));
    let config = config::load(cli.config.as_deref(), &overrides)?;
    match client::fault(&config.kafka) {
        None => Ok(config),
        Some(fault) => Err(ConfigError(vec![fault])),
    }
}

/// Most that is read of a configuration of somebody else's.
const MOST_IMPORTED: u64 = 16 << 20;

fn import(args: &cli::Import) -> ExitCode {
    let name = args.input.display();
    let fail = |code: u8, message: String| {
        eprintln!("rollcall: {message}");
        ExitCode::from(code)
    };
    let mut text = String::new();
    let read = if args.input == Path::new("-") {
        std::io::stdin().take(MOST_IMPORTED).read_to_string(&mut text)
    } else {
        File::open(&args.input).and_then(|file| file.take(MOST_IMPORTED).read_to_string(&mut text))
    };
    if let Err(error) = read {
        return fail(MISCONFIGURED, format!("{name} cannot be read: {error}"));
    }
    let Translation { document, notes } = match translate(&text) {
        Ok(translation) => translation,
        Err(error @ ImportError::NotJson(_)) => return fail(MISCONFIGURED, format!("{name} {error}")),
        Err(error) => return fail(MISCONFIGURED, format!("{name}: {error}")),
    };
    for note in notes {
        eprintln!("rollcall: {note}");
    }
    let yaml = match serde_saphyr::to_string(&document) {
        Ok(yaml) => yaml,
        Err(error) => return fail(FAILED, format!("the configuration cannot be written as YAML: {error}")),
    };
    match std::io::stdout().write_all(yaml.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(FAILED, format!("standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

async fn dispatch(cli: Cli, config: Config) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Config(_) => {
            std::io::stdout().write_all(serde_saphyr::to_string(&config)?.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => {
            let lines = check::check(&config).await;
            let text = match args.output {
                cli::Output::Text => check::table(&lines),
                cli::Output::Json => format!("{:#}\n", serde_json::to_value(&lines)?),
            };
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(match check::worst(&lines) {
                None => ExitCode::SUCCESS,
                Some(Class::ThirdPartyConfig) => ExitCode::from(MISCONFIGURED),
                Some(Class::ThirdPartyGeneric | Class::FirstPartyGeneric) => ExitCode::from(FAILED),
            })
        }
        Command::Policy(args) => show_policies(args, &config),
        Command::Render(args) => render(args, &config).await,
        Command::Topics(args) => show_topics(args, &config).await,
        Command::Sweeps(cli::Sweeps::List { output }) => {
            let is_json = *output == cli::Output::Json;
            tokio::task::block_in_place(|| sweeps::list(&config, is_json, &mut std::io::stdout()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Sweeps(cli::Sweeps::Accept { scope }) => {
            let missing = sweeps::accept(&config, scope).await?;
            println!("{scope}: accepted that {missing} are gone; its next sweeps count them");
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(args) => {
            demo::run(args, &config, stop_on_signal()?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Map => {
            let process = start(&cli, config).await?;
            let partitions = process.check_topics().await?;
            process.map(partitions).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Collect(args) => {
            let process = start(&cli, config).await?;
            let partitions = process.check_topics().await?;
            let repeat = if args.once { Repeat::Times(1) } else { Repeat::Forever };
            let Outcome { incomplete, .. } = process.collect(partitions, repeat).await?;
            Ok(if args.once && incomplete > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
        }
        Command::Run => {
            let process = start(&cli, config).await?;
            let partitions = process.check_topics().await?;
            let mapping = process.map(partitions);
            let collecting = async {
                let collected = process.collect(partitions, Repeat::Forever).await;
                if collected.is_err() {
                    process.stop.cancel();
                }
                collected
            };
            let (mapped, collected) = tokio::join!(mapping, collecting);
            collected?;
            mapped?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A process with its admin port open.
async fn start(cli: &Cli, config: Config) -> anyhow::Result<Process> {
    let stop = stop_on_signal()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = serde_json::to_string(&config)?, "starting");
    let process = Process::new(config, stop)?;
    let listen = &process.config.admin.listen;
    if !listen.is_empty() {
        let (metrics, health) = (process.metrics.clone(), Arc::clone(&process.health));
        admin::serve(listen, metrics, health, process.stop.clone()).await?;
    }
    reload_on_hangup(cli.clone(), &process)?;
    Ok(process)
}

/// At SIGHUP the configuration is read again, and its sources are taken over; what else is in it needs a restart.
fn reload_on_hangup(cli: Cli, process: &Process) -> anyhow::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    let (sources, running) = (process.sources.clone(), process.config.clone());
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let mut config = match load(&cli) {
                Ok(config) => config,
                Err(error) => {
                    tracing::error!(%error, "the configuration was read again and is not taken over");
                    continue;
                }
            };
            tracing::info!(config = serde_json::to_string(&config).unwrap_or_default(), "configuration read again");
            let wanted = std::mem::replace(&mut config.collector.sources, running.collector.sources.clone());
            if config != *running {
                tracing::warn!("only collector.sources is taken over; for the rest restart");
            }
            sources.send_if_modified(|sources| std::mem::replace(sources, wanted.clone()) != wanted);
        }
    });
    Ok(())
}

/// Cancelled by SIGINT or SIGTERM. A second one ends the process at once.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let token = stop.clone();
    tokio::spawn(async move {
        for urgent in [false, true] {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            if urgent {
                std::process::exit(i32::from(FAILED));
            }
            tracing::info!("stopping; a second signal ends at once");
            token.cancel();
            // A thread of its own, since what hangs may hang in the runtime.
            std::thread::spawn(|| {
                std::thread::sleep(END_WITHIN);
                eprintln!("rollcall: did not end within {END_WITHIN:?}; Kafka will abort what is open");
                std::process::exit(i32::from(FAILED));
            });
        }
    });
    Ok(stop)
}

async fn render(args: &cli::Render, config: &Config) -> anyhow::Result<ExitCode> {
    let text = file::read(&args.input).await?;
    let name = args.input.display();
    let instances = file::instances(&text).with_context(|| format!("{name} is not what describe-instances prints"))?;
    let mut mapping = config.mapping();
    mapping.profile = args.profile.unwrap_or(mapping.profile);
    if mapping.profile == Profile::Ocsf && args.observed_at.is_none() {
        // Its time is the observation's, and a file does not tell it.
        eprintln!("rollcall: profile \"ocsf\" needs --observed-at TIME, as in 2026-01-02T03:04:05Z");
        return Ok(ExitCode::from(MISCONFIGURED));
    }
    let context = render::Context {
        observed_at: args.observed_at.unwrap_or_else(chrono::Utc::now),
        account: args.account.clone(),
        region: args.region.clone(),
    };
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut complain = |complaint: String| eprintln!("rollcall: {complaint}");
    let rendered = render::render(&mapping, &context, &instances, &mut output, &mut complain)?;
    Ok(if rendered.rejected > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn show_policies(args: &cli::Policy, config: &Config) -> anyhow::Result<ExitCode> {
    let callers = policy::policies(config);
    if callers.is_empty() {
        eprintln!("rollcall: collector.sources: none of them is of kind `aws`, so nothing is needed of IAM");
        return Ok(ExitCode::from(MISCONFIGURED));
    }
    let text = match args.output {
        cli::Output::Text => policy::text(&callers),
        cli::Output::Json => format!("{:#}\n", serde_json::to_value(&callers)?),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn show_topics(args: &cli::Topics, config: &Config) -> anyhow::Result<ExitCode> {
    let kafka = &config.kafka;
    let admin = Admin::connect(kafka, &config.instance_id.0)?;
    let wanted = topics::wanted(kafka);
    let unreachable = || unreachable_kafka(&kafka.bootstrap_servers);
    let mut output = std::io::stdout();
    if args.create {
        admin.describe(&wanted).await.with_context(unreachable)?;
        for name in admin.create(&wanted, kafka.replication_factor).await? {
            writeln!(output, "{name}: created")?;
        }
    }
    let found = admin.describe(&wanted).await.with_context(unreachable)?;
    let differences = topics::differences(&wanted, &found);
    for topic in &wanted {
        let troubles: Vec<_> = differences.iter().filter(|difference| difference.topic == topic.name).collect();
        if let Some(found) = found.get(&topic.name).filter(|_| !troubles.iter().any(|trouble| trouble.breaks)) {
            writeln!(output, "{}: ok, {} partitions", topic.name, found.partitions)?;
        }
        for trouble in troubles {
            let weight = if trouble.breaks { "error" } else { "warning" };
            writeln!(output, "{}: {weight}: {}", topic.name, trouble.message)?;
        }
    }
    let is_broken = differences.iter().any(|difference| difference.breaks);
    Ok(if is_broken { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
