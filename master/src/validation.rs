//! What a registration may say. The master sends requests to the addresses that it takes in here, so an address that
//! only a confused or hostile caller would name is refused before anything is sent.
//!
//! A name that points to a refused address is the network policy's to stop, except where it leads back to the master:
//! that is how a node is told the wrong address most easily, and requests would go round in circles.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cairn_api_spec::cluster::RegisterNode;
use reqwest::Url;

use crate::{error::Error, resolver::Resolved};

const MAX_NODE_ID_BYTES: usize = 63;
const MAX_ZONE_BYTES: usize = 63;
const MAX_ADDRESS_BYTES: usize = 300;
const WEIGHTS: std::ops::RangeInclusive<f64> = 0.1..=100.0;

/// Metadata services of clouds that are not at a link-local address.
const METADATA_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];
const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "instance-data"];

/// An address that a registration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The field that names it.
    pub field: &'static str,
    /// A name in lower case, or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Checks what a registration says. Returns the addresses that it names, which are still to be checked by
/// [`check_target`].
///
/// # Errors
/// [`Error::InvalidNode`] with what is wrong and what would be right.
pub fn check_registration(node: &RegisterNode) -> Result<[Target; 2], Error> {
    check_node_id(&node.node_id)?;
    let targets = [parse_http_address(&node.address)?, parse_peer_address(&node.peer_address)?];
    if !WEIGHTS.contains(&node.weight) {
        return Err(refused(format!("weight is {}: it must be 0.1 to 100", node.weight)));
    }
    match &node.zone {
        Some(zone) if !is_name(zone, MAX_ZONE_BYTES) => {
            Err(refused("zone must be 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'"))
        }
        _ => Ok(targets),
    }
}

/// Whether the addresses of a target must be known: only at its own port the master could be reached.
pub fn may_be_own(target: &Target, own_port: u16) -> bool {
    target.port == own_port
}

/// Checks that a target at the master's own port is on another machine. Nothing is held against a name that stands for
/// no address: it reaches nobody.
///
/// # Errors
/// [`Error::InvalidNode`] with what is wrong and what would be right.
pub fn check_target(target: &Target, addresses: &[Resolved], own_port: u16) -> Result<(), Error> {
    let is_here = |address: &&Resolved| address.is_local || address.ip.to_canonical().is_loopback();
    let Target { field, host, port } = target;
    match addresses.iter().find(is_here).filter(|_| may_be_own(target, own_port)) {
        Some(Resolved { ip, .. }) => Err(refused(format!(
            "{field} is the master's own address: {host} is this machine ({ip}), and the master listens on port {port}; \
             name the address and the port that the node listens on"
        ))),
        None => Ok(()),
    }
}

fn check_node_id(id: &str) -> Result<(), Error> {
    if is_name(id, MAX_NODE_ID_BYTES) {
        Ok(())
    } else {
        Err(refused("node_id must be 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'"))
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn parse_http_address(address: &str) -> Result<Target, Error> {
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
    parse_target("address", host, url.port_or_known_default().unwrap_or(0))
}

fn parse_peer_address(address: &str) -> Result<Target, Error> {
    let wrong = || Error::InvalidNode("peer_address must be host:port".to_owned());
    let (host, port) = address.rsplit_once(':').filter(|_| address.len() <= MAX_ADDRESS_BYTES).ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.contains(['/', '@', '?', '#', '\\']) {
        return Err(wrong());
    }
    // The URL parser knows every spelling of an IP address (hexadecimal, octal, one number) and writes it plainly.
    let url = Url::parse(&format!("http://{host}/")).map_err(|_| wrong())?;
    parse_target("peer_address", url.host_str().filter(|_| url.port().is_none()).ok_or_else(wrong)?, port)
}

fn parse_target(field: &'static str, host: &str, port: u16) -> Result<Target, Error> {
    let host = host.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if port == 0 {
        return Err(refused(format!("{field} has port 0: name the port that the node listens on")));
    }
    let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    if METADATA_NAMES.contains(&host.as_str()) || ip.is_some_and(is_refused) {
        return Err(refused(format!("{field} names {host}, where no node can be")));
    }
    Ok(Target { field, host: ip.map_or(host, |ip| ip.to_string()), port })
}

fn is_refused(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link_local || ip.is_multicast() || ip.is_unspecified() || METADATA_ADDRESSES.contains(&ip)
}

fn refused(detail: impl Into<String>) -> Error {
    Error::InvalidNode(detail.into())
}
