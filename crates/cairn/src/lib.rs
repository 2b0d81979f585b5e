//! The `cairn` command: a local cluster in one process, and keys from the shell.
//!
//! | module | owns |
//! |---|---|
//! | [`dev`] | `cairn dev`: master, nodes and an S3 server in this process |
//!
//! A library beside the binary, so that tests start a cluster of their own on free ports.

pub mod dev;
