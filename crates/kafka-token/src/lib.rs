//! Gives a Kafka client its OAUTHBEARER token.
//!
//! rdkafka asks its context for one, but only when the client is polled. An `AdminClient` never is, so it would never
//! have a token, and a call of any other client that waits for an answer before the first poll would wait in vain.
//! librdkafka has a function for that, and rdkafka no safe one: hence this crate, which is nothing but that call.

use std::ffi::{CStr, CString, c_char};

use rdkafka::bindings::rd_kafka_oauthbearer_set_token;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::types::RDKafkaRespErr;

/// Room for librdkafka's words.
const ERROR_BYTES: usize = 512;

/// Gives `client` a token, in place of the one that it has.
///
/// # Errors
/// When the client is not configured for OAUTHBEARER, or the token has expired or has characters that no token has.
pub fn set<C: ClientContext>(client: &Client<C>, token: &OAuthToken) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "a token has a zero byte in it".to_owned());
    let (value, principal) = (text(&token.token)?, text(&token.principal_name)?);
    let mut error: [c_char; ERROR_BYTES] = [0; ERROR_BYTES];
    // SAFETY: the client is alive as long as the reference to it. Both texts end with a zero and outlive the call, which
    // copies them. There are no extensions: the null comes with the length 0. The buffer is as long as is said.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: librdkafka wrote a text that ends with a zero within the buffer, or nothing: it was all zeros before.
    let reason = unsafe { CStr::from_ptr(error.as_ptr()) };
    Err(reason.to_string_lossy().into_owned())
}
