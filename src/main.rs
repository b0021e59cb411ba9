//! The program: parses, loads the configuration, starts logging, dispatches, and turns the outcome into an exit code.
//! Only here are arguments read, and signals.

use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rollcall::cli::{self, Cli, Command};
use rollcall::collector::fault::Class;
use rollcall::collector::{Outcome, Repeat, file};
use rollcall::config::import::{ImportError, Translation, translate};
use rollcall::config::{self, Config, ConfigError, Fault, Override};
use rollcall::inert::{escaped, inert};
use rollcall::kafka::advice::advice;
use rollcall::kafka::client;
use rollcall::kafka::topics::{self, Admin};
use rollcall::mapper::engine::LostOffsets;
use rollcall::profile::Profile;
use rollcall::replay::report::{Changed, Mode};
use rollcall::replay::{self, Input, Order, dead_letters, remap};
use rollcall::stage::{Process, unreachable_kafka};
use rollcall::{admin, check, demo, policy, registry, render, schema, sweeps, tail, telemetry};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Mapping allocates many small things: a tenth quicker than with glibc's, by docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What an end is worth.
const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;
/// An operator is promised ten seconds.
const END_WITHIN: Duration = Duration::from_millis(9500);
/// What of that the last threads get: a stage has eight seconds.
const THREADS_END_WITHIN: Duration = Duration::from_millis(500);

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
                    Command::Tail(_) => config.log.filter = "warn".to_owned(),
                    // It would run through the bar.
                    Command::Replay(_) if std::io::stderr().is_terminal() => config.log.filter = "warn".to_owned(),
                    _ => {}
                }
            }
            config
        }
        Err(error) => {
            tell(&error);
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
    let kafka = config.kafka.clone();
    let outcome = runtime.block_on(dispatch(cli, config));
    // A client that waits for a coordinator that is away must not keep the process. Threads that can end do so first: one
    // that ends while OpenSSL cleans up, as it does at an exit, frees what is freed there.
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    match outcome {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{error:#}");
            tell(&error);
            if let Some(advice) = advice(&kafka, &error) {
                tell(&advice);
            }
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
        tell(&message);
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
        tell(&note);
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
            show(args.output, &lines, |lines| check::table(lines))?;
            Ok(match check::worst(&lines) {
                None => ExitCode::SUCCESS,
                Some(Class::ThirdPartyConfig) => ExitCode::from(MISCONFIGURED),
                Some(Class::ThirdPartyGeneric | Class::FirstPartyGeneric) => ExitCode::from(FAILED),
            })
        }
        Command::Schema(action) => schemas(action, &config).await,
        Command::Policy(args) => show_policies(args, &config),
        Command::Render(args) => render(args, &config).await,
        Command::Replay(args) => replay(args, config).await,
        Command::Tail(args) => tail(args, &config),
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
        Command::Sweeps(cli::Sweeps::Reconcile { dry_run, output }) => {
            let found = tokio::task::block_in_place(|| sweeps::reconcile::reconcile(&config, *dry_run))?;
            show(*output, &found, ToString::to_string)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(args) => {
            demo::run(args, &config, stop_on_signal()?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Map(args) => {
            let process = start(&cli, config).await?;
            let partitions = process.check_topics().await?;
            let lost_offsets = if args.resume_from_state { LostOffsets::FromState } else { LostOffsets::Stop };
            process.map(partitions, lost_offsets).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Collect(_) | Command::Run if config.collector.sources.is_empty() => {
            let message = "there are none, so there is nothing to collect: configure at least one".to_owned();
            tell(&ConfigError(vec![Fault { key: "collector.sources".to_owned(), message }]));
            Ok(ExitCode::from(MISCONFIGURED))
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
            let mapping = process.map(partitions, LostOffsets::Stop);
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
    if !process.config.admin.listen.is_empty() {
        admin::serve(&process.config.admin, process.watched(), process.stop.clone()).await?;
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

/// `replay --dry-run` and `--in-place`.
async fn remap(args: &cli::Replay, config: Config) -> anyhow::Result<ExitCode> {
    let process = Process::new(config, stop_on_signal()?)?;
    let mode = if args.in_place && !args.dry_run { Mode::InPlace } else { Mode::DryRun };
    let is_json = args.output == cli::Output::Json;
    let mut tell = |changed: &Changed| if is_json { writeln!(std::io::stdout(), "{}", changed.line()) } else { Ok(()) };
    let report = remap::run(&process, mode, args.samples, &mut tell).await?;
    if is_json {
        writeln!(std::io::stdout(), "{}", report.summary())?;
    } else {
        anstream::stdout().write_all(report.table().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn replay(args: &cli::Replay, mut config: Config) -> anyhow::Result<ExitCode> {
    if args.output_topic.is_none() && !args.from_dlq {
        return remap(args, config).await;
    }
    let stop = stop_on_signal()?;
    let summary = if let Some(output_topic) = args.output_topic.clone() {
        config.mapper.profile = args.profile.unwrap_or(config.mapper.profile);
        let input = match &args.input {
            Some(path) => Input::File(path.clone()),
            None => Input::Topic { from: args.from, to: args.to },
        };
        let order = Order { name: args.name.clone().unwrap_or_default(), input, output_topic };
        replay::replay(&order, config, stop).await?
    } else {
        let order = dead_letters::Order {
            name: args.name.clone().unwrap_or_default(),
            from: args.from,
            to: args.to,
            is_dry: args.dry_run,
        };
        tokio::task::block_in_place(|| dead_letters::resend(&order, &config, &stop))?
    };
    show(args.output, &summary, ToString::to_string)?;
    Ok(if summary.complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
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
    // One line each: an ID may have more.
    let mut complain = |complaint: String| tell(&inert(&complaint));
    let rendered = render::render(&mapping, &context, &instances, &mut output, &mut complain)?;
    Ok(if rendered.rejected > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn tail(args: &cli::Tail, config: &Config) -> anyhow::Result<ExitCode> {
    let order = args.order();
    if let Some(fault) = tail::fault(&order) {
        tell(&fault);
        return Ok(ExitCode::from(MISCONFIGURED));
    }
    let stop = stop_on_signal()?;
    let stdout = std::io::stdout().lock();
    // To a program a line is the same wherever it goes.
    let stdout: Box<dyn Write> =
        if order.as_json { Box::new(stdout) } else { Box::new(anstream::AutoStream::auto(stdout)) };
    let mut output = std::io::BufWriter::with_capacity(1 << 16, stdout);
    tokio::task::block_in_place(|| tail::tail(&order, config, &stop, &mut output))?;
    Ok(ExitCode::SUCCESS)
}

async fn schemas(action: &cli::Schema, config: &Config) -> anyhow::Result<ExitCode> {
    let (args, is_check) = match action {
        cli::Schema::Print { profile, of } => {
            let text = of.json(profile.unwrap_or(config.mapper.profile));
            std::io::stdout().write_all(text.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        cli::Schema::Register(args) => (args, false),
        cli::Schema::Check(args) => (args, true),
    };
    let Some(configured) = &config.registry else {
        eprintln!("rollcall: registry.url: is not set; the address of a schema registry is needed");
        return Ok(ExitCode::from(MISCONFIGURED));
    };
    let subject = registry::subject(&config.kafka.topics.events);
    let json = args.profile.unwrap_or(config.mapper.profile).schema_json();
    let asked = async {
        let client = registry::Client::new(configured)?;
        if is_check {
            schema::check(&client, &subject, json).await
        } else {
            schema::register(&client, &subject, json).await
        }
    };
    let report = match asked.await {
        Ok(report) => report,
        Err(error) => {
            tell(&error);
            return Ok(ExitCode::from(if error.is_passing() { FAILED } else { MISCONFIGURED }));
        }
    };
    show(args.output, &report, ToString::to_string)?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(MISCONFIGURED) })
}

fn show_policies(args: &cli::Policy, config: &Config) -> anyhow::Result<ExitCode> {
    let callers = policy::policies(config);
    if callers.is_empty() {
        eprintln!("rollcall: collector.sources: none of them is of kind `aws`, so nothing is needed of IAM");
        return Ok(ExitCode::from(MISCONFIGURED));
    }
    show(args.output, &callers, |callers| policy::text(callers))?;
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
    let (found, differences) = admin.examine(&wanted).await.with_context(unreachable)?;
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
    let messages: String = differences.iter().map(|difference| &*difference.message).collect();
    if let Some(advice) = advice(kafka, &messages) {
        tell(&advice);
    }
    Ok(if is_broken { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Writes what was found to standard output, for a person or for a program.
fn show<T: Serialize>(output: cli::Output, found: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let text = match output {
        cli::Output::Text => text(found),
        cli::Output::Json => escaped(&format!("{:#}\n", serde_json::to_value(found)?)).into_owned(),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Tells on standard error. What others wrote may be in it: it is shown, and not obeyed.
fn tell(what: &impl Display) {
    let lines: Vec<_> = what.to_string().lines().map(inert).collect();
    eprintln!("rollcall: {}", lines.join("\n"));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
