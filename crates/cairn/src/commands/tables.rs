//! `cairn nodes`, `cairn ring` and `cairn explain`, and the tables that people read.

use std::io::{self, BufWriter, Write as _};

use cairn_api_spec::cluster::Replication;
use cairn_client::{Cache, EntryMetadata, NodeState, Partition};
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::HumanBytes;

pub(super) async fn nodes(cache: &Cache) -> anyhow::Result<()> {
    let header =
        ["node", "state", "address", "session", "primary of", "replica of", "keys", "memory", "disk", "object store"];
    let mut table = table(&header, 3);
    for node in cache.nodes().await? {
        let bytes = node.stats.bytes_by_tier;
        table.add_row([
            node.node_id,
            state(node.state).to_owned(),
            node.address,
            node.session.to_string(),
            node.partitions.to_string(),
            node.replicas.to_string(),
            node.stats.entries.to_string(),
            HumanBytes(bytes.memory).to_string(),
            HumanBytes(bytes.disk).to_string(),
            HumanBytes(bytes.object).to_string(),
        ]);
    }
    Ok(writeln!(io::stdout(), "{table}")?)
}

/// Everything but what is not known, as lines of name and value.
pub(super) async fn explain(cache: &Cache, key: &str) -> anyhow::Result<()> {
    let explanation = serde_json::to_value(cache.explain(key).await?)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for (name, value) in explanation.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => {
                items.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        writeln!(out, "{name:<16}{text}")?;
    }
    Ok(out.flush()?)
}

pub(super) async fn ring(cache: &Cache, with_partitions: bool) -> anyhow::Result<()> {
    let ring = cache.ring().await?;
    let mut table = table(&["node", "address", "primary of", "in sync", "learning", "taking over"], 2);
    for node in &ring.nodes {
        let id = &node.node_id;
        let count = |holds: &dyn Fn(&Partition) -> bool| {
            ring.partitions.iter().filter(|partition| holds(partition)).count().to_string()
        };
        table.add_row([
            id.clone(),
            node.address.clone(),
            count(&|partition| partition.primary.as_ref() == Some(id)),
            count(&|partition| partition.in_sync.contains(id)),
            count(&|partition| partition.learners.contains(id)),
            count(&|partition| partition.successor.as_ref() == Some(id)),
        ]);
    }
    let count = |is: &dyn Fn(&Partition) -> bool| ring.partitions.iter().filter(|partition| is(partition)).count();
    let Replication { factor, strategy, .. } = ring.replication;
    let unassigned = count(&|partition| partition.primary.is_none());
    let under_replicated = count(&|partition| partition.in_sync.len() < factor as usize);
    let (epoch, partitions, hash, strategy) = (ring.epoch, ring.partition_count, &ring.hash, strategy.as_str());
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "epoch {epoch}, {partitions} partitions by {hash}, {unassigned} without a primary")?;
    writeln!(out, "{factor} copies by {strategy}, {under_replicated} partitions have fewer in sync\n{table}")?;
    if with_partitions {
        writeln!(out, "{}", each(&ring.partitions))?;
    }
    Ok(out.flush()?)
}

fn each(partitions: &[Partition]) -> Table {
    let mut table = table(&["partition", "epoch", "primary", "in sync", "learners", "successor"], 6);
    for partition in partitions {
        table.add_row([
            partition.id.to_string(),
            partition.epoch.to_string(),
            partition.primary.clone().unwrap_or_default(),
            partition.in_sync.join(" "),
            partition.learners.join(" "),
            partition.successor.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// Keys with what is known of them.
pub(super) fn keys(keys: &[EntryMetadata]) -> Table {
    let mut table = table(&["key", "bytes", "version", "expires"], 1);
    for entry in keys {
        let expires = entry.expires_at.map_or_else(String::new, |at| at.to_string());
        table.add_row([entry.key.clone(), entry.size.to_string(), entry.version.to_string(), expires]);
    }
    table
}

/// The columns from `first_number` on are aligned to the right.
pub(super) fn table(header: &[&str], first_number: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Active => "active",
        NodeState::Suspect => "suspect",
        NodeState::Draining => "draining",
        NodeState::Gone => "gone",
    }
}
