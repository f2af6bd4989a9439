//! A cloud of one address: Keystone and every service answer what a test has said, and remember what they were asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use karbor_openstack_client::{Cloud, CloudSettings, Domain, Login, Project, Session, User};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const PASSWORD: &str = "open sesame";
pub(crate) const TOKEN: &str = "gAAAA-secret";

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
pub(crate) enum Said {
    Reply(u16, Vec<(&'static str, String)>, Bytes),
    /// Bytes that come one after the other; the connection breaks at an error.
    Stream(BoxStream<'static, Result<Bytes, std::io::Error>>),
    /// Nothing, ever.
    Silence,
}

pub(crate) fn json(status: u16, body: &Value) -> Said {
    Said::Reply(status, Vec::new(), body.to_string().into())
}

/// A running cloud; it stops when it is dropped.
pub(crate) struct FakeCloud {
    pub(crate) url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    url: Mutex<String>,
    script: Mutex<VecDeque<Said>>,
    logins: Mutex<VecDeque<Said>>,
    asked: Mutex<Vec<Asked>>,
    made: Mutex<usize>,
    at_once: Mutex<(usize, usize)>,
}

impl FakeCloud {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let state = Arc::new(State { url: Mutex::new(url.clone()), ..State::default() });
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { url, state, serving }
    }

    /// Says what the services answer next.
    pub(crate) fn say(&self, said: Said) {
        self.state.script.lock().expect("not poisoned").push_back(said);
    }

    /// Says what Keystone answers to the next login, in place of a token.
    pub(crate) fn say_at_login(&self, said: Said) {
        self.state.logins.lock().expect("not poisoned").push_back(said);
    }

    /// Returns what the services were asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.state.asked.lock().expect("not poisoned").clone();
        asked.into_iter().filter(|asked| !asked.path.ends_with("/auth/tokens")).collect()
    }

    /// Returns what Keystone was asked for tokens.
    pub(crate) fn logins(&self) -> Vec<Asked> {
        let asked = self.state.asked.lock().expect("not poisoned").clone();
        asked.into_iter().filter(|asked| asked.path.ends_with("/auth/tokens")).collect()
    }

    /// Returns how many calls the services had at once at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.at_once.lock().expect("not poisoned").1
    }

    pub(crate) fn settings(&self) -> CloudSettings {
        let mut settings = CloudSettings::new(self.url.clone());
        settings.patience = Duration::from_secs(20);
        settings
    }

    pub(crate) fn cloud(&self) -> Cloud {
        Cloud::new(self.settings()).expect("the settings are fine")
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.cloud(), login()).await.expect("it logs in")
    }
}

impl Drop for FakeCloud {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(crate) fn login() -> Login {
    Login::Password {
        user: User::Name("ann".to_owned(), Domain::default()),
        password: PASSWORD.into(),
        project: Some(Project::Id("p1".to_owned())),
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let answer = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(state.answer(request).await) }
        });
        connections.spawn(async move {
            // That a client goes away, or a stream breaks on purpose, is no failure of the server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Streaming> {
        let (parts, mut incoming) = request.into_parts();
        let mut body = Vec::new();
        while let Some(frame) =
            std::future::poll_fn(|cx| std::pin::Pin::new(&mut incoming).poll_frame(cx)).await
        {
            let Ok(frame) = frame else { break };
            body.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        let headers = parts.headers.iter();
        let asked = Asked {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
                .collect(),
            body: body.into(),
        };
        let is_login = asked.path.ends_with("/auth/tokens");
        self.asked.lock().expect("not poisoned").push(asked);
        if is_login {
            let said = self.logins.lock().expect("not poisoned").pop_front();
            return reply(said.unwrap_or_else(|| self.token()));
        }
        let said = self.script.lock().expect("not poisoned").pop_front();
        {
            let mut at_once = self.at_once.lock().expect("not poisoned");
            at_once.0 += 1;
            at_once.1 = at_once.1.max(at_once.0);
        }
        // Others may come in now, if they are let.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        self.at_once.lock().expect("not poisoned").0 -= 1;
        match said {
            Some(Said::Silence) => std::future::pending().await,
            Some(said) => reply(said),
            None => reply(json(200, &json!({}))),
        }
    }

    /// Returns a token that holds for an hour of Keystone's own clock, which is not ours.
    fn token(&self) -> Said {
        let number = {
            let mut made = self.made.lock().expect("not poisoned");
            *made += 1;
            *made
        };
        token(&self.url.lock().expect("not poisoned"), number, "2000-01-01T01:00:00.000000Z")
    }
}

/// Returns the answer to a login.
pub(crate) fn token(url: &str, number: usize, expires_at: &str) -> Said {
    let service = |kind: &str, path: &str| json!({"type": kind, "endpoints": [{"interface": "public", "region": "r", "url": format!("{url}{path}")}]});
    let body = json!({"token": {
        "user": {"id": "u1", "name": "ann"}, "project": {"id": "p1"}, "roles": [{"name": "member"}],
        "issued_at": "2000-01-01T00:00:00.000000Z", "expires_at": expires_at,
        "catalog": [service("compute", "/compute/v2.1"), service("volumev3", "/volume/v3/p1"), service("image", "/image"),
            service("network", "/network"), service("sharev2", "/share/v2"), service("object-store", "/swift/v1/A")],
    }});
    Said::Reply(201, vec![("x-subject-token", format!("{TOKEN}-{number}"))], body.to_string().into())
}

fn reply(said: Said) -> Response<Streaming> {
    let (status, headers, stream) = match said {
        Said::Reply(status, headers, body) => {
            let headers: Vec<_> =
                headers.into_iter().chain([("content-length", body.len().to_string())]).collect();
            (status, headers, futures::stream::iter([Ok(body)]).boxed())
        }
        Said::Stream(stream) => (200, Vec::new(), stream),
        Said::Silence => (200, Vec::new(), futures::stream::pending().boxed()),
    };
    let mut response = Response::new(Streaming(stream));
    *response.status_mut() = StatusCode::from_u16(status).expect("tests use valid ones");
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("tests use valid ones"));
    }
    response
}

/// The body of an answer.
pub(crate) struct Streaming(BoxStream<'static, Result<Bytes, std::io::Error>>);

impl Body for Streaming {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_next(cx).map(|next| next.map(|piece| piece.map(Frame::data)))
    }
}
