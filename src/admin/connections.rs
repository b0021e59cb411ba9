//! Serving within limits: whoever reaches the admin port can slow nobody down for long, and fill no memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at the same time; more wait.
const MAX_CONNECTIONS: usize = 64;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head, and of what waits to be sent.
const MAX_BUFFER: usize = 16 << 10;
/// How long the head of a request may take, and the next one may not come.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A connection is not kept for longer,
const KEPT_FOR: Duration = Duration::from_secs(60);
/// save for the answer that is under way.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let (accepted, place) = tokio::select! {
            Some(accepted) = accepted => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let served = serve_one(stream, app.clone(), stop.clone());
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Mostly of the one who came. Where it is ours (no file left), it does not pass by trying at once.
                tracing::debug!(%error, "a connection to the admin port could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, app: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_headers(MAX_HEADERS).max_buf_size(MAX_BUFFER);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    // What a client does wrong is its own affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(KEPT_FOR) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(END_WITHIN, connection).await;
}
