//! The kit that every protection plugin runs.
