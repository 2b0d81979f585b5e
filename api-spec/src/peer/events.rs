//! Events on their way from a node to a master.

use super::{
    Event, Removal,
    modes::{known, unreadable},
};
use crate::{
    error::ApiError,
    events::{Change, EventKind},
    modes,
    name::EntryName,
    version::Version,
};

impl From<&Change> for Event {
    fn from(change: &Change) -> Self {
        let why = match change.kind {
            EventKind::Put | EventKind::Delete => modes::Removal::Delete,
            EventKind::Expire => modes::Removal::Expire,
            EventKind::Evict => modes::Removal::Evict,
        };
        Self {
            name: change.name.as_bytes().clone(),
            version: change.version.0,
            at: change.at,
            size: change.size,
            expires_at: change.expires_at.unwrap_or(0),
            removed: change.kind != EventKind::Put,
            removal: Removal::from(why).into(),
        }
    }
}

impl TryFrom<Event> for Change {
    type Error = ApiError;

    fn try_from(event: Event) -> Result<Self, ApiError> {
        let why = modes::Removal::from(known::<Removal>(event.removal, "reason of a removal")?);
        Ok(Self {
            kind: if event.removed { why.into() } else { EventKind::Put },
            name: EntryName::from_bytes(event.name).map_err(|_| unreadable("name"))?,
            version: Version(event.version),
            at: event.at,
            size: event.size,
            expires_at: Some(event.expires_at).filter(|at| *at > 0),
        })
    }
}
