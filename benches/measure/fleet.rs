//! Devices whose names tell nothing: what a compressor has to expect at worst.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use fastrand::Rng;
use rollcall::collector::simulated::Fleet;
use rollcall::profile::{Mapping, Profile, Scope};
use serde_json::{Value, json};

const REGIONS: [&str; 12] = [
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-2",
];
/// Tags of an instance beside its name.
const TAGS: usize = 5;

/// An instance.
pub struct Sample {
    pub id: String,
    /// As `describe-instances` prints it.
    pub json: String,
    region: &'static str,
}

impl Sample {
    /// The same with another name, for each number one.
    pub fn revised(&self, revision: u64) -> String {
        let name = r#""Key":"Name","Value":""#;
        self.json.replacen(name, &format!("{name}{revision}-"), 1)
    }

    /// The same instance under another ID, for each number one; that ID and the instance.
    pub fn renamed(&self, number: usize) -> (String, String) {
        let id = format!("{}{number:06x}", &self.id[..self.id.len() - 6]);
        let json = self.json.replace(&self.id, &id);
        (id, json)
    }

    /// The device that a profile renders of it, canonical JSON.
    pub fn render(&self, mapping: &Mapping) -> String {
        let reading = mapping.read(&self.json).unwrap();
        let scope = Scope { account: None, region: Some(self.region) };
        mapping.render(&self.id, &reading, scope).to_json().unwrap()
    }
}

/// A mapping with nothing but its profile.
pub fn mapping(profile: Profile) -> Mapping {
    Mapping { profile, ..Mapping::default() }
}

/// So many instances of one account and region. Names of instances and groups, keys and values of tags are random, IDs
/// and addresses are as good as that. The same seed gives the same.
pub fn site(seed: u64, instances: usize) -> impl Iterator<Item = Sample> {
    let mut rng = Rng::with_seed(seed);
    let account: String = std::iter::repeat_with(|| rng.digit(10)).take(12).collect();
    let region = REGIONS[seed as usize % REGIONS.len()];
    let now: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut names = HashMap::new();
    Fleet::new(seed, &account, region, instances, now).instances().into_iter().map(move |mut instance| {
        instance.insert("Tags".to_owned(), tags(&mut rng));
        instance.values_mut().for_each(|member| rename(member, &mut names, &mut rng));
        let id = instance["InstanceId"].as_str().unwrap().to_owned();
        Sample { id, json: Value::Object(instance).to_string(), region }
    })
}

fn tags(rng: &mut Rng) -> Value {
    let name = json!({"Key": "Name", "Value": word(24, rng)});
    let others = std::iter::repeat_with(|| json!({"Key": word(10, rng), "Value": word(20, rng)}));
    std::iter::once(name).chain(others.take(TAGS)).collect()
}

/// Gives groups other names, the same ones all over the site.
fn rename(value: &mut Value, names: &mut HashMap<String, String>, rng: &mut Rng) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(name)) = members.get_mut("GroupName").filter(|name| *name != "") {
                *name = names.entry(std::mem::take(name)).or_insert_with(|| word(16, rng)).clone();
            }
            members.values_mut().for_each(|member| rename(member, names, rng));
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| rename(element, names, rng)),
        _ => {}
    }
}

fn word(length: usize, rng: &mut Rng) -> String {
    std::iter::repeat_with(|| rng.alphanumeric()).take(length).collect()
}
