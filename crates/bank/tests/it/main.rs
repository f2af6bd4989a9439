//! Drivers and wrappers against the conformance suite, against models, and killed.

mod conformance;
