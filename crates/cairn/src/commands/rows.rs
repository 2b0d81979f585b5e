//! Keys and values as lines of JSON and as CSV, both ways. A value that is not UTF-8 stands there as base64.

use std::{
    io::{BufRead, Read as _, Write},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_api_spec::{
    data::{self, PostKey, TtlField},
    ttl,
};

/// The longest line: a value of 64 MiB with every character escaped as `\uXXXX` is no sensible input.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// The type that JSON has by itself.
const JSON: &str = "application/json";

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) ttl: Option<Duration>,
    /// Empty for none.
    pub(super) content_type: String,
}

/// What one line of the input says.
#[derive(Debug)]
pub(super) struct Row {
    /// From 1; of a CSV record that spans lines, the first.
    pub(super) line: u64,
    /// How many bytes of the input have been read with it.
    pub(super) end: u64,
    /// The entry, or what is wrong with the line.
    pub(super) entry: Result<Entry, String>,
}

/// The rows of lines of JSON; empty lines are passed over. Ends after an error of the input.
pub(super) fn json_rows(mut input: impl BufRead) -> impl Iterator<Item = Row> {
    let (mut line, mut end, mut broken) = (0, 0, false);
    std::iter::from_fn(move || {
        while !broken {
            let mut text = Vec::new();
            let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
            line += 1;
            end += text.len() as u64;
            broken = read.is_err() || (text.len() as u64 == MAX_LINE_BYTES && !text.ends_with(b"\n"));
            let entry = match read {
                Err(error) => Err(error.to_string()),
                Ok(0) => return None,
                Ok(_) if broken => Err(format!("the line is longer than {MAX_LINE_BYTES} bytes")),
                Ok(_) if text.trim_ascii().is_empty() => continue,
                Ok(_) => parse_json(&text),
            };
            return Some(Row { line, end, entry });
        }
        None
    })
}

fn parse_json(text: &[u8]) -> Result<Entry, String> {
    let post: PostKey = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let ttl = post.ttl.as_ref().map(TtlField::parse).transpose().map_err(|error| error.to_string())?;
    let value = data::value_of(post.value.as_deref(), post.value_base64.as_deref());
    let (value, natural_type) = value.map_err(|error| error.to_string())?;
    let mut content_type = post.content_type.unwrap_or_default();
    // As POST /keys does for JSON; text has no type unless it says one, or an export would not read back as it was.
    if content_type.is_empty() && natural_type == JSON {
        natural_type.clone_into(&mut content_type);
    }
    Ok(Entry { key: post.key, value, ttl, content_type })
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    ttl::parse(text).map_err(|error| error.to_string())
}

fn decode(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("value_base64: {error}"))
}

/// Where the fields stand in a record of CSV.
#[derive(Debug)]
struct Columns {
    key: usize,
    value: Option<usize>,
    value_base64: Option<usize>,
    ttl: Option<usize>,
    content_type: Option<usize>,
}

impl Columns {
    fn of(header: &csv::StringRecord, key: &str, value: &str) -> anyhow::Result<Self> {
        let find = |name: &str| header.iter().position(|column| column.trim() == name);
        let missing = |name: &str| {
            let columns: Vec<_> = header.iter().collect();
            anyhow::anyhow!("the CSV header has no column {name:?}; it has {}", columns.join(", "))
        };
        let columns = Self {
            key: find(key).ok_or_else(|| missing(key))?,
            value: find(value),
            value_base64: find("value_base64"),
            ttl: find("ttl"),
            content_type: find("content_type"),
        };
        if columns.value.or(columns.value_base64).is_none() {
            return Err(missing(value));
        }
        Ok(columns)
    }

    fn entry(&self, record: &csv::StringRecord) -> Result<Entry, String> {
        let field = |column: Option<usize>| column.and_then(|column| record.get(column)).unwrap_or_default();
        let value = match field(self.value_base64) {
            "" => Bytes::from(field(self.value).to_owned()),
            text => decode(text)?,
        };
        let ttl = match field(self.ttl) {
            "" => None,
            text => Some(parse_ttl(text)?),
        };
        let (key, content_type) = (field(Some(self.key)).to_owned(), field(self.content_type).to_owned());
        Ok(Entry { key, value, ttl, content_type })
    }
}

/// The rows of CSV, by the names in its header.
///
/// # Errors
/// When the header cannot be read, or lacks a column.
pub(super) fn csv_rows(
    input: impl BufRead,
    key_column: &str,
    value_column: &str,
) -> anyhow::Result<impl Iterator<Item = Row>> {
    let mut reader = csv::Reader::from_reader(input);
    let columns = Columns::of(reader.headers()?, key_column, value_column)?;
    let mut record = csv::StringRecord::new();
    let mut broken = false;
    Ok(std::iter::from_fn(move || {
        if broken {
            return None;
        }
        // Where the record before has ended; empty lines in between belong to none.
        let from = reader.position().line();
        let read = reader.read_record(&mut record);
        let end = reader.position().byte();
        let line = |position: Option<&csv::Position>| position.map_or(from, csv::Position::line);
        match read {
            Ok(false) => None,
            Ok(true) => Some(Row { line: line(record.position()), end, entry: columns.entry(&record) }),
            Err(error) => {
                broken = error.is_io_error();
                Some(Row { line: line(error.position()), end, entry: Err(error.to_string()) })
            }
        }
    }))
}

/// Writes entries.
pub(super) enum Writer<W: Write> {
    Json(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, as_csv: bool) -> anyhow::Result<Self> {
        if !as_csv {
            return Ok(Self::Json(out));
        }
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(["key", "value", "value_base64", "ttl", "content_type"])?;
        Ok(Self::Csv(Box::new(writer)))
    }

    pub(super) fn write(&mut self, entry: Entry) -> anyhow::Result<()> {
        let ttl = entry.ttl.map(|ttl| format!("{}ms", ttl.as_millis().max(1)));
        let (value, value_base64) = match String::from_utf8(entry.value.into()) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        match self {
            Self::Json(out) => {
                let row = PostKey {
                    key: entry.key,
                    value: value.as_deref().map(serde_json::value::to_raw_value).transpose()?,
                    value_base64,
                    ttl: ttl.map(TtlField::Text),
                    content_type: Some(entry.content_type).filter(|text| !text.is_empty()),
                };
                serde_json::to_writer(&mut *out, &row)?;
                out.write_all(b"\n")?;
            }
            Self::Csv(out) => {
                let text = |field: Option<String>| field.unwrap_or_default();
                out.write_record([entry.key, text(value), text(value_base64), text(ttl), entry.content_type])?;
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Json(out) => out.flush(),
            Self::Csv(out) => out.flush(),
        }
    }
}
