//! What a node tells others of where it is.

use cairn_node::Config;
use clap::Parser as _;

/// The URL and the peer address that a node with these flags names when it listens on `ip`.
fn advertised(ip: &str, flags: &[&str]) -> (String, String) {
    let config = Config::parse_from(["cairn-node"].iter().chain(flags));
    let (http, peer) = (format!("{ip}:8081").parse().unwrap(), format!("{ip}:9081").parse().unwrap());
    (config.advertised_url(http), config.advertised_peer_addr(http, peer))
}

fn pair(url: &str, peer: &str) -> (String, String) {
    (url.to_owned(), peer.to_owned())
}

#[test]
fn a_node_advertises_the_addresses_that_it_listens_on() {
    assert_eq!(advertised("10.0.0.7", &[]), pair("http://10.0.0.7:8081", "10.0.0.7:9081"));
    assert_eq!(advertised("[::1]", &[]), pair("http://[::1]:8081", "[::1]:9081"));
}

#[test]
fn a_node_that_listens_on_every_address_advertises_its_host_name() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    let named = (format!("http://{host}:8081"), format!("{host}:9081"));
    assert_eq!(advertised("0.0.0.0", &[]), named);
    assert_eq!(advertised("[::]", &[]), named);
}

#[test]
fn what_is_set_is_advertised_as_it_is() {
    let url = "--advertise-url=https://cache.example:443";
    assert_eq!(advertised("0.0.0.0", &[url]), pair("https://cache.example:443", "cache.example:9081"));
    assert_eq!(advertised("10.0.0.7", &[url]), pair("https://cache.example:443", "10.0.0.7:9081"));
    let peer = "--advertise-peer-addr=inside.example:7";
    assert_eq!(advertised("0.0.0.0", &[url, peer]), pair("https://cache.example:443", "inside.example:7"));
    let nonsense = Config::try_parse_from(["cairn-node", "--advertise-url=cache.example"]).unwrap_err().to_string();
    assert!(nonsense.contains("http://127.0.0.1:8080"), "{nonsense}");
}
