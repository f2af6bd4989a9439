//! The API as its clients see it, in one process: a store on SQLite, plugins that do nothing, and a worker's hand
//! that is moved by the tests.

mod beyond;
mod bodies;
mod description;
mod faults;
mod golden;
mod hostile;
mod identity;
mod lists;
mod schedules;
mod server;
mod table;
mod world;
