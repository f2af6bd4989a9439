//! Undo: removes what an operation that has ended made outside the bank, or could not remove at its end.
//!
//! The ledger says what that is. Nothing is read from the bank, and what the operation was about stays as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use karbor_plugin::ErrorKind;
use karbor_store::SubjectChange;
use serde_json::json;

use crate::attempt::{Attempt, End};
use crate::cleanup::Goes;
use crate::delete::known_graph;
use crate::drive::Vault;
use crate::prepare::{Subject, prepare};
use crate::restore::parameters;
use crate::stop::{Failure, Stop};

pub(crate) async fn run(attempt: &Arc<Attempt>) -> Result<(), Stop> {
    let id = attempt.required(attempt.operation.checkpoint, "checkpoint")?;
    let row = attempt.store(|| attempt.shared.store.get_checkpoint(id)).await?;
    let provider = attempt.provider(row.provider)?;
    let graph = known_graph(&row)?;
    let parameters = parameters(attempt).await?;
    let subject = Subject {
        graph: &graph,
        provider: &provider,
        parameters: &parameters,
        checkpoint: row.id,
        vault: Vault::Records,
        with_records: BTreeSet::new(),
    };
    let mut drive = prepare(attempt, subject).await?;
    let left = drive.clean_up(Goes::Everything).await?;
    // It does what it was made for no more than before: it ends as what has been called off.
    let failure = match left.as_slice() {
        [] => Failure::new(ErrorKind::Cancelled, "undone: what it had made is removed"),
        [one] => Failure::new(ErrorKind::Other, format!("one of the things that it made is left: {one}")),
        [first, more @ ..] => {
            let text = format!("of the things that it made {} are left: {first} (and more)", more.len() + 1);
            Failure::new(ErrorKind::Other, text)
        }
    };
    let result = json!({"resources": drive.resources_result()});
    attempt.finish(End { result, subject: SubjectChange::None, failure: Some(failure) }).await
}
