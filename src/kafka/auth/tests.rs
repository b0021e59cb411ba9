use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use super::*;
use crate::config::{MskIam, Oidc, Secret};

/// A source whose fetches are answered by their number.
fn source(answer: impl Fn(usize) -> Result<Token, String> + Send + Sync + 'static) -> (Source, Arc<AtomicUsize>) {
    source_of(move |number| {
        let answer = answer(number);
        Box::pin(async { answer })
    })
}

fn source_of(answer: impl Fn(usize) -> Fetch + Send + Sync + 'static) -> (Source, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let fetch = move || answer(counted.fetch_add(1, Ordering::SeqCst));
    let of = OAuth::MskIam(MskIam { region: "eu-west-1".to_owned(), credentials: None, role: None });
    (Source::new(of, Box::new(fetch)).unwrap(), count)
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn until(seconds: u64) -> Token {
    Token { value: format!("until-{seconds}").into(), principal: "rollcall".to_owned(), expires: at(seconds) }
}

#[test]
fn one_token_serves_all_until_three_quarters_of_its_life() {
    let (source, fetched) = source(|number| Ok(until(1000 * (number as u64 + 1))));
    for now in [0, 700, 749] {
        assert_eq!(source.token(at(now)).unwrap().value.as_str(), "until-1000");
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
    // librdkafka asks when four fifths of what was left are over.
    assert_eq!(source.token(at(750)).unwrap().value.as_str(), "until-2000");
}

#[test]
fn a_failure_is_believed_for_five_seconds_by_all_who_ask() {
    let (source, fetched) = source(|number| if number == 0 { Err("refused".to_owned()) } else { Ok(until(1000)) });
    for now in [0, 1, 4] {
        assert_eq!(source.token(at(now)).err().as_deref(), Some("refused"));
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "no hot loop");
    assert_eq!(source.token(at(6)).unwrap().value.as_str(), "until-1000");
}

#[test]
fn a_failure_is_believed_from_when_it_came() {
    const SLOW: Duration = Duration::from_millis(50);
    let (source, fetched) = source_of(|_| {
        Box::pin(async {
            tokio::time::sleep(SLOW).await;
            Err("no answer".to_owned())
        })
    });
    assert!(source.token(at(0)).is_err());
    // Who waited for another client's attempt does not try the same again.
    assert!(source.token(at(5)).is_err());
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
}

#[test]
fn a_token_that_is_still_good_outlives_a_failure() {
    let (source, _) = source(|number| if number == 0 { Ok(until(1000)) } else { Err("away".to_owned()) });
    for now in [0, 800, 999] {
        assert_eq!(source.token(at(now)).unwrap().value.as_str(), "until-1000");
    }
    assert!(source.token(at(1000)).is_err());
}

#[test]
fn a_fetch_that_panics_is_a_failure() {
    let of = OAuth::MskIam(MskIam { region: "eu-west-1".to_owned(), credentials: None, role: None });
    let source = Source::new(of, Box::new(|| Box::pin(async { panic!("as planned") }))).unwrap();
    assert!(source.token(at(0)).err().unwrap().contains("panicked"));
}

#[test]
fn equal_configurations_have_one_source_and_no_secret_is_handed_to_librdkafka() {
    let oidc = |secret: &str| {
        let secret = serde_json::from_value::<Secret>(secret.into()).unwrap();
        let (token_url, client_id) = ("https://idp/token".to_owned(), "rollcall".to_owned());
        OAuth::Oidc(Oidc { token_url, client_id, client_secret: secret, scope: None, audience: None, ca_file: None })
    };
    let configured = |secret: &str| {
        let mut config = ClientConfig::new();
        configure(&mut config, &Kafka { oauth: Some(oidc(secret)), ..Kafka::default() });
        config
    };
    let (first, again, other) = (configured("one-secret"), configured("one-secret"), configured("another"));
    assert_eq!(first.get(SOURCE), again.get(SOURCE));
    assert_ne!(first.get(SOURCE), other.get(SOURCE));
    assert_eq!((first.get("sasl.mechanism"), first.get("security.protocol")), (Some("OAUTHBEARER"), Some("sasl_ssl")));
    assert!(!format!("{:?}", first.config_map()).contains("one-secret"));
}

/// Made by AWS's own signer, `aws-msk-iam-sasl-signer-python` 1.0.2, at 2026-01-02 03:04:05 UTC with these keys.
#[cfg(feature = "aws")]
#[test]
fn the_token_for_msk_is_the_one_that_awss_signer_makes() {
    use std::collections::BTreeMap;

    use aws_credential_types::Credentials;
    use aws_smithy_types::base64;

    const SIGNED_AT: u64 = 1_767_323_045;
    let keys = |token: Option<&str>, expiry| {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        Credentials::new("AKIDEXAMPLE", secret, token.map(str::to_owned), expiry, "test")
    };
    let decoded = |token: &Token| {
        assert!(token.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{:?}", token.value);
        let standard = token.value.replace('-', "+").replace('_', "/");
        let padded = format!("{standard}{}", "=".repeat((4 - standard.len() % 4) % 4));
        String::from_utf8(base64::decode(padded).unwrap()).unwrap()
    };
    for (session, signature) in [
        (None, "7cc178453342e479def8e0e69cbff443ca929b5b0426af0f4b64554172c7195d"),
        (Some("IQoJb3JpZ2luX2VjEXAMPLE/TOKEN+=="), "95549d5d7cd3d219886e51c1d427d75bfe243b090b069086f8ba8188ad6c68e5"),
    ] {
        let token = msk::signed("eu-west-1", &keys(session, None), at(SIGNED_AT)).unwrap();
        assert_eq!(token.expires, at(SIGNED_AT + 900));
        let address = reqwest::Url::parse(&decoded(&token)).unwrap();
        assert_eq!(address.origin().ascii_serialization(), "https://kafka.eu-west-1.amazonaws.com");
        assert_eq!(address.path(), "/");
        let query: BTreeMap<String, String> = address.query_pairs().into_owned().collect();
        let agent = concat!("rollcall/", env!("CARGO_PKG_VERSION"));
        let mut expected = BTreeMap::from(
            [
                ("Action", "kafka-cluster:Connect"),
                ("User-Agent", agent),
                ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
                ("X-Amz-Credential", "AKIDEXAMPLE/20260102/eu-west-1/kafka-cluster/aws4_request"),
                ("X-Amz-Date", "20260102T030405Z"),
                ("X-Amz-Expires", "900"),
                ("X-Amz-Signature", signature),
                ("X-Amz-SignedHeaders", "host"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        expected.extend(session.map(|token| ("X-Amz-Security-Token".to_owned(), token.to_owned())));
        assert_eq!(query, expected);
    }
    let ends_soon = msk::signed("eu-west-1", &keys(None, Some(at(SIGNED_AT + 60))), at(SIGNED_AT)).unwrap();
    assert_eq!(ends_soon.expires, at(SIGNED_AT + 60), "a signature is worth no more than its keys");
}
