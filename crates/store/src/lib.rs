//! The database: rows, leases and epochs, one statement text for three engines.
