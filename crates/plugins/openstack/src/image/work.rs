//! What plugins do in Glance: make images once, move their bytes, wait for them, and remove them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use futures::{StreamExt, TryStreamExt};
use karbor_openstack_client::glance::{Glance, Image};
use karbor_openstack_client::{ErrorKind as Cause, Upload};
use karbor_plugin::{Error, ErrorKind, LedgerEntry, LedgerState, Result, Task};
use karbor_vault::{StreamOptions, StreamReader};
use serde_json::{Map, Value, json};
use tokio_util::io::StreamReader as AsyncStream;

use crate::error::{Doing, translate};
use crate::made::{Made, TAG_KEY, id_of, tag_of};
use crate::poll::{Patience, Reached, reached};

/// The kind of images in the ledger.
pub(crate) const IMAGE: &str = "image";

/// The algorithm of digests that is known here; it is Glance's usual one.
const ALGORITHM: &str = "sha512";
/// How much is read from the bank at once, and how many such pieces ahead.
const PIECE: usize = 4 << 20;
const AHEAD: usize = 3;

/// The digest of bytes that pass.
#[derive(Clone)]
struct Passing(Arc<Mutex<digest::Context>>);

impl Passing {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(digest::Context::new(&digest::SHA512))))
    }

    fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
    }

    fn digits(&self) -> String {
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Finds an image by its tag: ours carry it as a property, those that Cinder makes for us have it as their name.
pub(crate) async fn find(glance: &Glance, tag: &str) -> Result<Option<String>> {
    let doing = || "looking for an image of ours".to_owned();
    if let Some(image) = glance.images_with(TAG_KEY, tag).await.doing(doing)?.into_iter().next() {
        return Ok(Some(image.id));
    }
    let named = glance.images(&[("name", tag)]).all().await.doing(doing)?;
    Ok(named.into_iter().find(|image| image.name.as_deref() == Some(tag)).map(|image| image.id))
}

/// Makes an image without bytes, once.
pub(crate) async fn create(
    task: &Task,
    glance: &Glance,
    made: &Made,
    mut document: Map<String, Value>,
) -> Result<String> {
    let tag = made.tag(task);
    document.insert(TAG_KEY.to_owned(), json!(tag));
    let make = async {
        let image = glance.create_image(&document).await.doing(|| "making an image".to_owned())?;
        Ok(image.id)
    };
    made.once(task, || find(glance, &tag), make).await
}

/// Waits until an image has its bytes.
pub(crate) async fn active(task: &Task, glance: &Glance, patience: Patience, id: &str) -> Result<Image> {
    let what = format!("image {id} to become active");
    let ask = || async {
        let image = glance.image(id).await.doing(|| format!("looking at image {id}"))?;
        match reached(&image.status, &["active"], &["queued", "saving", "uploading", "importing"]) {
            Reached::Yes => Ok(Some(image)),
            Reached::NotYet => Ok(None),
            Reached::Never => {
                let text = format!("image {id} is in the state `{}`; see the log of Glance", image.status);
                Err(Error::new(ErrorKind::Other, text))
            }
        }
    };
    patience.wait(task, &what, ask).await
}

/// Stores the bytes of an image as a stream of this task's resource, and compares them with Glance's digest.
pub(crate) async fn store(task: &Task, glance: &Glance, image: &Image, stream: &str) -> Result<u64> {
    let id = &image.id;
    let doing = || format!("reading image {id}");
    let download = glance.download(id).await.doing(doing)?;
    let passing = Passing::new();
    let seen = passing.clone();
    let bytes = download.inspect_ok(move |bytes| seen.add(bytes)).map_err(io::Error::other);
    let mut source = AsyncStream::new(bytes);
    let options = StreamOptions {
        expected_bytes: image.size,
        progress: Some(Arc::clone(&task.progress)),
        cancel: task.cancel.clone(),
    };
    let stored = task
        .writer()?
        .put_stream(stream, &mut source, &options)
        .await
        .map_err(|err| unwrap(&doing(), err))?;
    if image.size.is_some_and(|size| size != stored.size_bytes) {
        let text = format!(
            "image {id} has {} bytes, and {} came",
            image.size.unwrap_or_default(),
            stored.size_bytes
        );
        return Err(Error::new(ErrorKind::Unavailable, text));
    }
    compare(image, &passing.digits())?;
    Ok(stored.size_bytes)
}

/// Returns what the client said, where the data engine only passes it on.
fn unwrap(doing: &str, err: karbor_vault::Error) -> Error {
    let karbor_vault::Error::SourceIo { what, source } = err else { return err.into() };
    match source.downcast::<karbor_openstack_client::Error>() {
        Ok(cause) => translate(doing, cause),
        Err(source) => karbor_vault::Error::SourceIo { what, source }.into(),
    }
}

fn compare(image: &Image, digits: &str) -> Result<()> {
    match (&image.os_hash_algo, &image.os_hash_value) {
        (Some(algorithm), Some(value)) if algorithm == ALGORITHM && value != digits => {
            let text = format!("the bytes of image {} are not those that Glance has a digest of", image.id);
            Err(Error::new(ErrorKind::Damaged, text))
        }
        _ => Ok(()),
    }
}

/// Sends a stream of the checkpoint as the bytes of an image that has none yet, and compares what arrived.
pub(crate) async fn fill(
    task: &Task,
    glance: &Glance,
    patience: Patience,
    id: &str,
    stream: StreamReader,
) -> Result<Image> {
    let doing = || format!("writing image {id}");
    let passing = Passing::new();
    let bytes = pieces(task, stream, passing.clone());
    let size = bytes.0;
    match glance.upload(id, Upload::of_length(size, bytes.1)).await {
        Err(_) if task.cancel.is_cancelled() => return Err(Error::cancelled()),
        sent => sent.doing(doing)?,
    }
    let image = active(task, glance, patience, id).await?;
    if image.size != Some(size) {
        let text = format!("image {id} has {} bytes, and {size} were sent", image.size.unwrap_or_default());
        return Err(Error::new(ErrorKind::Damaged, text));
    }
    compare(&image, &passing.digits())?;
    Ok(image)
}

/// Makes an image with the bytes of a stream, once. One that an earlier run did not fill is made anew.
pub(crate) async fn filled(
    task: &Task,
    glance: &Glance,
    patience: Patience,
    made: &Made,
    document: Map<String, Value>,
    stream: StreamReader,
) -> Result<String> {
    if let Some(entry) = made.known(task).await? {
        if let Some(id) = id_of(&entry, || find(glance, tag_of(&entry))).await? {
            let is_filled = |image: &Image| {
                let is_whole = image.status == "active" && image.size == Some(stream.size_bytes());
                is_whole && entry.state == LedgerState::Created
            };
            match glance.image(&id).await {
                Ok(image) if is_filled(&image) => return Ok(id),
                // An earlier run removed it, and died before it could say so.
                Err(err) if err.is_not_found() => {}
                // Nobody can say what it has, nor whether more is on its way from the earlier run.
                there => {
                    there.doing(|| "looking at an image of ours".to_owned())?;
                    remove(task, glance, patience, &id).await?;
                }
            }
        }
        // It was looked for, and is not looked for once more.
        made.gone(task).await?;
    }
    let id = create(task, glance, made, document).await?;
    fill(task, glance, patience, &id, stream).await?;
    Ok(id)
}

type Pieces = futures::stream::BoxStream<'static, io::Result<bytes::Bytes>>;

/// Returns the size of a stream, and its bytes in order.
fn pieces(task: &Task, stream: StreamReader, passing: Passing) -> (u64, Pieces) {
    let size = stream.size_bytes();
    let stream = Arc::new(stream);
    let (progress, cancel) = (Arc::clone(&task.progress), task.cancel.clone());
    progress.total(size);
    let step = PIECE as u64;
    let offsets = futures::stream::iter((0..size.div_ceil(step)).map(move |piece| piece * step));
    let read = offsets.map(move |offset| {
        let (stream, cancel) = (Arc::clone(&stream), cancel.clone());
        async move {
            if cancel.is_cancelled() {
                return Err(io::Error::other("cancelled"));
            }
            stream.read_at(offset, PIECE).await.map_err(io::Error::other)
        }
    });
    let bytes = read.buffered(AHEAD).inspect_ok(move |bytes| {
        passing.add(bytes);
        progress.advance(bytes.len() as u64, 0);
    });
    (size, bytes.boxed())
}

/// Removes an image, also one that is protected, and waits until it is gone.
pub(crate) async fn remove(task: &Task, glance: &Glance, patience: Patience, id: &str) -> Result<()> {
    let what = format!("image {id} to be removed");
    let doing = || format!("removing image {id}");
    let ask = || async {
        let image = match glance.image(id).await {
            Err(err) if err.is_not_found() => return Ok(Some(())),
            image => image.doing(doing)?,
        };
        match image.status.as_str() {
            "deleted" | "pending_delete" => return Ok(Some(())),
            _ => {}
        }
        if image.protected {
            let open = Map::from_iter([("protected".to_owned(), json!(false))]);
            glance.set(id, &open).await.doing(doing)?;
        }
        match glance.delete_image(id).await {
            Ok(_) => Ok(None),
            // Something still writes it, or reads it.
            Err(err) if matches!(err.kind(), Cause::Conflict) => Ok(None),
            Err(err) => Err(err).doing(doing),
        }
    };
    patience.for_removal().wait(task, &what, ask).await
}

/// Removes the image that an entry of the ledger tells of.
pub(crate) async fn clean_up(
    task: &Task,
    glance: &Glance,
    patience: Patience,
    entry: &LedgerEntry,
) -> Result<()> {
    match id_of(entry, || find(glance, tag_of(entry))).await? {
        Some(id) => remove(task, glance, patience, &id).await,
        None => Ok(()),
    }
}
