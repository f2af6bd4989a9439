//! The one binary of Karbor.

fn main() {}
