//! The admin port: `/metrics`, `/healthz`, `/readyz` for machines and anybody; the status page at `/`, and the same as
//! JSON at `/status`, of which everybody sees what the door lets them see.

mod connections;
mod door;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::Utc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::status::history;
use crate::status::page::{self, Visitor};
use crate::status::report::{Report, Sight, Watched};
use door::{COOKIE_NAME, Door, Refusal, SIGNED_IN_FOR};

/// All that is loaded comes from here, and nothing else may frame it or be sent to.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";
/// Bytes that a sign-in may have,
const MAX_BODY: usize = 4 << 10;
/// and how long it may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Shown {
    watched: Watched,
    door: Arc<Door>,
}

/// Binds the configured address, which is the answer; serving ends with `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(admin: &config::Admin, watched: Watched, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let listen = &admin.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("admin.listen: {listen:?} cannot be bound; name a free port, or \"\" for none"))?;
    let address = listener.local_addr()?;
    let door = Door::new(admin.token.as_ref(), address.ip().is_loopback());
    tracing::info!(%address, shows_devices = !matches!(door, Door::Closed), "admin port open");
    tokio::spawn(sample(watched.clone(), stop.clone()));
    tokio::spawn(connections::serve(listener, router(Shown { watched, door: Arc::new(door) }), stop));
    Ok(address)
}

fn router(shown: Shown) -> Router {
    let asset = |kind, text| get(move || async move { ([(CONTENT_TYPE, kind)], text) });
    Router::new()
        .route("/", get(show_page))
        .route("/page.css", asset("text/css; charset=utf-8", page::STYLE))
        .route("/page.js", asset("text/javascript; charset=utf-8", page::SCRIPT))
        .route("/sign-in", post(sign_in))
        .route("/status", get(show_status))
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_liveness))
        .route("/readyz", get(show_readiness))
        .layer(axum::middleware::map_response(harden))
        .with_state(shown)
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Keeps the short memory of how it went.
async fn sample(watched: Watched, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(history::EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => watched.board.history.look(&watched.metrics, Instant::now()),
            () = stop.cancelled() => return,
        }
    }
}

// === The status page ===

async fn show_page(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    match shown.door.sight(&headers, Utc::now()) {
        Ok(sight) => html(page::page(&Report::of(&shown.watched, sight), shown.visitor(sight))),
        Err(refusal) => refusal.into_response(),
    }
}

async fn show_status(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let sight = match shown.door.sight(&headers, Utc::now()) {
        Ok(sight) => sight,
        Err(refusal) => return refusal.into_response(),
    };
    match serde_json::to_string(&Report::of(&shown.watched, sight)) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn html(page: maud::Markup) -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

impl Shown {
    fn visitor(&self, sight: Sight) -> Visitor {
        match (sight, &*self.door) {
            (Sight::Operator, _) => Visitor::Operator,
            (Sight::Passerby, Door::Token(_)) => Visitor::MaySignIn { has_failed: false },
            (Sight::Passerby, _) => Visitor::Stranger,
        }
    }
}

/// Takes the token from a form, and leaves a cookie in the browser.
async fn sign_in(State(shown): State<Shown>, body: Body) -> Response {
    if !matches!(*shown.door, Door::Token(_)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Ok(read) = tokio::time::timeout(BODY_WITHIN, to_bytes(body, MAX_BODY)).await else {
        return StatusCode::REQUEST_TIMEOUT.into_response();
    };
    let Ok(form) = read else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let given = form_urlencoded::parse(&form).find(|(name, _)| name == "token").map(|(_, token)| token);
    let cookie = given.filter(|given| shown.door.takes(given.trim())).and_then(|_| shown.door.cookie(Utc::now()));
    match cookie {
        Some(cookie) => {
            let (name, seconds) = (COOKIE_NAME, SIGNED_IN_FOR.num_seconds());
            let cookie = format!("{name}={cookie}; Max-Age={seconds}; HttpOnly; SameSite=Strict");
            (StatusCode::SEE_OTHER, [(LOCATION, "./".to_owned()), (SET_COOKIE, cookie)]).into_response()
        }
        None => {
            let page =
                page::page(&Report::of(&shown.watched, Sight::Passerby), Visitor::MaySignIn { has_failed: true });
            (StatusCode::FORBIDDEN, html(page)).into_response()
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Misdirected => {
                let why = "Without admin.token this page is only for this machine, by the name of localhost.\n";
                (StatusCode::MISDIRECTED_REQUEST, why).into_response()
            }
            Self::WrongToken => {
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "This is not admin.token.\n").into_response()
            }
        }
    }
}

// === For machines ===

async fn show_metrics(State(shown): State<Shown>) -> impl IntoResponse {
    match shown.watched.metrics.render() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

/// Alive: every loop has turned lately.
async fn show_liveness(State(shown): State<Shown>) -> impl IntoResponse {
    let stuck = shown.watched.health.stuck();
    answer(stuck.into_iter().map(|(part, age)| (part, format!("has not turned for {} s", age.as_secs()))))
}

/// Ready: assigned, restored, nothing held.
async fn show_readiness(State(shown): State<Shown>) -> impl IntoResponse {
    answer(shown.watched.health.waiting_for())
}

fn answer(troubles: impl IntoIterator<Item = (String, String)>) -> (StatusCode, String) {
    let mut text = String::new();
    for (part, reason) in troubles {
        let _ = writeln!(text, "{part}: {reason}");
    }
    if text.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, text) }
}
