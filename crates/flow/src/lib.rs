//! Resource graph in, ordered steps out.
