//! One budget for the bytes of values that a server holds on their way in and out: they are counted before they are
//! buffered, and for as long as anybody holds them.

use std::{sync::Arc, time::Duration};

use actix_web::web::Bytes;
use cairn_api_spec::{ApiError, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is not counted: no more than the buffers of its connection take.
pub const UNCOUNTED: usize = 16 << 10;
/// Bytes are counted in pieces of this many.
const UNIT: usize = 1 << 10;
/// Room that a body of unknown length takes at a time.
const STEP: usize = 256 << 10;
/// The longest that a value waits for room.
const WAIT: Duration = Duration::from_secs(5);

/// See the module. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    room: Arc<Semaphore>,
    units: u32,
}

/// Room for the bytes of a value that grows.
#[derive(Debug)]
pub struct Held<'a> {
    budget: &'a Budget,
    permit: Option<OwnedSemaphorePermit>,
    counted: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT as u64).unwrap_or(u32::MAX).max(1);
        Self { room: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Nothing yet of a value that is about to come.
    pub fn hold(&self) -> Held<'_> {
        Held { budget: self, permit: None, counted: UNCOUNTED }
    }

    /// Makes a value hold its room until the last of its clones is gone.
    ///
    /// # Errors
    /// `overloaded` when there is none for 5 s.
    pub async fn count(&self, value: Bytes) -> Result<Bytes, ApiError> {
        let mut held = self.hold();
        held.grow(value.len()).await?;
        Ok(held.keep(value))
    }
}

impl Held<'_> {
    /// Waits until there is room for a value of `length` bytes in all.
    ///
    /// # Errors
    /// `overloaded` when there is none for 5 s. Then the value cannot be held.
    pub async fn grow(&mut self, length: usize) -> Result<(), ApiError> {
        if length <= self.counted {
            return Ok(());
        }
        let more = (length - self.counted).max(if self.permit.is_some() { STEP } else { 0 });
        let units = u32::try_from(more.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.budget.units);
        let room = self.budget.room.clone();
        let permit = match room.clone().try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => match tokio::time::timeout(WAIT, room.acquire_many_owned(units)).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => {
                    let detail = "too many bytes of values are under way (body_memory): send it again a little later";
                    return Err(ApiError::new(ErrorCode::Overloaded, detail));
                }
            },
        };
        self.counted += units as usize * UNIT;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }

    /// The value, which holds the room until the last of its clones is gone.
    pub fn keep(self, value: Bytes) -> Bytes {
        match self.permit {
            Some(permit) => Bytes::from_owner(Kept { value, _permit: permit }),
            None => value,
        }
    }
}

struct Kept {
    value: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_without_room_is_refused_and_gets_it_once_another_is_gone() {
        let budget = Budget::new(1 << 20);
        let value = || Bytes::from(vec![7; 700 << 10]);
        let first = budget.count(value()).await.unwrap();
        let refused = budget.count(value()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Overloaded);
        let small = budget.count(Bytes::from_static(b"small")).await.unwrap();
        assert_eq!(small, "small", "what is small needs no room");
        drop(first.clone());
        assert!(budget.count(value()).await.is_err(), "a clone holds it");
        drop(first);
        assert_eq!(budget.count(value()).await.unwrap().len(), 700 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_longer_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(64 << 10);
        let value = budget.count(Bytes::from(vec![7; 1 << 20])).await.unwrap();
        assert!(budget.count(Bytes::from(vec![7; 32 << 10])).await.is_err());
        drop(value);
        assert!(budget.count(Bytes::from(vec![7; 32 << 10])).await.is_ok());
    }
}
