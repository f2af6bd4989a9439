//! Sessions and services against small servers in this process that are told what to answer.

mod calls;
mod cloud;
mod pages;
mod sessions;
mod streams;
