//! A token for Amazon MSK: a signed address that says "connect", as AWS's own signers make it.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_types::base64;

use super::Token;
use crate::collector::aws::session::Sessions;
use crate::config::MskIam;

/// How long a signature is good, in seconds: the longest that MSK takes.
const LIFE: Duration = Duration::from_secs(900);
const SERVICE: &str = "kafka-cluster";

/// Signs tokens with the credentials of this process, or of a role.
pub(super) struct Signer {
    region: String,
    account: Option<String>,
    sessions: Sessions,
}

impl Signer {
    pub(super) fn new(iam: &MskIam) -> Self {
        let way = iam.way();
        let account = way.accounts.first().and_then(|account| account.id()).map(str::to_owned);
        Self { region: iam.region.clone(), account, sessions: Sessions::new("kafka.oauth.msk_iam", way) }
    }

    pub(super) async fn token(&self) -> Result<Token, String> {
        let keys = self.sessions.credentials(self.account.as_deref()).await;
        let keys = keys.map_err(|fault| format!("kafka.oauth.msk_iam: {fault}: {}", fault.kind.remedy()))?;
        signed(&self.region, &keys, SystemTime::now()).map_err(|error| format!("kafka.oauth.msk_iam: {error}"))
    }
}

/// The token of a moment. Pure.
pub(super) fn signed(region: &str, keys: &Credentials, now: SystemTime) -> Result<Token, String> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFE);
    let identity = Identity::from(keys.clone());
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let url = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let request = SignableRequest::new("GET", &*url, std::iter::empty(), SignableBody::Bytes(&[]));
    let signed = sign(request.map_err(|error| error.to_string())?, &params).map_err(|error| error.to_string())?;
    let (instructions, _) = signed.into_parts();
    let mut address = reqwest::Url::parse(&url).map_err(|error| error.to_string())?;
    address.query_pairs_mut().extend_pairs(instructions.params());
    // Not signed; MSK logs it.
    address.query_pairs_mut().append_pair("User-Agent", concat!("rollcall/", env!("CARGO_PKG_VERSION")));
    let value = base64::encode(address.as_str()).replace('+', "-").replace('/', "_");
    let ends = now + LIFE;
    Ok(Token {
        value: value.trim_end_matches('=').to_owned().into(),
        principal: keys.access_key_id().to_owned(),
        // A signature is worth no more than the keys that it was made with.
        expires: keys.expiry().map_or(ends, |expiry| expiry.min(ends)),
    })
}
