//! What a registration may say. The master sends requests to the addresses that it takes in here, so an address that
//! only a confused or hostile caller would name is refused before anything is sent.
//!
//! Names are not resolved: a name that points to a refused address is the network policy's to stop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cairn_api_spec::cluster::RegisterNode;
use reqwest::Url;

use crate::error::Error;

const MAX_NODE_ID_BYTES: usize = 63;
const MAX_ZONE_BYTES: usize = 63;
const MAX_ADDRESS_BYTES: usize = 300;
const WEIGHTS: std::ops::RangeInclusive<f64> = 0.1..=100.0;

/// Metadata services of clouds that are not at a link-local address.
const METADATA_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];
const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "instance-data"];

/// Checks a registration that came to the master listening on `own`.
///
/// # Errors
/// [`Error::InvalidNode`] with what is wrong and what would be right.
pub(crate) fn check_registration(node: &RegisterNode, own: SocketAddr) -> Result<(), Error> {
    check_node_id(&node.node_id)?;
    check_http_address(&node.address, own)?;
    check_peer_address(&node.peer_address, own)?;
    if !WEIGHTS.contains(&node.weight) {
        return refuse(format!("weight is {}: it must be 0.1 to 100", node.weight));
    }
    match &node.zone {
        Some(zone) if !is_name(zone, MAX_ZONE_BYTES) => {
            refuse("zone must be 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'")
        }
        _ => Ok(()),
    }
}

fn check_node_id(id: &str) -> Result<(), Error> {
    if is_name(id, MAX_NODE_ID_BYTES) {
        Ok(())
    } else {
        refuse("node_id must be 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'")
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn check_http_address(address: &str, own: SocketAddr) -> Result<(), Error> {
    let wrong = || {
        Error::InvalidNode("address must be http://host:port or https://host:port, with nothing after it".to_owned())
    };
    if address.len() > MAX_ADDRESS_BYTES {
        return Err(wrong());
    }
    let url = Url::parse(address).map_err(|_| wrong())?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !bare {
        return Err(wrong());
    }
    let host = url.host_str().ok_or_else(wrong)?;
    check_target("address", host, url.port_or_known_default().unwrap_or(0), own)
}

fn check_peer_address(address: &str, own: SocketAddr) -> Result<(), Error> {
    let wrong = || Error::InvalidNode("peer_address must be host:port".to_owned());
    let (host, port) = address.rsplit_once(':').filter(|_| address.len() <= MAX_ADDRESS_BYTES).ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.contains(['/', '@', '?', '#', '\\']) {
        return Err(wrong());
    }
    // The URL parser knows every spelling of an IP address (hexadecimal, octal, one number) and writes it plainly.
    let url = Url::parse(&format!("http://{host}/")).map_err(|_| wrong())?;
    check_target("peer_address", url.host_str().filter(|_| url.port().is_none()).ok_or_else(wrong)?, port, own)
}

fn check_target(field: &str, host: &str, port: u16, own: SocketAddr) -> Result<(), Error> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ip = match host.as_str() {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
    };
    if port == 0 {
        return refuse(format!("{field} has port 0: name the port that the node listens on"));
    }
    if METADATA_NAMES.contains(&host.as_str()) || ip.is_some_and(is_refused) {
        return refuse(format!("{field} names {host}, where no node can be"));
    }
    let reaches_own =
        |ip: IpAddr| ip == own.ip() || ip.is_loopback() && (own.ip().is_unspecified() || own.ip().is_loopback());
    if port == own.port() && ip.is_some_and(reaches_own) {
        return refuse(format!("{field} is the master's own address"));
    }
    Ok(())
}

fn is_refused(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link_local || ip.is_multicast() || ip.is_unspecified() || METADATA_ADDRESSES.contains(&ip)
}

fn refuse(detail: impl Into<String>) -> Result<(), Error> {
    Err(Error::InvalidNode(detail.into()))
}
