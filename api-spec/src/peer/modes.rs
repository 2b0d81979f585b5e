//! The enums of messages, and those of the domain that they stand for.

use super::generated::{AskedDurability, Durability, Removal, Tier};
use crate::{
    error::{ApiError, ErrorCode},
    modes,
};

/// The error for a message of which a part cannot be read.
pub(super) fn unreadable(what: &str) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("a peer sent a message without a readable {what}"))
}

/// The value of an enum that a number stands for. The getters that prost makes take the default for an unknown one.
///
/// # Errors
/// `internal` for a number that this release does not know.
pub(super) fn known<E: TryFrom<i32>>(number: i32, what: &str) -> Result<E, ApiError> {
    E::try_from(number).map_err(|_| unreadable(what))
}

macro_rules! same_variants {
    ($name:ident: $($variant:ident),*) => {
        impl From<modes::$name> for $name {
            fn from(value: modes::$name) -> Self {
                match value { $(modes::$name::$variant => Self::$variant,)* }
            }
        }

        impl From<$name> for modes::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant,)* }
            }
        }
    };
}

same_variants!(Durability: Memory, Disk, Fsync, Object);
same_variants!(Tier: Memory, Disk, Object, Replica);
same_variants!(Removal: Delete, Expire, Evict);

impl From<Option<modes::Durability>> for AskedDurability {
    fn from(asked: Option<modes::Durability>) -> Self {
        match asked {
            None => Self::Default,
            Some(modes::Durability::Memory) => Self::Memory,
            Some(modes::Durability::Disk) => Self::Disk,
            Some(modes::Durability::Fsync) => Self::Fsync,
            Some(modes::Durability::Object) => Self::Object,
        }
    }
}

impl From<AskedDurability> for Option<modes::Durability> {
    fn from(asked: AskedDurability) -> Self {
        match asked {
            AskedDurability::Default => None,
            AskedDurability::Memory => Some(modes::Durability::Memory),
            AskedDurability::Disk => Some(modes::Durability::Disk),
            AskedDurability::Fsync => Some(modes::Durability::Fsync),
            AskedDurability::Object => Some(modes::Durability::Object),
        }
    }
}
