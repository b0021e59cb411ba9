//! What to do about what Kafka refuses: its words say which right or proof is missing, not whose, nor where to look.

use crate::config::{Kafka, OAuth};

/// Where the permissions are listed that each command needs.
const LIST: &str = "docs/connect-kafka.md lists the least that each command needs";

/// What to do about an error that ends a command, where it is one of permission, proof or trust. Pure.
///
/// The error went through many hands as text, so it is known by the words of librdkafka, of the brokers and of OpenSSL.
pub fn advice(kafka: &Kafka, error: &str) -> Option<String> {
    let has = |part: &str| error.contains(part);
    let who = principal(kafka);
    let denied = [
        ("Transactional Id authorization failed", "Write on the transactional ID"),
        ("Group authorization failed", "Read on the group"),
        ("Topic authorization failed", "what it needs on the topic"),
        ("Cluster authorization failed", "what it needs on the cluster"),
    ];
    if let Some((_, what)) = denied.iter().find(|(words, _)| has(words)) {
        return Some(format!("Kafka does not allow this to {who}: allow it {what} (ACLs; {LIST})"));
    }
    if has("SASL authentication error") {
        let check = match &kafka.oauth {
            None => "sasl.username, sasl.password and sasl.mechanism in kafka.properties",
            Some(OAuth::Oidc(_)) => "audience and scope in kafka.oauth.oidc, and which issuer the brokers trust",
            Some(OAuth::MskIam(_)) => "kafka.oauth.msk_iam.region, and that IAM allows kafka-cluster:Connect",
        };
        return Some(format!("the brokers do not let {who} in: check {check}"));
    }
    if has("OAUTHBEARER token") {
        return Some(format!("there is no token for {who}: check kafka.oauth"));
    }
    if has("certificate verify failed") {
        return Some(format!(
            "the brokers' certificate is not trusted for this address: check kafka.properties.ssl.ca.location (whose CA \
             signed it), and that it names the host in kafka.bootstrap_servers ({})",
            kafka.bootstrap_servers
        ));
    }
    if has("SSL alert") {
        let check = "ssl.certificate.location and ssl.key.location in kafka.properties";
        return Some(format!("the brokers do not take the certificate of {who}, or want one: check {check}"));
    }
    if has("brokers are down") || has("Disconnected") || has("BrokerTransportFailure") {
        return Some(
            "check kafka.bootstrap_servers, security.protocol in kafka.properties, and the network".to_owned(),
        );
    }
    None
}

/// Who we are to the brokers, as far as the configuration tells.
fn principal(kafka: &Kafka) -> String {
    let property = |name: &str| Some(kafka.properties.get(name)?.expose().to_owned());
    match &kafka.oauth {
        Some(OAuth::Oidc(oidc)) => format!("client {:?}", oidc.client_id),
        Some(OAuth::MskIam(_)) => "these AWS credentials".to_owned(),
        None => match (property("sasl.username"), property("ssl.certificate.location")) {
            (Some(user), _) => format!("user {user:?}"),
            (None, Some(path)) => format!("the name in {path}"),
            (None, None) => "a client that has no name (ANONYMOUS)".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::config::Secret;

    fn with(properties: &[(&str, &str)]) -> Kafka {
        let secret = |value: &str| serde_json::from_value::<Secret>(json!(value)).unwrap();
        let properties: BTreeMap<_, _> =
            properties.iter().map(|(name, value)| ((*name).to_owned(), secret(value))).collect();
        Kafka { properties, ..Kafka::default() }
    }

    #[test]
    fn a_refusal_is_told_with_whom_it_concerns_and_what_to_do() {
        let user = with(&[("sasl.username", "rollcall"), ("sasl.password", "hunter2")]);
        for (error, parts) in [
            ("x: Broker: Topic authorization failed", ["user \"rollcall\"", "on the topic"]),
            ("x (Broker: Group authorization failed)", ["user \"rollcall\"", "Read on the group"]),
            ("Broker: Transactional Id authorization failed", ["user \"rollcall\"", "Write on the transactional ID"]),
            ("SASL authentication error: no", ["user \"rollcall\"", "sasl.password"]),
            ("certificate verify failed", ["localhost:9092", "ssl.ca.location"]),
            ("SSL alert number 42", ["user \"rollcall\"", "ssl.certificate.location"]),
            ("1/1 brokers are down", ["kafka.bootstrap_servers", "security.protocol"]),
        ] {
            let told = advice(&user, error).unwrap();
            assert!(parts.iter().all(|part| told.contains(part)), "{error}: {told}");
            assert!(!told.contains("hunter2"));
        }
        assert_eq!(advice(&user, "the topics are not as they must be"), None);
        let certificate = with(&[("ssl.certificate.location", "/etc/rollcall.pem")]);
        assert!(advice(&certificate, "Topic authorization failed").unwrap().contains("/etc/rollcall.pem"));
        assert!(advice(&with(&[]), "Topic authorization failed").unwrap().contains("ANONYMOUS"));
    }
}
