//! Where the tokens come from that Kafka's SASL mechanism OAUTHBEARER shows to the brokers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::Faults;
use super::{Account, AwsSource, Credentials, Kafka, Regions, Role, Secret};

/// Where tokens come from: exactly one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OAuth {
    /// An identity provider, by the grant of client credentials.
    Oidc(Oidc),
    /// Our own signature, which Amazon MSK takes for one.
    MskIam(MskIam),
}

/// An identity provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Its token endpoint.
    pub token_url: String,
    /// Who we are there.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Secret,
    /// What the token is to be good for, as the provider calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whom the token is for, where the provider wants to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Certificates that are trusted beside the system's, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Amazon MSK with IAM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MskIam {
    /// The region that the cluster is in.
    pub region: String,
    /// Where the credentials come from; `None`: the SDK's default chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// The role to assume with them, as for a cluster in another account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl MskIam {
    /// The way to the credentials, as that of a source.
    pub fn way(&self) -> AwsSource {
        let Self { region, credentials, role } = self;
        let assumed = |Role { role_arn, external_id, session_name }: Role| Account {
            role_arn,
            external_id,
            session_name,
            via: Vec::new(),
        };
        AwsSource {
            regions: Regions::Listed(vec![region.clone()]),
            credentials: credentials.clone(),
            accounts: role.clone().map(assumed).into_iter().collect(),
            ..AwsSource::default()
        }
    }
}

/// Checks the section, and that the properties beside it do not say otherwise.
pub(super) fn check(kafka: &Kafka, faults: &mut Faults) {
    let property = |names: &[&str]| {
        let found = names.iter().find_map(|name| Some((*name, kafka.properties.get(*name)?.expose())));
        found.map(|(name, value)| (format!("kafka.properties.{name}"), value.to_ascii_uppercase()))
    };
    let mechanism = property(&["sasl.mechanism", "sasl.mechanisms"]);
    let Some(oauth) = &kafka.oauth else {
        if let Some((key, _)) = mechanism.filter(|(_, value)| value == "OAUTHBEARER") {
            faults.add(&key, "OAUTHBEARER needs kafka.oauth, which says where the tokens come from");
        }
        return;
    };
    if let Some((key, _)) = mechanism.filter(|(_, value)| value != "OAUTHBEARER") {
        faults.add(&key, "is another mechanism, and kafka.oauth is given: one of the two is allowed");
    }
    if let Some((key, _)) = property(&["security.protocol"]).filter(|(_, value)| !value.starts_with("SASL_")) {
        faults.add(&key, "has no SASL, and kafka.oauth is given: leave it out, it is SASL_SSL then");
    }
    match oauth {
        OAuth::Oidc(oidc) => {
            let key = "kafka.oauth.oidc";
            faults.address(&format!("{key}.token_url"), &oidc.token_url);
            for (name, text) in [("client_id", &*oidc.client_id), ("client_secret", oidc.client_secret.expose())] {
                faults.unless(!text.is_empty(), &format!("{key}.{name}"), "is empty");
            }
            let is_tls = oidc.ca_file.is_none() || oidc.token_url.starts_with("https:");
            let message = "is given, but token_url is not an https:// address";
            faults.unless(is_tls, &format!("{key}.ca_file"), message);
        }
        OAuth::MskIam(iam) => {
            let key = "kafka.oauth.msk_iam";
            #[cfg(not(feature = "aws"))]
            faults.add(key, "this program was built without the feature `aws`, which signs its tokens");
            let is_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let is_name = iam.region.contains('-') && iam.region.chars().all(is_region);
            let message = format!("{:?} is not the name of a region, as in eu-west-1", iam.region);
            faults.unless(is_name, &format!("{key}.region"), message);
            if let Some(credentials) = &iam.credentials {
                credentials.check(&format!("{key}.credentials"), faults);
            }
            if let Some(role) = &iam.role {
                role.check(&format!("{key}.role"), faults);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::load;

    fn fault(kafka: &Value) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json!({"kafka": kafka}).to_string()).unwrap();
        load(Some(file.path()), &[]).map_or_else(|error| error.to_string(), |_| String::new())
    }

    fn oidc(change: &Value) -> Value {
        let mut oidc = json!({"token_url": "https://idp/token", "client_id": "a", "client_secret": "b"});
        oidc.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"oauth": {"oidc": oidc}})
    }

    #[test]
    fn tokens_that_cannot_come_are_refused_with_their_key() {
        for (kafka, key) in [
            (oidc(&json!({"token_url": "idp/token"})), "kafka.oauth.oidc.token_url"),
            (oidc(&json!({"token_url": "https://a:b@idp/"})), "kafka.oauth.oidc.token_url"),
            (oidc(&json!({"client_id": ""})), "kafka.oauth.oidc.client_id"),
            (oidc(&json!({"client_secret": ""})), "kafka.oauth.oidc.client_secret"),
            (oidc(&json!({"token_url": "http://idp/", "ca_file": "a"})), "kafka.oauth.oidc.ca_file"),
            (oidc(&json!({"extensions": {}})), "extensions"),
            (json!({"oauth": {"msk_iam": {"region": "Ireland"}}}), "kafka.oauth.msk_iam.region"),
            (
                json!({"oauth": {"msk_iam": {"region": "eu-west-1", "role": {"role_arn": "x"}}}}),
                "kafka.oauth.msk_iam.role.role_arn",
            ),
            (
                json!({"properties": {"sasl.mechanism": "OAUTHBEARER"}}),
                "kafka.properties.sasl.mechanism: OAUTHBEARER needs",
            ),
            (json!({"properties": {"sasl.oauthbearer.method": "oidc"}}), "kafka.properties.sasl.oauthbearer.method"),
        ] {
            let told = fault(&kafka);
            assert!(told.contains(key), "{kafka}: {told:?}");
        }
        assert_eq!(fault(&oidc(&json!({}))), "");
    }

    #[test]
    fn properties_that_say_otherwise_are_refused() {
        for (name, value, is_refused) in [
            ("sasl.mechanism", "PLAIN", true),
            ("sasl.mechanisms", "OAUTHBEARER", false),
            ("security.protocol", "SSL", true),
            ("security.protocol", "sasl_plaintext", false),
        ] {
            let mut kafka = oidc(&json!({}));
            kafka["properties"] = json!({name: value});
            assert_eq!(fault(&kafka).contains(name), is_refused, "{name}={value}");
        }
    }

    #[test]
    fn what_would_break_a_guarantee_is_refused_by_each_of_its_names() {
        for name in [
            "acks",
            "request.required.acks",
            "enable.auto.commit",
            "auto.commit.enable",
            "isolation.level",
            "enable.idempotence",
            "metadata.broker.list",
            "transaction.timeout.ms",
            "message.max.bytes",
        ] {
            let told = fault(&json!({"properties": {name: "1"}}));
            assert!(told.contains(&format!("kafka.properties.{name}: must not be set: ")), "{name}: {told:?}");
        }
        assert_eq!(fault(&json!({"properties": {"socket.timeout.ms": "1000", "ssl.cipher.suites": "x"}})), "");
    }
}
