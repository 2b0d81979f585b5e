//! Clients that write and read all the time, and know what they must see.
//!
//! Every key has one writer, so after an answered write a read must show that write, or a later one of which it is not
//! known whether it happened. Versions of a key must never go back, whoever answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reqwest::Method;
use tokio::task::JoinSet;

use super::{Client, PATIENCE, Reply, eventually, key_url};

const WORKERS: usize = 8;
const KEYS_EACH: u64 = 25;
/// After a refusal: long enough not to make the refusals the load.
const PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
    workers: JoinSet<BTreeMap<String, Known>>,
}

/// What the writer of a key knows of it.
#[derive(Debug, Default)]
struct Known {
    /// The last write that was answered, or seen.
    value: Option<u64>,
    /// Writes whose outcome is not known.
    perhaps: Vec<u64>,
    /// The highest version that was given or seen.
    version: u64,
}

struct Worker {
    client: Client,
    /// Where it writes, and with `others` reads.
    gateway: String,
    others: Vec<String>,
    stored: Arc<AtomicU64>,
    keys: BTreeMap<String, Known>,
}

impl Load {
    /// Begins to write through `gateway` and to read through it and straight at `others`.
    pub(crate) fn start(client: &Client, gateway: &str, others: &[String]) -> Self {
        let (stop, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let (stop, stored) = (stop.clone(), stored.clone());
            let (client, gateway, others) = (client.clone(), gateway.to_owned(), others.to_vec());
            let keys = (0..KEYS_EACH).map(|key| (format!("load/{worker}/{key}"), Known::default())).collect();
            let mut worker = Worker { client, gateway, others, stored, keys };
            workers.spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    worker.step(round).await;
                }
                worker.keys
            });
        }
        Self { stop, stored, workers }
    }

    /// Waits until so many more writes are answered.
    pub(crate) async fn progress(&self, writes: u64) {
        let goal = self.stored.load(Ordering::Relaxed) + writes;
        eventually("writes go on", PATIENCE, async || {
            let stored = self.stored.load(Ordering::Relaxed);
            if stored >= goal { Ok(()) } else { Err(format!("{stored} of {goal}")) }
        })
        .await;
    }

    /// Stops, then reads every key once more through `server`, which must be able to answer now.
    pub(crate) async fn finish(mut self, client: &Client, server: &str) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(keys) = self.workers.join_next().await {
            for (key, mut known) in keys.unwrap() {
                let reply = client.get_key(server, &key).await;
                assert!(reply.status == 200 || known.value.is_none(), "{key}: {known:?}, {reply:?}");
                known.see(&key, &reply);
            }
        }
    }
}

impl Worker {
    async fn step(&mut self, round: u64) {
        let index = usize::try_from(round % KEYS_EACH).unwrap();
        let Some((key, known)) = self.keys.iter_mut().nth(index) else { return };
        let url = key_url(&self.gateway, key);
        let sent = self.client.send(Method::PUT, &url, &[], Bytes::from(round.to_string())).await;
        match &sent {
            Ok(reply) if reply.is_stored() => {
                assert!(reply.version() > known.version, "{key}: {known:?}, {reply:?}");
                (known.value, known.version) = (Some(round), reply.version());
                self.stored.fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply) if reply.status != 503 && reply.status != 504 => panic!("{key}: {reply:?}"),
            // No answer, or one that says that nothing is known.
            Ok(_) | Err(_) => {
                known.perhaps.push(round);
                tokio::time::sleep(PAUSE).await;
            }
        }
        let servers = self.others.len() + 1;
        let server = match rand::random_range(0..servers * 2) {
            at if at < self.others.len() => &self.others[at],
            _ => &self.gateway,
        };
        if let Ok(reply) = self.client.send(Method::GET, &key_url(server, key), &[], Bytes::new()).await {
            known.see(key, &reply);
        }
    }
}

impl Known {
    /// Fails the test when a reply to a read contradicts what is known. 421, 503 and 504 say nothing.
    fn see(&mut self, key: &str, reply: &Reply) {
        match reply.status {
            200 => {
                let value: u64 = reply.text().parse().unwrap();
                assert!(self.value == Some(value) || self.perhaps.contains(&value), "{key}: {self:?}, {reply:?}");
                assert!(reply.version() >= self.version, "{key}: {self:?}, {reply:?}");
                (self.value, self.version) = (Some(value), reply.version());
            }
            404 => assert!(self.value.is_none(), "{key}: {self:?}, {reply:?}"),
            421 | 503 | 504 => {}
            _ => panic!("{key}: {reply:?}"),
        }
    }
}
