//! `GET /events`: what becomes visible, as server-sent events.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse, get,
    http::header::{self, HeaderName},
    web::Data,
};
use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Bucket,
    events::{Change, Event, GAP, Position},
};
use cairn_operations::feed::{Item, Subscriber};
use cairn_server_kit::http::annotate;
use futures_util::stream;
use tokio::time::timeout;

use crate::{
    Shared,
    docs::{EventErrors, EventsQuery, LastEventId},
    reply,
    request::{Query, invalid, quoted, single},
};

/// How often something is sent: what lies between closes connections that are silent, and clients notice a server's end.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Every bucket.
const ALL_BUCKETS: &str = "*";

/// Follow events
///
/// A stream of server-sent events that does not end: one for each change of a key that reads see from then on, in the
/// order of the changes of each key. `event` says what happened (`put`, `delete`, `expire`, `evict`), `data` is a JSON
/// document, as below. An event may come twice; its version then is the same. The stream starts with `event: begin`. A
/// reader that comes back with the last `id` goes on where it was. `event: gap` says that events are missing which nobody
/// can tell any more: the reader was away or slow for too long, or a node failed. A master merges the events of all
/// nodes; a node tells its own.
#[utoipa::path(
    operation_id = "follow_events",
    tag = "keys",
    params(EventsQuery, LastEventId),
    responses(
        (status = 200, description = "The events.", body = Event, content_type = "text/event-stream"),
        EventErrors,
    ),
)]
#[get("/events")]
pub(crate) async fn follow_events(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    reply::or_error(follow(&request, &shared).await)
}

async fn follow(request: &HttpRequest, shared: &Shared) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket", "prefix"])?;
    let wanted = Wanted::parse(&query)?;
    annotate(request, "cairn.bucket", query.get("bucket").unwrap_or_default());
    let after = match single(request, &HeaderName::from_static("last-event-id"))? {
        None | Some("") => None,
        Some(text) => Some(Position::parse(text).ok_or_else(|| {
            let text = quoted(text);
            invalid(format!("Last-Event-ID {text} is not the id of an event; leave it out to begin now"))
        })?),
    };
    let subscriber = shared.api.subscribe(after).await?;
    let began = format!("id: {}\nevent: begin\ndata: {{}}\nretry: 1000\n\n", subscriber.position());
    let first = stream::iter([Ok(Bytes::from(began))]);
    let rest = stream::unfold((subscriber, wanted), |(mut subscriber, wanted)| async {
        let text = next(&mut subscriber, &wanted).await?;
        Some((Ok::<_, std::io::Error>(text), (subscriber, wanted)))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Asks a proxy that would gather the answer to pass it on as it comes.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(stream::StreamExt::chain(first, rest)))
}

/// The next piece of the stream; `None` at its end.
async fn next(subscriber: &mut Subscriber, wanted: &Wanted) -> Option<Bytes> {
    let Ok(items) = timeout(KEEP_ALIVE, subscriber.next()).await else {
        return Some(Bytes::from_static(b": still here\n\n"));
    };
    let mut text = String::new();
    for (number, item) in items? {
        let id = Position { number, ..subscriber.position() };
        match item {
            Item::Change(change) if wanted.has(&change) => {
                let data = serde_json::to_string(&Event::from(&*change)).unwrap_or_default();
                text += &format!("id: {id}\nevent: {}\ndata: {data}\n\n", change.kind.as_str());
            }
            Item::Change(_) => {}
            Item::Gap => text += &format!("id: {id}\nevent: {GAP}\ndata: {{}}\n\n"),
        }
    }
    if text.is_empty() {
        // It comes back from here, also if there is never anything for it.
        text = format!("id: {}\n\n", subscriber.position());
    }
    Some(text.into())
}

/// Which keys a reader wants to hear of: the beginning of their names.
struct Wanted(Vec<u8>);

impl Wanted {
    fn parse(query: &Query<'_>) -> Result<Self, ApiError> {
        let prefix = query.get("prefix").unwrap_or_default();
        if query.get("bucket") == Some(ALL_BUCKETS) {
            return match prefix {
                "" => Ok(Self(Vec::new())),
                _ => Err(invalid("a prefix is one of a bucket: it cannot be given with bucket=*")),
            };
        }
        let bucket: Bucket = query.bucket()?;
        Ok(Self([bucket.as_str().as_bytes(), &[0], prefix.as_bytes()].concat()))
    }

    fn has(&self, change: &Change) -> bool {
        change.name.as_bytes().starts_with(&self.0)
    }
}
