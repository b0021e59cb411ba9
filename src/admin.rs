//! The admin port: `/metrics`, `/healthz`, `/readyz`.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Binds `address`; serving ends with `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: &str,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("admin.listen: {address:?} cannot be bound; name a free port, or \"\" for none"))?;
    tracing::info!(address = %listener.local_addr()?, "admin port open");
    let app = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_liveness))
        .route("/readyz", get(show_readiness))
        .with_state(Shown { metrics, health });
    tokio::spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin port has closed");
        }
    });
    Ok(())
}

async fn show_metrics(State(shown): State<Shown>) -> impl IntoResponse {
    match shown.metrics.render() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

/// Alive: every loop has turned lately.
async fn show_liveness(State(shown): State<Shown>) -> impl IntoResponse {
    let stuck = shown.health.stuck();
    answer(stuck.into_iter().map(|(part, age)| (part, format!("has not turned for {} s", age.as_secs()))))
}

/// Ready: assigned, restored, nothing held.
async fn show_readiness(State(shown): State<Shown>) -> impl IntoResponse {
    answer(shown.health.waiting_for())
}

fn answer(troubles: impl IntoIterator<Item = (String, String)>) -> (StatusCode, String) {
    let mut text = String::new();
    for (part, reason) in troubles {
        let _ = writeln!(text, "{part}: {reason}");
    }
    if text.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, text) }
}
