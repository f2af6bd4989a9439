//! The server: slow and silent clients, and an end that comes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use karbor_api::{ApiConfig, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

struct Served {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    /// Tells the handler of `/slow` to end, and that it has begun.
    release: Arc<Notify>,
    begun: Arc<Notify>,
}

async fn served(config: ApiConfig) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (release, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, tell) = (Arc::clone(&release), Arc::clone(&begun));
    let slow = get(move || {
        let (wait, tell) = (Arc::clone(&wait), Arc::clone(&tell));
        async move {
            tell.notify_one();
            wait.notified().await;
            "slow"
        }
    });
    let router = Router::new().route("/fast", get(|| async { "fast" })).route("/slow", slow);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        serve(listener, router, &config, async {
            stopped.await.unwrap_or_default();
        })
        .await;
    });
    Served { address, stop, server, release, begun }
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
}

/// Reads until the text has come.
async fn wait_for(stream: &mut TcpStream, text: &str) {
    let mut read = Vec::new();
    let work = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.expect("reads");
            assert!(count > 0, "the connection was closed before `{text}` came");
            read.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(LIMIT, work).await.expect("comes in time");
}

async fn wait_for_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("closes in time");
    // A reset is an end as well.
    end.unwrap_or_default();
}

#[tokio::test]
async fn who_never_ends_their_headers_is_cut_off() {
    let served = served(ApiConfig { header_seconds: 1, ..ApiConfig::default() }).await;
    let mut slow = TcpStream::connect(served.address).await.expect("connects");
    slow.write_all(b"GET /fast HTTP/1.1\r\nhost: x\r\nx-header: ").await.expect("sends");
    let mut silent = TcpStream::connect(served.address).await.expect("connects");
    wait_for_close(&mut slow).await;
    wait_for_close(&mut silent).await;
    let mut other = TcpStream::connect(served.address).await.expect("connects");
    ask(&mut other, "/fast").await;
    wait_for(&mut other, "fast").await;
    served.stop.send(()).expect("is running");
    served.server.await.expect("ends");
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_one_waits() {
    let served = served(ApiConfig { connections: 1, ..ApiConfig::default() }).await;
    let mut first = TcpStream::connect(served.address).await.expect("connects");
    ask(&mut first, "/slow").await;
    served.begun.notified().await;
    let mut second = TcpStream::connect(served.address).await.expect("is queued by the system");
    ask(&mut second, "/fast").await;
    let mut buffer = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut buffer)).await;
    assert!(early.is_err(), "the second has to wait");
    served.release.notify_one();
    wait_for(&mut first, "slow").await;
    drop(first);
    wait_for(&mut second, "fast").await;
    served.stop.send(()).expect("is running");
    served.server.await.expect("ends");
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_service() {
    let served = served(ApiConfig::default()).await;
    let mut idle = TcpStream::connect(served.address).await.expect("connects");
    ask(&mut idle, "/fast").await;
    wait_for(&mut idle, "fast").await;
    let mut busy = TcpStream::connect(served.address).await.expect("connects");
    ask(&mut busy, "/slow").await;
    served.begun.notified().await;
    served.stop.send(()).expect("is running");
    wait_for_close(&mut idle).await;
    assert!(!served.server.is_finished(), "a request is under way");
    served.release.notify_one();
    wait_for(&mut busy, "slow").await;
    tokio::time::timeout(LIMIT, served.server).await.expect("ends in time").expect("ends");
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_given_up() {
    let served = served(ApiConfig { drain_seconds: 0, ..ApiConfig::default() }).await;
    let mut busy = TcpStream::connect(served.address).await.expect("connects");
    ask(&mut busy, "/slow").await;
    served.begun.notified().await;
    served.stop.send(()).expect("is running");
    tokio::time::timeout(LIMIT, served.server).await.expect("ends in time").expect("ends");
    wait_for_close(&mut busy).await;
}
