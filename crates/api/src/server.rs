//! The server: connections in, a router behind them, and an end that comes.
//!
//! What a client can hold is bounded: how many connections there are, how long one may take to send its headers
//! or stay idle (the gate bounds the rest of a request). When the service stops, no new connection is taken, idle ones
//! are closed, and requests under way have a while to finish.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::ApiConfig;
use crate::patient::Patient;

/// How long to wait when the system has no more files for connections.
const BREATH: Duration = Duration::from_millis(100);

/// Serves a router on a listener until `stop` is ready and the requests under way have ended, or
/// `drain-seconds` have passed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &ApiConfig,
    stop: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(config.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(config.header_seconds));
    let patience = Duration::from_secs(config.write_seconds);
    let mut stop = std::pin::pin!(stop);
    loop {
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = Arc::clone(&room).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(err) => {
                refused(&err).await;
                continue;
            }
        };
        // Answers are small and whole: waiting for more to send only delays them.
        if let Err(err) = stream.set_nodelay(true) {
            debug!("A connection was gone at once: {err}");
            continue;
        }
        let service = router.clone().map_request(|request: Request<Incoming>| request.map(Body::new));
        let connection = http.serve_connection(
            TokioIo::new(Patient::new(stream, patience)),
            TowerToHyperService::new(service),
        );
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(err) = connection.await {
                debug!("A connection broke off: {err}");
            }
            drop(permit);
        });
    }
    drop(listener);
    let drain = Duration::from_secs(config.drain_seconds);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        warn!(
            "Some requests had not ended {} seconds after the service was told to stop",
            config.drain_seconds
        );
    }
    connections.shutdown().await;
}

/// Waits a little when it is our side that cannot take a connection; goes on at once when it was the other's.
async fn refused(err: &io::Error) {
    use io::ErrorKind as Kind;
    if matches!(err.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted) {
        return;
    }
    warn!("A connection could not be taken: {err}");
    tokio::time::sleep(BREATH).await;
}
