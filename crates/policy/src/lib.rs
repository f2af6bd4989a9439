//! Rules of oslo.policy: parse, decide.
