//! Black-box tests over real processes, in `tests/it`, and over containers, in `tests/containers`. This library is what
//! judges them: [`history`] says what clients were told, [`version_order`] and [`wing_gong`] whether a linearizable
//! register could have told it.
//!
//! The servers are started as an operator starts them, by their binaries with nothing but environment variables, and
//! only what they answer, log and leave behind is looked at. What one crate can show alone is tested there.
//!
//! The binaries are built by cargo with the profile of the tests. `CAIRN_BIN_DIR` names a directory with others, such
//! as released ones.

pub mod history;
pub mod version_order;
pub mod wing_gong;
