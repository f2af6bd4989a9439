//! What can be asked for: authorisation, quota, one transaction each.
