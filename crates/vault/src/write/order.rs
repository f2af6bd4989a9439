//! Outcomes back into the order of the stream, and into its manifest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use karbor_chunk::{
    ChunkId, Compressor, Cutting, ManifestBuilder, NewNode, Node, NodeEntry, NodeRef, PackKind, StreamRoot,
};
use tokio::runtime::Handle;

use crate::session::Session;
use crate::write::Tally;
use crate::write::blocks::put_chunk;
use crate::write::buffers::lock;
use crate::{Error, Result};

/// What became of a step of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Zeros.
    Zero {
        /// How many.
        len: u64,
    },
    /// A chunk that is present.
    Chunk {
        /// Its name.
        id: ChunkId,
        /// Its length.
        len: u32,
    },
    /// A node of the base, with all that is below it.
    Subtree {
        /// The node, at its place in the stream.
        node: NodeRef,
    },
    /// Several of them, in order.
    Many(Vec<Self>),
}

/// The manifest of a stream, and outcomes that came before their turn.
pub(crate) struct Order {
    state: Mutex<State>,
}

struct State {
    next: u64,
    waiting: BTreeMap<u64, Outcome>,
    builder: Option<ManifestBuilder>,
}

impl Order {
    pub(crate) fn new(session: &Session, cutting: Cutting) -> Result<Self> {
        let builder = ManifestBuilder::new(session.shared.namer.clone(), cutting);
        let builder = Some(builder.map_err(|err| Error::chunk("a new manifest", err))?);
        Ok(Self { state: Mutex::new(State { next: 0, waiting: BTreeMap::new(), builder }) })
    }

    /// Takes the outcome of a step, and stores what nodes become complete by it.
    pub(crate) fn take(
        &self,
        number: u64,
        outcome: Outcome,
        session: &Arc<Session>,
        tally: &Tally,
        compressor: &mut Compressor,
    ) -> Result<()> {
        let mut nodes = Vec::new();
        {
            let mut state = lock(&self.state);
            let State { next, waiting, builder } = &mut *state;
            let builder = builder.as_mut().ok_or_else(|| Error::internal("a manifest was finished early"))?;
            waiting.insert(number, outcome);
            while let Some(outcome) = waiting.remove(next) {
                *next += 1;
                push(builder, outcome, session, &mut nodes)?;
            }
        }
        store(session, tally, nodes, compressor)
    }

    /// Closes the manifest.
    pub(crate) fn finish(&self, session: &Arc<Session>, tally: &Tally) -> Result<StreamRoot> {
        let builder = {
            let mut state = lock(&self.state);
            if !state.waiting.is_empty() {
                return Err(Error::internal("a part of a manifest is missing"));
            }
            state.builder.take()
        };
        let builder = builder.ok_or_else(|| Error::internal("a manifest was finished twice"))?;
        let mut nodes = Vec::new();
        let root = builder.finish(&mut |node| nodes.push(node));
        let root = root.map_err(|err| Error::chunk("a new manifest", err))?;
        session.shared.codecs.compressing(|compressor| store(session, tally, nodes, compressor))?;
        Ok(root)
    }
}

fn store(session: &Session, tally: &Tally, nodes: Vec<NewNode>, compressor: &mut Compressor) -> Result<()> {
    for node in nodes {
        put_chunk(session, tally, PackKind::Meta, node.id, &node.bytes, compressor)?;
    }
    Ok(())
}

fn push(
    builder: &mut ManifestBuilder,
    outcome: Outcome,
    session: &Arc<Session>,
    nodes: &mut Vec<NewNode>,
) -> Result<()> {
    let mut sink = |node| nodes.push(node);
    let pushed = match outcome {
        Outcome::Zero { len } => builder.push_zero(len, &mut sink),
        Outcome::Chunk { id, len } => builder.push_chunk(id, len, &mut sink),
        Outcome::Subtree { node } if builder.can_push_subtree(node.level, node.len) => {
            builder.push_subtree(node.id, node.level, node.len, &mut sink)
        }
        Outcome::Subtree { node } => return push_parts(builder, &node, session, nodes),
        Outcome::Many(all) => {
            for outcome in all {
                push(builder, outcome, session, nodes)?;
            }
            return Ok(());
        }
    };
    pushed.map_err(|err| Error::chunk("a new manifest", err))
}

/// Takes what is below a node that cannot be taken whole here.
fn push_parts(
    builder: &mut ManifestBuilder,
    node: &NodeRef,
    session: &Arc<Session>,
    nodes: &mut Vec<NewNode>,
) -> Result<()> {
    let fetched = Handle::current().block_on(session.fetcher.node(node))?;
    let bytes: Arc<Node> = fetched.map_err(|lost| lost.into_error("manifest node"))?;
    let mut offset = node.offset;
    for entry in bytes.entries() {
        let (outcome, len) = match *entry {
            NodeEntry::Zero { len } => (Outcome::Zero { len }, len),
            NodeEntry::Child { id, len } if bytes.level() == 0 => {
                let short = u32::try_from(len).map_err(|_| Error::damaged("a manifest node"))?;
                (Outcome::Chunk { id, len: short }, len)
            }
            NodeEntry::Child { id, len } => {
                let level = bytes.level() - 1;
                (Outcome::Subtree { node: NodeRef { id, level, offset, len } }, len)
            }
        };
        push(builder, outcome, session, nodes)?;
        offset += len;
    }
    Ok(())
}
