//! An S3 server in this process, on a free port, that can be told to misbehave.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use karbor_bank::wrap::{RetryOptions, Retrying};
use karbor_bank::{Bank, S3Bank, S3Credentials, S3Location, S3Options};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const BUCKET: &str = "bank";

/// What the server does with the next request of a method.
#[derive(Debug, Clone)]
pub(crate) enum Misbehavior {
    /// It answers with this status and this code in the body, and does nothing.
    Refuse(u16, &'static str),
    /// It does what it is asked for and breaks the connection instead of answering.
    LoseReply,
}

/// A running server; it stops when it is dropped.
pub(crate) struct S3Server {
    endpoint: String,
    script: Script,
    serving: JoinHandle<()>,
    directory: TempDir,
}

type Script = Arc<Mutex<VecDeque<(Method, Misbehavior)>>>;

impl S3Server {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join(BUCKET)).expect("a bucket");
        let storage = s3s_fs::FileSystem::new(directory.path()).expect("the directory exists");
        let mut builder = S3ServiceBuilder::new(storage);
        builder.set_auth(SimpleAuth::from_single("id", "secret"));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let script = Script::default();
        let (root, one_at_a_time) = (directory.path().to_owned(), tokio::sync::Mutex::default());
        let served = Served { service, root, script: Arc::clone(&script), one_at_a_time };
        let serving = tokio::spawn(serve(listener, served));
        Self { endpoint, script, serving, directory }
    }

    /// Returns the directory that holds the bucket, each object in a file of its own.
    #[allow(dead_code, reason = "not all that use this file look into it")]
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Says what becomes of the next request of that method that nothing has been said of.
    pub(crate) fn misbehave(&self, method: Method, how: Misbehavior) {
        self.script.lock().expect("not poisoned").push_back((method, how));
    }

    /// Returns whether everything that was said has happened.
    pub(crate) fn has_misbehaved(&self) -> bool {
        self.script.lock().expect("not poisoned").is_empty()
    }

    pub(crate) fn location(&self, prefix: &str) -> S3Location {
        S3Location {
            bucket: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(self.endpoint.clone()),
            ..S3Location::default()
        }
    }

    pub(crate) fn options(secret: &str) -> S3Options {
        let credentials = S3Credentials::Static {
            access_key_id: "id".to_owned(),
            secret_access_key: secret.into(),
            session_token: None,
        };
        S3Options { credentials, ..S3Options::default() }
    }

    /// Returns a bank as it is used: the server breaks a connection when it refuses a body unread, and the
    /// driver itself tries once.
    pub(crate) fn retrying_bank(&self, prefix: &str) -> Arc<dyn Bank> {
        let options = RetryOptions { first_delay_ms: 1, ..RetryOptions::default() };
        Arc::new(Retrying::new(Arc::new(self.bank(prefix)), options, 1))
    }

    pub(crate) fn bank(&self, prefix: &str) -> S3Bank {
        S3Bank::open(self.location(prefix), &Self::options("secret")).expect("the settings are complete")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What all connections share.
struct Served {
    service: S3Service,
    root: PathBuf,
    script: Script,
    /// The library looks and then writes, and reads an object's ETag and its bytes one after the other; a
    /// real store does both at once, as with this lock.
    one_at_a_time: tokio::sync::Mutex<()>,
}

async fn serve(listener: TcpListener, served: Served) {
    let served = Arc::new(served);
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let served = Arc::clone(&served);
        let answer = service_fn(move |request| {
            let served = Arc::clone(&served);
            async move { served.answer(request).await }
        });
        connections.spawn(async move {
            // That a client goes away, or is made to, is no failure of the server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

impl Served {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<s3s::Body>, s3s::HttpError> {
        let next = self.next_of_script(request.method());
        if let Some(Misbehavior::Refuse(status, code)) = next {
            // A connection with an unread body cannot be used again, which is not what is tried here.
            let mut body = s3s::Body::from(request.into_body());
            while let Some(piece) = body.next().await {
                piece.map_err(s3s::HttpError::new)?;
            }
            return Ok(refusal(status, code));
        }
        if let Some(code) = self.what_is_missing(&request) {
            let deleted = request.method() == Method::DELETE && code == "NoSuchKey";
            return Ok(refusal(if deleted { 204 } else { 404 }, code));
        }
        let guard = self.one_at_a_time.lock().await;
        let response = self.service.call(request.map(s3s::Body::from)).await;
        drop(guard);
        match next {
            Some(Misbehavior::LoseReply) => Err(s3s::HttpError::new("the reply is lost on purpose".into())),
            _ => response,
        }
    }

    fn next_of_script(&self, method: &Method) -> Option<Misbehavior> {
        let mut script = self.script.lock().expect("not poisoned");
        let meant = script.iter().position(|(of, _)| of == method)?;
        script.remove(meant).map(|(_, how)| how)
    }

    /// Finds what the library does not: that a bucket is missing, and that a directory is no object.
    fn what_is_missing(&self, request: &Request<Incoming>) -> Option<&'static str> {
        let path = request.uri().path().trim_start_matches('/');
        if path.split('/').next() != Some(BUCKET) {
            return Some("NoSuchBucket");
        }
        let needs_object = [Method::GET, Method::HEAD, Method::DELETE].contains(request.method());
        let names_object = path.contains('/') && request.uri().query().is_none();
        (needs_object && names_object && !self.root.join(path).is_file()).then_some("NoSuchKey")
    }
}

fn refusal(status: u16, code: &str) -> Response<s3s::Body> {
    let text = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let mut response = Response::new(s3s::Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).expect("tests use valid ones");
    response
}
