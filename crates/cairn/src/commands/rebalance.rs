//! `cairn rebalance`.

use std::{
    io::{self, BufWriter, Write as _},
    time::Duration,
};

use cairn_client::{Cache, ChangeRebalance, Move};
use indicatif::{HumanBytes, HumanDuration};

use super::tables::table;
use crate::cli::Rebalance;

pub(super) async fn run(cache: &Cache, args: &Rebalance) -> anyhow::Result<()> {
    let change = ChangeRebalance {
        paused: (args.pause || args.resume).then_some(args.pause),
        max_moves: args.max_moves,
        bytes_per_second: args.bytes_per_second,
    };
    let now = match change == ChangeRebalance::default() {
        true => cache.rebalance().await?,
        false => cache.change_rebalance(change).await?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if !now.moves.is_empty() {
        let mut table = table(&["partition", "from", "to", "copied", "of", "%"], 3);
        for it in &now.moves {
            table.add_row([
                it.partition.to_string(),
                it.from.clone().unwrap_or_default(),
                it.to.clone(),
                HumanBytes(it.bytes).to_string(),
                HumanBytes(it.total_bytes).to_string(),
                percent(it).to_string(),
            ]);
        }
        writeln!(out, "{table}")?;
    }
    writeln!(out, "{}", summary(&now))?;
    Ok(out.flush()?)
}

fn summary(now: &cairn_client::Rebalance) -> String {
    let limit = match now.bytes_per_second {
        0 => "no limit".to_owned(),
        limit => format!("at most {}/s for each node", HumanBytes(limit)),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let rate = HumanBytes(now.bytes_rate.max(0.0) as u64);
    let left = now.eta_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let left = left.map_or_else(String::new, |left| format!(", {} left", HumanDuration(left)));
    format!(
        "{}: {} of at most {} moving, {} to begin, {} done; {rate}/s ({limit}){left}",
        if now.paused { "paused" } else { "running" },
        now.moves_active,
        now.max_moves,
        now.moves_left,
        now.moves_done,
    )
}

fn percent(it: &Move) -> u64 {
    // Writes during a copy may make it longer than it was to be.
    it.bytes.min(it.total_bytes).saturating_mul(100).checked_div(it.total_bytes).unwrap_or(0)
}
