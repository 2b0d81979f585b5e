//! How many copies each node should hold: in proportion to its weight, as far as the copies of a partition can then
//! stand on different nodes and in different zones.

/// How far a node's share of the copies may stand from its weighted average.
const TOLERANCE: f64 = 0.05;

/// Where a node's load should be.
pub(super) struct Bounds {
    pub(super) lower: usize,
    pub(super) average: usize,
    pub(super) upper: usize,
}

impl Bounds {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "copies are far below 2^52 and shares are not negative"
    )]
    pub(super) fn around(average: f64) -> Self {
        Self {
            lower: average.floor().min((average * (1.0 - TOLERANCE)).ceil()) as usize,
            average: average.ceil() as usize,
            upper: average.ceil().max((average * (1.0 + TOLERANCE)).floor()) as usize,
        }
    }
}

/// What a node or a zone gets: in proportion to its weight, but neither less nor more than this.
#[derive(Clone, Copy)]
struct Part {
    weight: f64,
    least: f64,
    most: f64,
}

/// The share of every node, which has a weight and a zone, of the copies of all partitions.
///
/// A zone gets at most as many copies of each partition as must be when they are spread over the zones as evenly as
/// these have nodes, and at least one less.
#[expect(clippy::cast_precision_loss, reason = "nodes and partitions are far below 2^52")]
pub(super) fn shares(weights: &[f64], zones: &[usize], partitions: usize, copies: usize) -> Vec<f64> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); zones.iter().max().map_or(0, |zone| zone + 1)];
    for (node, &zone) in zones.iter().enumerate() {
        members[zone].push(node);
    }
    let spread_over = |crowd: usize| members.iter().map(|nodes| nodes.len().min(crowd)).sum::<usize>();
    let crowd = (0..copies).find(|crowd| spread_over(*crowd) >= copies).unwrap_or(copies);
    let all = partitions as f64;
    let zone_parts: Vec<Part> = members
        .iter()
        .map(|nodes| Part {
            weight: nodes.iter().map(|node| weights[*node]).sum(),
            least: all * nodes.len().min(crowd.saturating_sub(1)) as f64,
            most: all * nodes.len().min(crowd) as f64,
        })
        .collect();
    let mut shares = vec![0.0; weights.len()];
    for (nodes, total) in members.iter().zip(share_out(all * copies as f64, &zone_parts)) {
        let parts: Vec<Part> =
            nodes.iter().map(|node| Part { weight: weights[*node], least: 0.0, most: all }).collect();
        for (node, share) in nodes.iter().zip(share_out(total, &parts)) {
            // What the search for the level leaves open must not turn a whole number into the next one.
            shares[*node] = (share * 1e6).round() / 1e6;
        }
    }
    shares
}

/// Shares `total` out: finds the level at which weights times level, within the parts' limits, add up to it.
fn share_out(total: f64, parts: &[Part]) -> Vec<f64> {
    let at = |level: f64| parts.iter().map(move |part| (part.weight * level).clamp(part.least, part.most));
    let (mut low, mut high) = (0.0, parts.iter().map(|part| part.most / part.weight).fold(0.0, f64::max));
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if at(middle).sum::<f64>() < total { low = middle } else { high = middle }
    }
    at(high).collect()
}
