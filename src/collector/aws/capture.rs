//! Keeps the body of a response, which the SDK has read but does not hand out.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_ec2::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;

/// What is kept of a response.
#[derive(Debug, Default)]
pub struct Captured {
    /// The body.
    pub body: Vec<u8>,
    /// The header `Date`.
    pub date: Option<String>,
}

/// An interceptor for one request; of several attempts the last one's response is kept.
#[derive(Debug, Clone, Default)]
pub struct Capture(Arc<Mutex<Option<Captured>>>);

impl Capture {
    /// The response, where one came.
    pub fn take(&self) -> Option<Captured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Intercept for Capture {
    fn name(&self) -> &'static str {
        "Capture"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let captured = response
            .body()
            .bytes()
            .map(|body| Captured { body: body.to_vec(), date: response.headers().get("date").map(str::to_owned) });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = captured;
        Ok(())
    }
}
