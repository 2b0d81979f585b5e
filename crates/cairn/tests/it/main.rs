//! `cairn dev` and the commands, through the SDK and the real binary.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers stop the test where they fail")]

mod client;
mod commands;
mod process;
mod readme;
mod rooms;
mod support;
