//! HTTP as bytes, for what a client library would not send: keys that look like path navigation, broken escapes, bodies
//! that are longer than they may be.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{PATIENCE, Reply};

/// Sends a request line's method and target as they are, and a body; with `chunked` in chunks of 64 KiB.
pub(crate) async fn send_raw(
    server: &str,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
    chunked: bool,
) -> Reply {
    let address = server.strip_prefix("http://").unwrap();
    let framing = match chunked {
        true => "transfer-encoding: chunked".to_owned(),
        false => format!("content-length: {}", body.len()),
    };
    let head =
        format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{framing}\r\n{headers}\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        writer.write_all(head.as_bytes()).await?;
        if !chunked {
            return writer.write_all(body).await;
        }
        for piece in body.chunks(64 << 10) {
            writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            writer.write_all(piece).await?;
            writer.write_all(b"\r\n").await?;
        }
        writer.write_all(b"0\r\n\r\n").await
    };
    let read = async {
        let mut reply = Vec::new();
        // A server that does not want the rest of a body may reset the connection after its reply.
        let _ = reader.read_to_end(&mut reply).await;
        reply
    };
    // For the same reason, writing may fail; what counts is the reply.
    let both = async { tokio::join!(write, read).1 };
    let reply = tokio::time::timeout(PATIENCE, both).await;
    parse(&reply.unwrap_or_else(|_| panic!("{method} {target}: no reply in time")))
}

fn parse(reply: &[u8]) -> Reply {
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no reply: {:?}", String::from_utf8_lossy(reply)));
    let head = std::str::from_utf8(&reply[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap())
    };
    let headers: HeaderMap = lines.map(header).collect();
    let mut body = Bytes::copy_from_slice(&reply[end + 4..]);
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunk(&body);
    }
    Reply { status, headers, body }
}

fn unchunk(mut rest: &[u8]) -> Bytes {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return body.into();
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 2 + length + 2..];
    }
}
