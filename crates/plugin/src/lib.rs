//! The contract of protectables and protection plugins, and its conformance kit.
