//! Decodes the body of a response in the SDK's place.
//!
//! The SDK would parse the body into types of its own first, which know the members of its release only, and take as
//! much time for it as we do. So once a response has come and is a success, its deserializer is replaced by ours, which
//! keeps what it decoded here and hands the SDK an empty output. Errors are left to the SDK: it reads their codes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_ec2::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::interceptors::context::{Error, Output};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};

use super::fault::Failure;
use crate::collector::fault::{Fault, FaultKind};
use crate::collector::xml::DecodeError;

/// What a body held, and when AWS says that it answered.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub content: T,
    /// The header `Date`.
    pub date: Option<String>,
}

/// An interceptor for one request. `O` is the SDK's output of the operation.
pub(super) struct Decoding<T, O> {
    decode: fn(&[u8]) -> Result<T, DecodeError>,
    empty: fn() -> O,
    answer: Arc<Mutex<Option<Answer<T>>>>,
}

impl<T, O> Decoding<T, O> {
    /// Decodes with `decode`; the SDK gets what `empty` makes.
    pub(super) fn new(decode: fn(&[u8]) -> Result<T, DecodeError>, empty: fn() -> O) -> Self {
        Self { decode, empty, answer: Arc::default() }
    }

    /// The answer to the call that was sent with this interceptor.
    pub(super) fn answer<E>(&self, call: &str, sent: Result<O, SdkError<E, HttpResponse>>) -> Result<Answer<T>, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        sent.map_err(|error| Failure::of(call, &error))?;
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.ok_or_else(|| Fault::new(FaultKind::Unreadable, format!("{call}: no answer")).into())
    }
}

impl<T, O> Clone for Decoding<T, O> {
    fn clone(&self) -> Self {
        Self { decode: self.decode, empty: self.empty, answer: self.answer.clone() }
    }
}

impl<T, O> fmt::Debug for Decoding<T, O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Decoding")
    }
}

impl<T, O> Intercept for Decoding<T, O>
where
    T: Send + 'static,
    O: fmt::Debug + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        "Decoding"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().status().is_success() {
            bag.interceptor_state().store_put(SharedResponseDeserializer::new(self.clone()));
        }
        Ok(())
    }
}

impl<T, O> DeserializeResponse for Decoding<T, O>
where
    T: Send + 'static,
    O: fmt::Debug + Send + Sync + 'static,
{
    /// The body has been read to its end by now: one that is shorter than promised does not get here.
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        _: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        let body = response.body().bytes().unwrap_or_default();
        let content = (self.decode)(body).map_err(|error| OrchestratorError::response(error.into()))?;
        let date = response.headers().get("date").map(str::to_owned);
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Answer { content, date });
        Ok(Output::erase((self.empty)()))
    }
}
