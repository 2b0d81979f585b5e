//! `cairn-node healthcheck`, as an orchestrator runs it.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

fn healthcheck(listener: &TcpListener) -> Output {
    let address = listener.local_addr().unwrap().to_string();
    Command::new(env!("CARGO_BIN_EXE_cairn-node")).arg("healthcheck").env("LISTEN_ADDR", address).output().unwrap()
}

#[test]
fn a_health_check_asks_the_configured_address_and_exits_with_what_it_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (answer, code) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
        thread::scope(|scope| {
            let served = scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            });
            let checked = healthcheck(&listener);
            let said = String::from_utf8(checked.stderr).unwrap();
            assert_eq!(checked.status.code(), Some(code), "{said}");
            assert_eq!(said.contains(answer), code == 1, "{said}");
            assert!(served.join().unwrap().starts_with("GET /health/live "));
        });
    }
}
