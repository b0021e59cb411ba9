//! Tables and a plot: to standard output, or into the documentation.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Names the version of Kafka that `./dev` installs.
const POM: &str = include_str!("../../tests/env/pom.xml");

/// The middle one, or the mean of the two in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Shows a table; with `write` also puts it into its place in docs/benchmarks.md, between `<!-- NAME -->` and
/// `<!-- end -->`.
pub fn publish(name: &str, table: &str, write: bool) -> anyhow::Result<()> {
    let told = format!("{table}\n{}\n", surroundings()?);
    println!("{told}");
    if !write {
        return Ok(());
    }
    let path = docs("benchmarks.md");
    let text = std::fs::read_to_string(&path)?;
    let begin = format!("<!-- {name} -->\n");
    let place = text.find(&begin).with_context(|| format!("{} has no {begin}", path.display()))? + begin.len();
    let end = place + text[place..].find("<!-- end -->").context("it does not end")?;
    std::fs::write(&path, format!("{}{told}{}", &text[..place], &text[end..]))?;
    Ok(())
}

/// On what, and when.
fn surroundings() -> anyhow::Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let (_, kafka) = POM
        .split_once("<artifactId>kafka_2.13</artifactId>")
        .and_then(|(_, rest)| rest.split_once("<version>"))
        .context("no version of Kafka")?;
    let kafka = kafka.split('<').next().unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let memory: f64 = memory.context("no MemTotal")?.parse()?;
    let commit = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output()?;
    Ok(format!(
        "{}, {} cores, {:.0} GiB, shared with Kafka and the load; Linux {}; Rollcall {} at {}, librdkafka {librdkafka}, Apache \
         Kafka {kafka} (`{}`); {}.",
        model.unwrap_or("unknown processor"),
        std::thread::available_parallelism()?,
        memory / f64::from(1 << 20),
        std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        env!("CARGO_PKG_VERSION"),
        String::from_utf8_lossy(&commit.stdout).trim(),
        std::env::var("ROLLCALL_TEST_KAFKA_JVM").unwrap_or_else(|_| "the tests' settings of Java".to_owned()),
        chrono::Utc::now().format("%Y-%m-%d"),
    ))
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// A bar of the plot.
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub label: String,
}

/// Draws docs/benchmarks.svg, readable on light and on dark ground.
pub fn draw(title: &str, bars: &[Bar]) -> anyhow::Result<()> {
    const ROW: usize = 34;
    const LEFT: f64 = 240.0;
    const WIDTH: f64 = 400.0;
    let most = bars.iter().map(|bar| bar.value).fold(1.0, f64::max);
    let height = 50 + ROW * bars.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" font-family=\"sans-serif\" \
         font-size=\"14\" role=\"img\"><title>{title}</title>\n<style>text{{fill:#57606a}}\
         @media(prefers-color-scheme:dark){{text{{fill:#c9d1d9}}}}</style>\n\
         <text x=\"10\" y=\"24\" font-weight=\"bold\">{title}</text>\n"
    );
    for (index, Bar { name, value, label }) in bars.iter().enumerate() {
        let (top, width) = (44 + ROW * index, WIDTH * value / most);
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text><rect x=\"{LEFT}\" y=\"{top}\" \
             width=\"{width:.1}\" height=\"22\" rx=\"3\" fill=\"#2f81f7\"/><text x=\"{:.1}\" y=\"{}\">{label}</text>",
            LEFT - 8.0,
            top + 16,
            LEFT + width + 8.0,
            top + 16,
        )?;
    }
    svg += "</svg>\n";
    Ok(std::fs::write(docs("benchmarks.svg"), svg)?)
}
