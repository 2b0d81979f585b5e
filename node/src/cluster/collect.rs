//! Removes from the bucket what no partition needs any more.
//!
//! A segment holds keys of partitions that several nodes may lead by now, so each of their primaries is asked whether it
//! releases the segment. The node that stored a segment collects it; where that is no longer registered, the primary of
//! the first partition in it does.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_api_spec::peer::{Release, Released};
use cairn_engine::NodeId;
use cairn_object_tier::{
    SegmentName, ValueName,
    rules::collect::{grace_is_over, is_versioned_released},
    segment::{Directory, Section},
};
use tokio_util::sync::CancellationToken;

use super::peers::Peers;
use crate::{driver::Driver, error::NodeError, tiers::object::ObjectStore};

/// The longest and the shortest time between two looks.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// What was found to be of no more use, and since when.
#[derive(Default)]
struct Useless {
    segments: HashMap<Arc<SegmentName>, Instant>,
    values: HashMap<ValueName, Instant>,
}

/// Collects until `stop`. An idle node asks for nothing: it looks again after a checkpoint, and as long as something waits
/// for its grace to be over.
pub async fn run(driver: &Driver, peers: &Peers, stop: CancellationToken) {
    let Some(objects) = &driver.objects else { return };
    let work = async {
        let mut useless = Useless::default();
        let mut seen = 0;
        loop {
            tokio::time::sleep((driver.settings.collect_after / 4).clamp(INTERVAL.0, INTERVAL.1)).await;
            let checkpoints = driver.metrics.bucket.checkpoints.get();
            if checkpoints == seen && useless.segments.is_empty() && useless.values.is_empty() {
                continue;
            }
            match round(driver, peers, objects, &mut useless).await {
                Ok(()) => seen = checkpoints,
                Err(error) => {
                    driver.metrics.object_errors.inc();
                    tracing::warn!(%error, "what nobody needs stays in the object store");
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn round(driver: &Driver, peers: &Peers, objects: &ObjectStore, useless: &mut Useless) -> Result<(), NodeError> {
    let names = objects.segments().await?;
    let mut released = HashSet::new();
    for name in names {
        let Some(directory) = collected_here(driver, peers, objects, &name).await? else { continue };
        if is_released(driver, peers, &name, &directory).await {
            released.insert(name);
        }
    }
    for name in settle(&mut useless.segments, released, driver.settings.collect_after) {
        objects.remove_segment(&name).await?;
        driver.metrics.bucket.collected.inc();
    }
    let mut released = HashSet::new();
    for partition in driver.partitions.served() {
        if driver.basis(partition).is_some() {
            let values = objects.values(partition).await?;
            released.extend(values.into_iter().filter(|value| driver.releases_value(partition, value)));
            remove_versioned(driver, objects, partition).await?;
        }
    }
    for value in settle(&mut useless.values, released, driver.settings.collect_after) {
        objects.remove_value(&value).await?;
        driver.metrics.bucket.collected.inc();
    }
    Ok(())
}

/// Takes note of what is useless now, and returns that of it whose grace is over.
fn settle<T: Clone + Eq + std::hash::Hash>(
    known: &mut HashMap<T, Instant>,
    now: HashSet<T>,
    grace: Duration,
) -> Vec<T> {
    known.retain(|name, _| now.contains(name));
    now.into_iter().for_each(|name| {
        known.entry(name).or_insert_with(Instant::now);
    });
    let over: Vec<T> =
        known.iter().filter(|(_, since)| grace_is_over(since.elapsed(), grace)).map(|(name, _)| name.clone()).collect();
    over.iter().for_each(|name| {
        known.remove(name);
    });
    over
}

/// What a segment holds, if it is this node's to collect.
async fn collected_here(
    driver: &Driver,
    peers: &Peers,
    objects: &ObjectStore,
    name: &Arc<SegmentName>,
) -> Result<Option<Arc<Directory>>, NodeError> {
    let is_own = name.0.node == driver.me.node;
    if !is_own && peers.client(&NodeId::from(&*name.0.node)).is_ok() {
        return Ok(None);
    }
    let directory = objects.directory(name).await?;
    let leads = |directory: &Arc<Directory>| {
        directory.sections().first().is_none_or(|first| driver.partitions.serving_epoch(first.partition) > 0)
    };
    Ok(directory.filter(|directory| is_own || leads(directory)))
}

/// Whether every partition in a segment releases it.
async fn is_released(driver: &Driver, peers: &Peers, name: &SegmentName, directory: &Directory) -> bool {
    let known = |section: &&Section| section.partition < driver.partitions.count();
    for section in directory.sections().iter().filter(known) {
        let Section { partition, epoch, newest, .. } = *section;
        if driver.releases_segment(partition, name, epoch, newest) {
            continue;
        }
        let primary = driver.partitions.lock(partition).replica().entry().primary.clone();
        let Some(primary) = primary.filter(|primary| *primary != driver.me.node) else { return false };
        let message = Release { segment: name.to_string(), partition, epoch, newest: newest.0 };
        if !peers.release(&primary, message).await.is_ok_and(|Released { is_released }| is_released) {
            return false;
        }
    }
    true
}

/// Removes the objects of one version each that a partition's checkpoint has replaced. No new ones come.
async fn remove_versioned(driver: &Driver, objects: &ObjectStore, partition: u32) -> Result<(), NodeError> {
    let Some(basis) = driver.basis(partition) else { return Ok(()) };
    for (name, version) in objects.versioned_names(partition).await? {
        let is_listed = basis.versioned.contains(&name);
        if is_versioned_released(is_listed, version, basis.basis.name.watermark)
            && basis.basis.leads(driver.lead_of(partition))
        {
            objects.remove_versioned(&name).await?;
            driver.metrics.bucket.collected.inc();
        }
    }
    Ok(())
}
