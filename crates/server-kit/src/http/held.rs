//! Request bodies that the edge keeps hold of: those that actix would wait for, or read on, without a deadline.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpMessage,
    body::{BodySize, BoxBody, EitherBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header,
    web::Bytes,
};
use futures_util::Stream;

use super::{Pace, Paced};

/// A chunked or JSON body, which the handler reads and the edge keeps hold of.
///
/// JSON is read by actix's extractor, which knows no deadline. And when a handler drops a chunked body unread, actix
/// goes on to read it, without a deadline and however long it is; while somebody holds it, actix closes the
/// connection after the reply instead.
#[derive(Clone)]
pub(super) struct SharedBody(Rc<Held>);

struct Held {
    payload: RefCell<Paced<Payload>>,
    ended: Cell<bool>,
}

impl SharedBody {
    pub(super) fn take(request: &mut ServiceRequest, pace: Pace) -> Option<Self> {
        if matches!(request.parts().1, Payload::None) {
            return None;
        }
        let length = request.headers().get(header::CONTENT_LENGTH);
        let declared = length.and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some() && !is_json(request.content_type()) {
            return None;
        }
        let payload = RefCell::new(Paced::new(request.take_payload(), declared, pace));
        let body = Self(Rc::new(Held { payload, ended: Cell::new(false) }));
        request.set_payload(Payload::Stream { payload: Box::pin(body.clone()) });
        Some(body)
    }
}

/// All that actix's extractor takes for JSON: `application/json`, `text/json`, `application/…+json`.
fn is_json(content_type: &str) -> bool {
    let start = content_type.len().saturating_sub(4);
    content_type.as_bytes()[start..].eq_ignore_ascii_case(b"json")
}

impl Stream for SharedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = Pin::new(&mut *self.0.payload.borrow_mut()).poll_next(cx);
        self.0.ended.set(matches!(piece, Poll::Ready(None)));
        piece
    }
}

/// Keeps a request's body, if its end was not reached, until the reply is sent.
pub(super) fn hold<B: MessageBody + 'static>(
    body: Option<SharedBody>,
    reply: ServiceResponse<EitherBody<B>>,
) -> ServiceResponse<EitherBody<B>> {
    match body {
        Some(unread) if !unread.0.ended.get() => {
            reply.map_body(|_, body| EitherBody::right(BoxBody::new(Holding { body: Box::pin(body), _unread: unread })))
        }
        _ => reply,
    }
}

/// A reply's body that keeps the request's unread body alive until it is sent.
struct Holding<B> {
    body: Pin<Box<B>>,
    _unread: SharedBody,
}

impl<B: MessageBody> MessageBody for Holding<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.as_ref().get_ref().size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        self.body.as_mut().poll_next(cx)
    }
}
