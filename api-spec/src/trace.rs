//! Which trace a request belongs to: the part of W3C Trace Context that travels with it.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

/// The id of one request across processes. Displays as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// The id with these bits, `None` for 0, which stands for no trace.
    pub fn new(bits: u128) -> Option<Self> {
        NonZeroU128::new(bits).map(Self)
    }

    /// Its bits, not 0.
    pub fn get(self) -> u128 {
        self.0.get()
    }

    /// Reads 32 lower-case hex digits; `None` for anything else, and for 0.
    pub fn parse(text: &str) -> Option<Self> {
        if is_hex(text, 32) { Self::new(u128::from_str_radix(text, 16).ok()?) } else { None }
    }
}

impl From<NonZeroU128> for TraceId {
    fn from(bits: NonZeroU128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The id of a span, the part of a trace that one process did. Displays as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// The id with these bits, `None` for 0, which stands for no span.
    pub fn new(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    /// Its bits, not 0.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A trace, and the span that asks. Displays as the header `traceparent` (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that what follows is caused by.
    pub span_id: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` when it is not valid.
    pub fn parse(header: &str) -> Option<Self> {
        let mut fields = header.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        // Version 00 ends here; later versions may have more fields; ff is forbidden.
        let ends = fields.next().is_none() || version != "00";
        if !ends || !is_hex(version, 2) || version == "ff" || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        Some(Self {
            trace_id: TraceId::parse(trace)?,
            span_id: SpanId::new(u64::from_str_radix(span, 16).ok()?)?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_is_read_from_a_valid_traceparent_only() {
        let read = |header: &str| TraceContext::parse(header).map(|context| context.trace_id.to_string());
        assert_eq!(read(&format!("00-{ID}-00f067aa0ba902b7-01")).as_deref(), Some(ID));
        assert_eq!(read(&format!("01-{ID}-00f067aa0ba902b7-01-later")).as_deref(), Some(ID));
        for wrong in [
            "".to_owned(),
            format!("00-{ID}"),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}-00f067aa0ba902b7-01-extra"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-+{}-00f067aa0ba902b7-01", &ID[1..]),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        for flags in ["00", "01"] {
            let header = format!("00-{ID}-00f067aa0ba902b7-{flags}");
            assert_eq!(TraceContext::parse(&header).unwrap().to_string(), header);
        }
        // Of the flags, only the first bit is known.
        assert!(!TraceContext::parse(&format!("00-{ID}-00f067aa0ba902b7-02")).unwrap().sampled);
        assert!(TraceContext::parse(&format!("00-{ID}-00f067aa0ba902b7-03")).unwrap().sampled);
    }
}
