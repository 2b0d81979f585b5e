//! Many requests over one connection, one behind the other without waiting (HTTP pipelining): where a hundred thousand
//! keys are to be stored or read in a short time.

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// Requests that are under way at a time.
const WINDOW: usize = 64;

/// Sends `requests`, each a method, a target and a body; returns the statuses and bodies in their order.
pub(crate) async fn pipeline(server: &str, requests: &[(&str, String, String)]) -> Vec<(u16, String)> {
    let address = server.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut replies = Vec::with_capacity(requests.len());
    for window in requests.chunks(WINDOW) {
        let sent: String = window
            .iter()
            .map(|(method, target, body)| {
                let length = body.len();
                format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{body}")
            })
            .collect();
        writer.write_all(sent.as_bytes()).await.unwrap();
        for _ in window {
            replies.push(reply(&mut reader).await);
        }
    }
    replies
}

async fn reply(reader: &mut (impl AsyncBufReadExt + Unpin)) -> (u16, String) {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).await.unwrap() > 0, "the server closed the connection");
        match line.trim_end().split_once(' ') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length:") => length = value.parse().unwrap(),
            Some((name, value)) if name.starts_with("HTTP/") => status = value[..3].parse().unwrap(),
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.unwrap();
    (status, String::from_utf8(body).unwrap())
}
