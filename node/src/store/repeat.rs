//! Writes that may have been sent before: under an idempotency key, only the first one is done.

use cairn_api_spec::{
    Outcome, Version,
    operation::{IdempotencyKey, Metadata},
    peer::FirstOutcome,
};
use cairn_replication::Role;
use tokio::sync::watch;

use super::{COMMIT_TIMEOUT, Store, write::Proposal};
use crate::{
    claim::{Claim, Holder},
    error::NodeError,
};

impl Store {
    /// Claims the key of a write that is new, or says what became of the first one with that key. That one need not be
    /// committed yet.
    pub(super) async fn claim_or_find(
        &self,
        proposal: &mut Proposal,
        key: IdempotencyKey,
    ) -> Result<Option<FirstOutcome>, NodeError> {
        let claim = self.claim(proposal.partition, key).await?;
        let first = self.disk.first_outcome(proposal.partition, claim.key()).await?;
        if first.is_none() {
            proposal.claim = Some(claim);
        }
        Ok(first)
    }

    /// Claims a key, which may be another request's for a while.
    async fn claim(&self, partition: u32, key: IdempotencyKey) -> Result<Claim, NodeError> {
        let claim = async {
            loop {
                match self.try_claim(partition, &key) {
                    Some(Ok(by)) => return Ok::<_, NodeError>(by),
                    // Its end is the word: nothing is ever sent.
                    Some(Err(mut released)) => released.changed().await.unwrap_or_default(),
                    None => drop(self.ready_to_write(partition, 0).await?),
                }
            }
        };
        // What becomes of the first request is not known, so neither is it of this one.
        let by = tokio::time::timeout(COMMIT_TIMEOUT, claim).await.map_err(|_| NodeError::Superseded)??;
        Ok(Claim::new(self.partitions.clone(), partition, key, by))
    }

    /// Claims a key, if this node is the primary: only then is all that there is on its disk.
    fn try_claim(&self, partition: u32, key: &IdempotencyKey) -> Option<Result<Holder, watch::Receiver<()>>> {
        let mut locked = self.partitions.lock(partition);
        (locked.replica.role() == Role::Serving).then(|| locked.claims.take(key))
    }

    /// The answer to a request whose write was done before.
    pub(super) async fn repeat(
        &self,
        proposal: &Proposal,
        first: FirstOutcome,
    ) -> Result<(Outcome, Version), NodeError> {
        let (partition, name) = (proposal.partition, proposal.name.as_bytes());
        if first.name != *name || first.tombstone != proposal.entry.is_none() {
            return Err(NodeError::KeyReused);
        }
        let version = Version(first.version);
        self.committed(partition, version).await?;
        {
            let locked = self.partitions.lock(partition);
            if !locked.replica.role().leads() || version > locked.replica.committed() {
                return Err(self.not_owner(partition));
            }
        }
        let outcome = match &proposal.entry {
            None => Outcome::Deleted(version),
            Some(entry) => {
                let metadata = Metadata {
                    version,
                    modified_at: first.modified_at,
                    expires_at: Some(first.expires_at).filter(|at| *at > 0),
                    ..entry.metadata()
                };
                Outcome::Stored { created: first.created, metadata }
            }
        };
        Ok((outcome, version))
    }

    /// Whether the object store has heard of a version, or of a later one.
    pub(super) async fn is_uploaded(&self, proposal: &Proposal, version: Version) -> Result<bool, NodeError> {
        let row = self.disk.load(proposal.name.as_bytes().clone(), false).await?;
        Ok(row.is_none_or(|row| !row.dirty && row.metadata.version >= version))
    }
}
