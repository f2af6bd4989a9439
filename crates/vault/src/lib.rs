//! The data engine: streams to deduplicated, compressed, sealed objects in a bank account, and back.
