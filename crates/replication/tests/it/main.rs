//! The proof of the protocol, over the real state machine.
//!
//! | module | what |
//! |---|---|
//! | `host`, `inbox`, `copy`, `message` | what a node does with the state machine: its disk, its clients, a learner's copy |
//! | `store` | the metadata store's entry, and everything that may legally be done to it |
//! | `model`, `state`, `promises`, `goal` | the model: whatever can happen in a small cluster, and what must hold |
//! | `clusters`, `exhaustive` | the clusters that are explored completely |
//! | `late` | a message that comes once more |
//! | `bench` | one replica, and what it asks for |
//! | `hung`, `refused`, `lost` | copies and disks that answer nothing, refuse writes, or lose them |
//! | `planted` | bugs in a node or a controller, each of which must be found |
//! | `simulator` | whole clusters under faults by seed, with `cairn_placement` as the controller |
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failed test")]

mod bench;
mod clusters;
mod copy;
mod exhaustive;
mod goal;
mod hashed;
mod host;
mod hung;
mod inbox;
mod late;
mod lost;
mod message;
mod model;
mod planted;
mod promises;
mod refused;
mod simulator;
mod state;
mod store;
