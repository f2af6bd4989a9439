//! A real Swift of one machine on free ports, behind a Keystone that accepts everybody.
//!
//! It is made of Debian's packages and runs as whoever runs the tests. Swift itself asks for no token here: how tokens
//! are renewed is tested where they are, in the client.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use karbor_bank::{OpenOptions, SwiftBank, SwiftLocation, SwiftOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PACKAGES: &str = "swift-proxy swift-account swift-container swift-object";

/// A running Swift; it stops when it is dropped.
pub(crate) struct SwiftServer {
    servers: Vec<Child>,
    auth_url: String,
    keystone: JoinHandle<()>,
    _directory: TempDir,
}

impl SwiftServer {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        std::fs::create_dir_all(root.join("devices/sdb")).expect("a device");
        write(
            root,
            "swift.conf",
            "[swift-hash]\nswift_hash_path_suffix = test\n[storage-policy:0]\nname = default\ndefault = yes\n",
        );
        let mut servers = Vec::new();
        for kind in ["account", "container", "object"] {
            let port = free_port().await;
            write(
                root,
                &format!("{kind}.conf"),
                &format!(
                    "{}[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n",
                    common(root, port)
                ),
            );
            let device = format!("r1z1-127.0.0.1:{port}/sdb");
            for step in [&["create", "4", "1", "1"][..], &["add", &device, "1"], &["rebalance"]] {
                let builder = format!("{kind}.builder");
                let done = command("swift-ring-builder").current_dir(root).arg(&builder).args(step).output();
                let done = done.unwrap_or_else(|err| panic!("install {PACKAGES}: {err}"));
                // It ends with 1 for a warning.
                assert!(done.status.code() < Some(2), "{}", String::from_utf8_lossy(&done.stdout));
            }
            servers.push(spawn(root, kind));
        }
        let port = free_port().await;
        let app = "[pipeline:main]\npipeline = catch_errors gatekeeper healthcheck proxy-server\n\
                   [app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n\
                   [filter:catch_errors]\nuse = egg:swift#catch_errors\n\
                   [filter:gatekeeper]\nuse = egg:swift#gatekeeper\n\
                   [filter:healthcheck]\nuse = egg:swift#healthcheck\n";
        write(root, "proxy.conf", &format!("{}{app}", common(root, port)));
        servers.push(spawn(root, "proxy"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let auth_url = format!("http://{}/v3", listener.local_addr().expect("it is bound"));
        let keystone = tokio::spawn(keystone(listener, format!("http://127.0.0.1:{port}/v1/AUTH_test")));
        let server = Self { servers, auth_url, keystone, _directory: directory };
        server.wait_until_ready(port).await;
        server
    }

    pub(crate) fn bank(&self, location: SwiftLocation) -> SwiftBank {
        SwiftBank::open(location, &self.options()).expect("the settings are complete")
    }

    pub(crate) fn options(&self) -> SwiftOptions {
        OpenOptions::from_environment(|name| match name {
            "OS_AUTH_URL" => Some(self.auth_url.clone()),
            "OS_USERNAME" => Some("ann".to_owned()),
            "OS_PASSWORD" => Some("open sesame".to_owned()),
            "OS_PROJECT_NAME" => Some("test".to_owned()),
            _ => None,
        })
        .swift
    }

    /// Waits until a container can be made: then all four servers work.
    async fn wait_until_ready(&self, port: u16) {
        let limit = Instant::now() + Duration::from_secs(120);
        while answer(port, "PUT /v1/AUTH_test/ready").await.is_none_or(|status| !status.contains(" 20")) {
            assert!(Instant::now() < limit, "Swift did not start within two minutes");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        answer(port, "DELETE /v1/AUTH_test/ready").await.expect("it is ready");
    }
}

impl Drop for SwiftServer {
    fn drop(&mut self) {
        self.keystone.abort();
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn common(root: &Path, port: u16) -> String {
    let user = Command::new("id").arg("-un").output().expect("there is a user").stdout;
    let (user, root) = (String::from_utf8_lossy(&user).trim().to_owned(), root.display());
    format!(
        "[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nuser = {user}\nworkers = 0\nswift_dir = {root}\n\
         devices = {root}/devices\nmount_check = false\nrecon_cache_path = {root}\n"
    )
}

fn write(root: &Path, name: &str, text: &str) {
    std::fs::write(root.join(name), text).expect("a configuration");
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).process_group(0);
    command
}

fn spawn(root: &Path, kind: &str) -> Child {
    let log = std::fs::File::create(root.join(format!("{kind}.log"))).expect("a log");
    let errors = log.try_clone().expect("a log");
    let mut server = command(&format!("swift-{kind}-server"));
    server.arg(root.join(format!("{kind}.conf"))).arg("--verbose").stdout(log).stderr(errors);
    server.spawn().unwrap_or_else(|err| panic!("install {PACKAGES}: {err}"))
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Makes a request without a body and returns the line with the status.
async fn answer(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let text = format!("{request} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.ok()?;
    String::from_utf8_lossy(&reply).lines().next().map(str::to_owned)
}

async fn keystone(listener: TcpListener, swift: String) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let swift = swift.clone();
        let answer = service_fn(move |_: Request<Incoming>| {
            let text = serde_json::json!({"token": {
                "user": {"id": "u", "name": "ann"}, "project": {"id": "test"}, "roles": [{"name": "member"}],
                "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2026-01-01T01:00:00.000000Z",
                "catalog": [{"type": "object-store", "endpoints": [{"interface": "public", "url": swift}]}],
            }});
            let mut response = Response::new(s3s::Body::from(text.to_string()));
            *response.status_mut() = StatusCode::CREATED;
            response
                .headers_mut()
                .insert("x-subject-token", hyper::header::HeaderValue::from_static("a-token"));
            async move { Ok::<_, Infallible>(response) }
        });
        connections.spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
