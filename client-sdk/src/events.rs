//! Events: what becomes visible of the keys, for as long as somebody listens.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    Version,
    backoff::Backoff,
    events::{self, EventKind, GAP},
};
use eventsource_stream::{Event as Message, EventStreamError, Eventsource as _};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    call::failure,
    connection::Connection,
    error::{Error, Failure, chain},
    generated::master,
};

/// A server sends something every five seconds.
const SILENCE: Duration = Duration::from_secs(15);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// What became visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key changed. After a failure of a node, the same change may come twice, with the same version.
    Changed {
        /// What happened.
        kind: EventKind,
        /// The key.
        key: String,
        /// The version that the change gave.
        version: Version,
        /// The new value's length in bytes; `None` when the key was removed.
        size: Option<u64>,
        /// When the new value expires, if it does.
        expires: Option<std::time::SystemTime>,
    },
    /// Events are missing that nobody can tell any more: what is remembered of any key may be out of date.
    Gap,
}

/// A subscription; [`Events::open`] begins it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `open`"]
pub struct Events {
    connection: Connection,
    prefix: Option<String>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<Message, EventStreamError<std::io::Error>>> + Send>>;

impl Events {
    pub(crate) fn new(connection: &Connection) -> Self {
        Self { connection: connection.clone(), prefix: None }
    }

    /// Only keys that begin with this.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into()).filter(|prefix| !prefix.is_empty());
        self
    }

    /// Begins: every change that becomes visible after this has returned is in the stream, or else [`Event::Gap`]. A
    /// connection that breaks is opened anew, where the last event was. The stream ends with an error when that does not
    /// succeed for as long as [`Builder::timeout`](crate::Builder::timeout) says, or a server refuses.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open(self) -> Result<impl Stream<Item = Result<Event, Error>> + Send + Unpin, Error> {
        let mut listening = Listening { events: self, last: None, messages: None, backoff: BACKOFF };
        listening.connect().await?;
        Ok(Box::pin(stream::unfold(Some(listening), |listening| async {
            let mut listening = listening?;
            match listening.next().await {
                Ok(event) => Some((Ok(event), Some(listening))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

struct Listening {
    events: Events,
    /// The id of the last event.
    last: Option<String>,
    messages: Option<Messages>,
    backoff: Backoff,
}

impl Listening {
    async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let Some(messages) = &mut self.messages else {
                sleep(self.backoff.pause(rand::random())).await;
                self.connect().await?;
                continue;
            };
            let Some(Ok(message)) = messages.next().await else {
                self.messages = None;
                continue;
            };
            self.backoff.reset();
            let event = read(&message).map_err(|failure| failure.into_error(false))?;
            self.last = Some(message.id);
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    /// Asks the masters until one answers.
    async fn connect(&mut self) -> Result<(), Error> {
        let shared = self.events.connection.shared.clone();
        let deadline = Instant::now() + shared.timeout;
        loop {
            let url = shared.router.master();
            let failure = match timeout(SILENCE, self.begin(url, &shared.http.client)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Broken(format!("{url} did not answer within {SILENCE:?}")),
            };
            let pause = self.backoff.pause(rand::random());
            if !failure.may_pass() || Instant::now() + pause >= deadline {
                return Err(failure.into_error(false));
            }
            shared.router.leave_master(url);
            sleep(pause).await;
        }
    }

    /// Begins at a master. Its first message says where the stream is, which matters to whoever has seen no event yet.
    async fn begin(&mut self, url: &str, client: &reqwest::Client) -> Result<(), Failure> {
        let client = master::Client::new_with_client(url, client.clone());
        let bucket = Some(self.events.connection.bucket_name());
        let answer = match client.follow_events(bucket, self.events.prefix.as_deref(), self.last.as_deref()).await {
            Ok(answer) => answer,
            Err(error) => return Err(failure(error).await),
        };
        let mut messages: Messages = Box::pin(not_silent(answer.into_inner_stream()).eventsource());
        match messages.next().await {
            Some(Ok(first)) => self.last.get_or_insert(first.id),
            Some(Err(error)) => return Err(Failure::Broken(chain(&error))),
            None => return Err(Failure::Broken(format!("{url} ended the stream before it began"))),
        };
        self.messages = Some(messages);
        Ok(())
    }
}

/// A body that ends with an error when nothing comes.
fn not_silent(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + Unpin + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    stream::unfold(body, |mut body| async {
        match timeout(SILENCE, body.next()).await {
            Ok(piece) => Some((piece?.map_err(std::io::Error::other), body)),
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), body)),
        }
    })
}

/// The event that a message stands for; `None` for one that only says where the stream is, or of a kind that this release
/// does not know.
fn read(message: &Message) -> Result<Option<Event>, Failure> {
    if message.event == GAP {
        return Ok(Some(Event::Gap));
    }
    let Some(kind) = EventKind::ALL.into_iter().find(|kind| kind.as_str() == message.event) else { return Ok(None) };
    let data: events::Event = serde_json::from_str(&message.data).map_err(|error| Failure::Strange(chain(&error)))?;
    let events::Event { key, version, size, expires_at, .. } = data;
    Ok(Some(Event::Changed { kind, key, version, size, expires: expires_at.map(Into::into) }))
}
