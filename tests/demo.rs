//! `rollcall demo`: needs nothing, ends by itself, and adds up.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::NamedTempFile;

use crate::support::process::{get, rollcall, signal};
use crate::support::wait_for;

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(0), "{stdout}\n{stderr}");
    stdout
}

/// A number of the closing summary.
fn count(summary: &str, of: &str) -> usize {
    let line = summary.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("no {of:?} in:\n{summary}"));
    let digits = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    line.split_whitespace().find(digits).unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn the_demo_ends_by_itself_and_its_summary_adds_up() {
    let output = run(rollcall().args(["demo", "--sweeps", "4"]));
    let (rows, summary) = output.split_once("\n\n").unwrap();
    let [swept, unchanged, created, updated, removed] =
        ["records in", "unchanged", "created", "updated", "removed"].map(|of| count(summary, of));
    assert_eq!(swept, unchanged + created + updated + removed, "{summary}");
    assert!(created >= 300 && updated > 0 && removed > 0, "{summary}");
    assert_eq!(rows.lines().count(), 1 + created + updated + removed, "a heading and a row for each change");
    assert!(!output.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn the_demo_that_goes_on_has_a_status_page_with_its_changes() {
    let mut command = rollcall();
    command.args(["--set", "admin.listen=127.0.0.1:0", "demo", "--watch"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = command.spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.strip_prefix("Status page: http://")?.to_owned())).unwrap();
    let rest = std::thread::spawn(move || lines.for_each(drop));
    wait_for("a change on the page", Duration::from_secs(60), || {
        get(&address, "/").filter(|page| page.contains("created") && page.contains("Collecting"))
    });
    signal(demo.id(), "INT");
    assert!(demo.wait().unwrap().success());
    rest.join().unwrap();
}

#[test]
fn the_demo_takes_what_describe_instances_prints() {
    let mut file = NamedTempFile::new().unwrap();
    let instance = |id: &str, name: &str| json!({"InstanceId": id, "Tags": [{"Key": "Name", "Value": name}]});
    let instances = [instance("i-1", "web"), instance("i-2", "\u{1b}[31mred")];
    let printed = json!({"Reservations": [{"OwnerId": "111122223333", "Instances": instances}]});
    file.write_all(printed.to_string().as_bytes()).unwrap();
    let output = run(rollcall().arg("demo").arg("--from").arg(file.path()));
    assert!(output.contains("i-1") && output.contains("web"), "{output}");
    assert!(!output.contains('\u{1b}'), "what a tag says must not reach the terminal as a command");
    assert_eq!(count(&output, "created"), 2, "{output}");
}
