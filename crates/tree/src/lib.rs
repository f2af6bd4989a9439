//! Directory trees into and out of a vault.
