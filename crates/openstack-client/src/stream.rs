//! Bytes of any number, into a service and out of it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Error, ErrorKind, Result};
use crate::request::unanswered;

/// The bytes of an answer as they come.
///
/// It ends with an error if it stands still for too long or is cut off. Dropping it ends the call.
pub struct Download {
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// How many bytes there will be, if the service said so.
    pub length: Option<u64>,
    bytes: BoxStream<'static, Result<Bytes>>,
}

impl Download {
    pub(crate) fn new(
        response: reqwest::Response,
        stall_timeout: Duration,
        permit: OwnedPermit,
        service: &'static str,
        doing: String,
    ) -> Self {
        let (headers, length) = (response.headers().clone(), response.content_length());
        let state = (response, permit, doing);
        let bytes = futures::stream::try_unfold(state, move |(mut response, permit, doing)| async move {
            let Ok(next) = tokio::time::timeout(stall_timeout, response.chunk()).await else {
                let reason = format!("no byte came for {} s", stall_timeout.as_secs());
                return Err(Error::new(ErrorKind::Timeout, service, doing, reason));
            };
            match next {
                Ok(Some(piece)) => Ok(Some((piece, (response, permit, doing)))),
                Ok(None) => Ok(None),
                Err(error) => Err(unanswered(service, doing, false, error).into_error()),
            }
        });
        Self { headers, length, bytes: bytes.boxed() }
    }
}

type OwnedPermit = Option<OwnedSemaphorePermit>;

impl Stream for Download {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.bytes.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Bytes to be sent as they come.
pub struct Upload {
    length: Option<u64>,
    bytes: BoxStream<'static, io::Result<Bytes>>,
}

impl Upload {
    /// Sends bytes of a number that nobody knows yet.
    pub fn new(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self { length: None, bytes: bytes.boxed() }
    }

    /// Sends exactly this number of bytes.
    pub fn of_length(length: u64, bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self { length: Some(length), bytes: bytes.boxed() }
    }

    /// Sends them, and fails when the service takes none for too long; a source may be as slow as it likes.
    pub(crate) async fn send(
        self,
        request: reqwest::RequestBuilder,
        silence: Duration,
        service: &'static str,
        doing: &str,
    ) -> Result<reqwest::Response> {
        let progress = Arc::new(Progress::default());
        let request = match self.length {
            Some(length) => request.header(CONTENT_LENGTH, length),
            None => request,
        };
        let source = Source { bytes: self.bytes, progress: progress.clone(), left: self.length };
        let sending = request.body(reqwest::Body::wrap_stream(source)).send();
        tokio::pin!(sending);
        let mut seen = progress.taken.load(Ordering::Relaxed);
        loop {
            match tokio::time::timeout(silence, &mut sending).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => {
                    let failed = progress.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Err(match failed {
                        Some(cause) => {
                            let reason = "the source of the bytes failed";
                            Error::new(ErrorKind::Other, service, doing, reason).with_source(cause)
                        }
                        None => unanswered(service, doing, false, error).into_error(),
                    });
                }
                Err(_) => {}
            }
            let taken = progress.taken.load(Ordering::Relaxed);
            if taken == seen && !progress.is_waiting.load(Ordering::Relaxed) {
                let reason = format!("no byte was taken and no answer came for {} s", silence.as_secs());
                return Err(Error::new(ErrorKind::Timeout, service, doing, reason));
            }
            seen = taken;
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("length", &self.length).finish_non_exhaustive()
    }
}

/// How far an upload is.
#[derive(Default)]
struct Progress {
    /// How many pieces were taken.
    taken: AtomicU64,
    /// Whether the next piece is not there yet: the service is not to blame.
    is_waiting: AtomicBool,
    failed: Mutex<Option<io::Error>>,
}

struct Source {
    bytes: BoxStream<'static, io::Result<Bytes>>,
    progress: Arc<Progress>,
    left: Option<u64>,
}

impl Source {
    /// Notes what the source said itself; the connection is told only that it ends here.
    fn fail(&self, cause: io::Error) -> Poll<Option<io::Result<Bytes>>> {
        *self.progress.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
        Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())))
    }
}

impl Stream for Source {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.bytes.poll_next_unpin(cx);
        self.progress.is_waiting.store(polled.is_pending(), Ordering::Relaxed);
        match polled {
            Poll::Ready(Some(Ok(piece))) => {
                self.progress.taken.fetch_add(1, Ordering::Relaxed);
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                match self.left.map(|left| left.checked_sub(length)) {
                    Some(None) => return self.fail(io::Error::other("more bytes came than were announced")),
                    Some(left) => self.left = left,
                    None => {}
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(cause))) => self.fail(cause),
            Poll::Ready(None) if self.left.is_some_and(|left| left > 0) => {
                self.fail(io::Error::other("fewer bytes came than were announced"))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
