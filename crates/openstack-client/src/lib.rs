//! OpenStack's services as their clients see them: sessions, catalog, paging, streams, retries; thin typed calls.
//!
//! A [`Cloud`] is a place with its limits, a [`Session`] is one identity in one project and region of it, and a
//! [`Service`] is one entry of its catalog. What a module for one service adds are types and paths, nothing that
//! waits, retries or counts by itself.
//!
//! Invariant: every call ends (each attempt and each stall has a timeout, attempts have an end), no more calls than
//! the settings say run at one service at once, whoever makes them, and no error, log line or `Debug` holds a
//! secret. A call that may have had its effect is tried again only if doing it twice is harmless.

mod catalog;
mod cloud;
mod error;
mod fault;
mod login;
mod page;
mod profile;
mod request;
mod retry;
mod service;
mod session;
mod stream;

pub mod cinder;
pub mod glance;
pub mod keystone;
pub mod manila;
pub mod neutron;
pub mod nova;
pub mod swift;

pub use catalog::{Interface, ServiceType};
pub use cloud::{Cloud, CloudSettings};
pub use error::{Error, ErrorKind, Result};
pub use login::{Domain, Login, Project, User};
pub use page::Pages;
pub use profile::Profile;
pub use request::{Request, Response};
pub use reqwest::{Method, StatusCode, header};
pub use service::Service;
pub use session::Session;
pub use stream::{Download, Upload};

/// The type to read an answer into when its content does not matter, or there is none.
pub type Ignored = serde::de::IgnoredAny;
