//! The protection service: claims operations by lease and runs their flow.
