//! What the contract says in other languages, OpenAPI and protobuf, and what peers say to each other.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod openapi;
mod peer;
