//! Changes that primaries ask for. When a node dies, its peers ask for many at the same moment, and writes wait for the
//! answers: so whoever gets the map makes all that are asked for by then, in one transaction.

use std::{
    collections::HashSet,
    mem,
    sync::{MutexGuard, PoisonError},
};

use cairn_api_spec::cluster::{ChangePartition, Partition};
use cairn_placement::{LAST_EPOCH, Reason, Step, change, is_done};
use tokio::sync::oneshot;

use super::{Controller, Members, State};
use crate::error::Error;

/// Changes of one partition that one primary may wait for.
const MAX_ASKED: usize = 2;

/// A change that waits for the map.
pub(super) struct Asked {
    id: u32,
    change: ChangePartition,
    answer: oneshot::Sender<Result<Partition, Error>>,
}

impl Controller {
    /// Changes an entry as its primary asks. The same request again gives the same answer.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a partition that does not exist, [`Error::NotNow`] when the entry is another
    /// one by now or does not allow it, [`Error::Busy`], [`Error::Store`].
    pub async fn change(&self, id: u32, change: ChangePartition) -> Result<Partition, Error> {
        let (answer, mut answered) = oneshot::channel();
        {
            // A primary asks again when an answer does not come: so that they do not pile up, its first one is not waited
            // for any more.
            let mut asked = self.asked();
            let is_same = |other: &Asked| other.id == id && other.change.node_id == change.node_id;
            let earlier: Vec<usize> = (0..asked.len()).filter(|index| is_same(&asked[*index])).collect();
            if earlier.len() >= MAX_ASKED {
                asked.remove(earlier[0]);
            }
            asked.push(Asked { id, change, answer });
        }
        let busy = |answer: Result<_, _>| answer.unwrap_or(Err(Error::Busy));
        tokio::select! {
            biased;
            // Somebody else had it in hand, or it was asked again.
            answer = &mut answered => return busy(answer),
            mut state = self.state.lock() => {
                while !self.asked().is_empty() {
                    self.make_changes(&mut state).await?;
                }
            }
        }
        // Without an answer the one who had it in hand has failed or gone away.
        busy(answered.await)
    }

    /// Makes what is asked for, of each partition the first.
    async fn make_changes(&self, state: &mut State) -> Result<(), Error> {
        self.catch_up(state).await?;
        let members = self.cluster.registry.members();
        let mut seen = HashSet::new();
        let (asked, later): (Vec<_>, Vec<_>) =
            mem::take(&mut *self.asked()).into_iter().partition(|asked| seen.insert(asked.id));
        self.asked().extend(later);
        let (mut steps, mut answers) = (Vec::new(), Vec::new());
        for Asked { id, change, answer } in asked {
            match self.judge(state, &members, id, &change) {
                Ok(Judged::Step(step)) => {
                    answers.push((answer, step.next.clone()));
                    steps.push(step);
                }
                Ok(Judged::Done(entry)) => answers.push((answer, entry)),
                // Whoever asked may have gone away meanwhile; here and below nobody else wants to know.
                Err(error) => drop(answer.send(Err(error))),
            }
        }
        self.apply(state, &members, steps).await?;
        self.publish(state);
        for (answer, entry) in answers {
            drop(answer.send(Ok(entry)));
        }
        Ok(())
    }

    fn judge(&self, state: &mut State, members: &Members, id: u32, asked: &ChangePartition) -> Result<Judged, Error> {
        let count = state.map.partitions().len();
        let stored = state.map.get(id).ok_or_else(|| {
            Error::InvalidParameter(format!("there is no partition {id}: they are 0 to {}", count.saturating_sub(1)))
        })?;
        let current = &stored.partition;
        if is_done(current, asked) {
            return Ok(Judged::Done(current.clone()));
        }
        let sight = self.sight(members);
        if current.epoch >= LAST_EPOCH {
            return Err(Error::LastEpoch { partition: id, epoch: current.epoch });
        }
        let step = change(current, asked, &|node| state.planner.standing(stored, sight, node));
        let step = step.ok_or_else(|| Error::NotNow {
            partition: id,
            epoch: current.epoch,
            change: asked.change,
            subject: asked.subject.clone(),
            node_id: asked.node_id.clone(),
            asked: asked.epoch,
        })?;
        match step.reason {
            Reason::CaughtUp => state.planner.caught_up(id, &asked.subject),
            Reason::Late => state.planner.gave_up(id, &asked.subject, stored.session(&asked.subject), sight.now),
            Reason::SteppedDown => state.planner.gave_up(id, &asked.node_id, asked.session, sight.now),
            _ => {}
        }
        Ok(Judged::Step(step))
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a change that is asked for.
enum Judged {
    /// It was made before.
    Done(Partition),
    /// It can be made.
    Step(Step),
}
