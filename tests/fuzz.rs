//! The bytes that fuzzing has kept, and the same with some damage, against what `fuzz/src` promises of foreign bytes.
//!
//! Here no coverage guides: `./dev fuzz` searches for more.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::support::seed;

#[path = "../fuzz/src/lib.rs"]
mod promises;

/// How often each is damaged.
const DAMAGES: usize = 8;

/// What is kept for the target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut files = files(&format!("corpus/{target}"));
    files.sort();
    assert!(files.len() >= 10, "only {} files are kept for {target}", files.len());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A part of it left out, said twice, taken from another or with another bit: what fuzzers do.
fn damaged(bytes: &[u8], other: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut part = |bytes: &[u8]| {
        let start = random.usize(0..=bytes.len());
        start..random.usize(start..=bytes.len().min(start + 32))
    };
    let (here, there) = (part(bytes), part(other));
    let mut damaged = bytes.to_vec();
    match random.u8(0..4) {
        0 => drop(damaged.drain(here)),
        1 => drop(damaged.splice(here.end..here.end, bytes[here].to_vec())),
        2 => drop(damaged.splice(here, other[there].iter().copied())),
        _ => damaged.iter_mut().skip(here.start).take(1).for_each(|byte| *byte ^= 1 << random.u8(0..8)),
    }
    damaged
}

fn keeps_its_promises(target: &str) {
    let (_, body) = promises::TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let corpus = corpus(target);
    for kept in &corpus {
        let others: Vec<_> =
            (0..DAMAGES).map(|_| damaged(kept, random.choice(&corpus).unwrap(), &mut random)).collect();
        for bytes in [kept].into_iter().chain(&others) {
            if catch_unwind(|| body(bytes)).is_err() {
                let file = std::env::temp_dir().join(format!("rollcall-fuzz-{target}"));
                std::fs::write(&file, bytes).unwrap();
                panic!(
                    "{target} breaks on the bytes in {} (seed {seed}): {:?}",
                    file.display(),
                    bytes.escape_ascii().to_string()
                );
            }
        }
    }
}

/// A test for each target, so that they run side by side.
macro_rules! targets {
    ($($target:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                keeps_its_promises(stringify!($target));
            }
        )*
    };
}

targets! { avro config dump ec2_xml raw_record registry state_record }

#[test]
fn every_target_has_a_test_a_corpus_and_an_entry_for_cargo_fuzz() {
    let names = |folder: &str| -> BTreeSet<_> {
        files(folder).iter().map(|file| file.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    let tested: BTreeSet<_> = TESTED.iter().map(ToString::to_string).collect();
    assert_eq!(promises::TARGETS.map(|(name, _)| name.to_owned()).into_iter().collect::<BTreeSet<_>>(), tested);
    assert_eq!(names("fuzz_targets"), tested);
    assert_eq!(names("corpus"), tested);
    let manifest = include_str!("../fuzz/Cargo.toml");
    for name in tested {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
