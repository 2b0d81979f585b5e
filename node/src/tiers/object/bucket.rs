//! The requests that are made of a bucket. Names are without the prefix.

use std::{collections::HashSet, ops::Range};

use aws_sdk_s3::{
    error::{DisplayErrorContext, SdkError},
    primitives::ByteStream,
    types::{CommonPrefix, Object},
};
use bytes::Bytes;
use cairn_engine::TierError;

use super::ObjectStore;
use crate::error::NodeError;

/// Which bytes of an object.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// All of them.
    All,
    /// The last ones, at most so many.
    Tail(u64),
    /// These.
    Range(Range<u64>),
}

/// Bytes of an object.
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    /// How long the whole object is.
    pub(super) length: u64,
}

impl ObjectStore {
    /// A part of an object whose tail is here.
    pub(super) async fn beside_tail(
        &self,
        name: &str,
        tail: &Fetched,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, NodeError> {
        let start = tail.length.saturating_sub(tail.bytes.len() as u64);
        let within = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(tail.bytes.len());
        if range.start >= start {
            return Ok(Some(tail.bytes.slice(within(range.start)..within(range.end))));
        }
        Ok(self.get_object(name, Part::Range(range)).await?.map(|fetched| fetched.bytes))
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Stores an object. It is stored whole or not at all; after an error nobody knows which.
    pub(super) async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), NodeError> {
        let _timer = self.durations.put.start_timer();
        let request = self.client.put_object().bucket(&self.bucket).key(self.key(name)).body(ByteStream::from(bytes));
        request.send().await.map(|_| ()).map_err(failed)
    }

    /// Fetches a part of an object; `None` when there is no such object.
    pub(super) async fn get_object(&self, name: &str, part: Part) -> Result<Option<Fetched>, NodeError> {
        let range = match &part {
            Part::All => None,
            Part::Tail(length) => Some(format!("bytes=-{length}")),
            Part::Range(range) if range.is_empty() => {
                return Ok(Some(Fetched { bytes: Bytes::new(), length: 0 }));
            }
            Part::Range(range) => Some(format!("bytes={}-{}", range.start, range.end - 1)),
        };
        let _timer = self.durations.get.start_timer();
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(name)).set_range(range);
        let object = match request.send().await {
            Ok(object) => object,
            Err(SdkError::ServiceError(error)) if error.err().is_no_such_key() => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = object.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let broken = |error: &dyn std::fmt::Display| NodeError::from(TierError::ObjectStore(error.to_string()));
        let bytes = object.body.collect().await.map_err(|error| broken(&error))?.into_bytes();
        let length = match (&part, length) {
            (_, Some(length)) => length,
            (Part::All, None) => bytes.len() as u64,
            (_, None) => return Err(broken(&"it does not answer ranged requests")),
        };
        Ok(Some(Fetched { bytes, length }))
    }

    /// The names of all objects that begin so, without the prefix.
    pub(super) async fn list_objects(&self, start: &str) -> Result<Vec<String>, NodeError> {
        let prefix = self.key(start);
        let skipped = prefix.len() - start.len();
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(&prefix).into_paginator().send();
        let mut names = Vec::new();
        loop {
            let timer = self.durations.list.start_timer();
            let Some(page) = pages.next().await else {
                timer.stop_and_discard();
                return Ok(names);
            };
            drop(timer);
            let page = page.map_err(failed)?;
            names.extend(page.contents().iter().filter_map(|object| Some(object.key()?.get(skipped..)?.to_owned())));
        }
    }

    /// The first parts of all names.
    pub(super) async fn list_directories(&self) -> Result<HashSet<String>, NodeError> {
        let prefix = self.key("");
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&prefix).delimiter("/");
        let mut pages = request.into_paginator().send();
        let mut directories = HashSet::new();
        loop {
            let timer = self.durations.list.start_timer();
            let Some(page) = pages.next().await else {
                timer.stop_and_discard();
                return Ok(directories);
            };
            drop(timer);
            let page = page.map_err(failed)?;
            let common = page.common_prefixes().iter().filter_map(CommonPrefix::prefix);
            // Servers that know no delimiters give whole names.
            let names = common.chain(page.contents().iter().filter_map(Object::key));
            directories.extend(names.filter_map(|name| Some(name.get(prefix.len()..)?.split_once('/')?.0.to_owned())));
        }
    }

    /// Removes an object, if it is there.
    pub(super) async fn remove_object(&self, name: &str) -> Result<(), NodeError> {
        let _timer = self.durations.delete.start_timer();
        match self.client.delete_object().bucket(&self.bucket).key(self.key(name)).send().await {
            Ok(_) => Ok(()),
            // Some servers answer 404 where Amazon's says that nothing was there to delete.
            Err(SdkError::ServiceError(error)) if error.raw().status().as_u16() == 404 => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

pub(super) fn failed<E: std::error::Error + 'static, R: std::fmt::Debug + 'static>(error: SdkError<E, R>) -> NodeError {
    TierError::ObjectStore(DisplayErrorContext(error).to_string()).into()
}
