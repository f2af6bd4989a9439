//! The contract: graphs, providers, and whether the conformance kit finds what it is there to find.

mod graph;
mod kit;
mod provider;
