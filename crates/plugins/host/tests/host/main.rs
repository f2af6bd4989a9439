//! The plugins against real directories, files, databases and servers.

mod conformance;
mod directory;
mod disk;
mod machine;
mod places;
mod postgresql;
mod quiesce;
mod server;
mod sqlite;
mod tree;
