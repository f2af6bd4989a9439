//! Sessions, commit keys, fences and garbage collection of a bank account, without clocks or locks.
