//! Where values are: memory, the local disk, the object store. The tiers do what they are told, report what happened, and
//! decide nothing.

pub mod disk;
pub mod memory;
pub mod object;
