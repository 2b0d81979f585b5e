//! Point reads, gathered: whatever waits is fetched by one statement, since a statement costs more than a row.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use cairn_engine::TierError;
use sqlx::SqliteConnection;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::{COLUMNS, Row};
use crate::error::NodeError;

/// Statements exist for these numbers of names; a smaller batch repeats its last name.
const SIZES: [usize; 3] = [1, 8, 64];
/// Reads that may wait; more are refused.
const MAX_WAITING: usize = 65_536;

pub(super) struct Loader {
    shared: Arc<Shared>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<VecDeque<Load>>,
    filled: Notify,
}

struct Load {
    name: Bytes,
    with_value: bool,
    reply: oneshot::Sender<Result<Option<Row>, NodeError>>,
}

impl Loader {
    pub(super) fn start(connections: impl IntoIterator<Item = SqliteConnection>) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |connection| AbortOnDropHandle::new(tokio::spawn(run(connection, shared.clone())));
        Self { _tasks: connections.into_iter().map(start).collect(), shared }
    }

    pub(super) async fn load(&self, name: Bytes, with_value: bool) -> Result<Option<Row>, NodeError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= MAX_WAITING {
                return Err(TierError::Overloaded.into());
            }
            waiting.push_back(Load { name, with_value, reply });
        }
        self.shared.filled.notify_one();
        answer.await.map_err(|_| TierError::ShuttingDown)?
    }
}

async fn run(mut connection: SqliteConnection, shared: Arc<Shared>) {
    loop {
        let batch: Vec<Load> = {
            let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // A statement either reads values or does not; the first in line decides.
            let with_value = waiting.front().is_some_and(|load| load.with_value);
            let same = waiting.iter().take(SIZES[2]).take_while(|load| load.with_value == with_value).count();
            waiting.drain(..same).collect()
        };
        if batch.is_empty() {
            shared.filled.notified().await;
            continue;
        }
        // More may have come than this batch took: let the other connection have it.
        shared.filled.notify_one();
        let with_value = batch[0].with_value;
        let result = fetch(&mut connection, batch.iter().map(|load| &load.name), with_value).await;
        match result {
            // A caller that went away wants no answer.
            // Cloned, since several of them may ask for the same row.
            Ok(rows) => batch.into_iter().for_each(|load| {
                let _ = load.reply.send(Ok(rows.get(&load.name).cloned()));
            }),
            Err(error) => {
                let error = NodeError::from(error);
                batch.into_iter().for_each(|load| {
                    let _ = load.reply.send(Err(error.clone()));
                });
            }
        }
    }
}

/// With and without the value, by the position in [`SIZES`].
static SELECTS: LazyLock<[Vec<String>; 2]> = LazyLock::new(|| {
    let statements = |columns: &str| {
        let one = |size| format!("SELECT {columns} FROM entries WHERE name IN ({})", vec!["?"; size].join(","));
        SIZES.map(one).to_vec()
    };
    [statements(COLUMNS), statements(&format!("{COLUMNS}, value"))]
});

async fn fetch<'a>(
    connection: &mut SqliteConnection,
    names: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
    with_value: bool,
) -> Result<HashMap<Bytes, Row>, sqlx::Error> {
    let index = SIZES.iter().position(|size| *size >= names.len()).unwrap_or(SIZES.len() - 1);
    let padding = names.clone().last().into_iter().cycle();
    let query = names
        .chain(padding)
        .take(SIZES[index])
        .fold(sqlx::query(SELECTS[usize::from(with_value)][index].as_str()), |query, name| query.bind(&name[..]));
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Row::read(row).map(|row| (row.name.clone(), row))).collect()
}
