//! REST v1: routes, schemas, faults, identity.
