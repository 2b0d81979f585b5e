//! A network of our own, that can be cut: a namespace with a bridge, and for each server a namespace with an address on
//! it. The tests have an address there, too, and reach everybody.
//!
//! A cut drops packets where they arrive, without a word to their sender, as a broken switch does. The bridge is not in
//! the host's namespace, where a firewall may have its own opinion of what it forwards.

use std::{collections::BTreeMap, net::Ipv4Addr, process::Command};

/// See the module. Gone with all that is in it when it is dropped.
pub(crate) struct Network {
    /// The beginning of every name here.
    name: String,
    /// The third byte of every address; the first two are of a range that is set aside for tests (RFC 2544).
    subnet: u8,
    places: BTreeMap<String, Place>,
}

/// Where a server stands.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
}

impl Network {
    pub(crate) fn new() -> Self {
        // Tests that run at the same time may choose the same number; only one of them gets it.
        let free = (0..50).map(|_| rand::random_range(1..=254)).find(|subnet| {
            let added = Command::new("ip").args(["netns", "add", &format!("cairn{subnet}")]).output();
            added.is_ok_and(|output| output.status.success())
        });
        let subnet = free.unwrap_or_else(|| panic!("no network namespace could be made"));
        let network = Self { name: format!("cairn{subnet}"), subnet, places: BTreeMap::new() };
        let (name, address) = (&network.name, network.address(1));
        run(&format!("ip -n {name} link add bridge type bridge"));
        run(&format!("ip -n {name} link set bridge up"));
        run(&format!("ip link add {name} type veth peer name tests netns {name}"));
        run(&format!("ip addr add {address}/24 dev {name}"));
        run(&format!("ip link set {name} up"));
        network.plug_in("tests");
        network
    }

    /// Connects an interface that is in the bridge's namespace.
    fn plug_in(&self, interface: &str) {
        let name = &self.name;
        run(&format!("ip -n {name} link set {interface} master bridge up"));
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.subnet, host)
    }

    /// Makes room for one more server.
    pub(crate) fn add(&mut self, server: &str) -> Place {
        let host = u8::try_from(self.places.len() + 2).unwrap();
        let name = &self.name;
        let (namespace, outside) = (format!("{name}-{host}"), format!("server{host}"));
        let address = self.address(host);
        run(&format!("ip netns add {namespace}"));
        run(&format!("ip -n {name} link add {outside} type veth peer name eth0 netns {namespace}"));
        self.plug_in(&outside);
        run(&format!("ip -n {namespace} addr add {address}/24 dev eth0"));
        run(&format!("ip -n {namespace} link set eth0 up"));
        run(&format!("ip -n {namespace} link set lo up"));
        let table = "add table inet cut; add chain inet cut input { type filter hook input priority 0; }";
        run(&format!("ip netns exec {namespace} nft {table}"));
        let place = Place { namespace, address };
        self.places.insert(server.to_owned(), place.clone());
        place
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub(crate) fn cut_one_way(&self, from: &str, to: &str) {
        let Place { namespace, .. } = &self.places[to];
        let source = self.places[from].address;
        run(&format!("ip netns exec {namespace} nft add rule inet cut input ip saddr {source} drop"));
    }

    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    pub(crate) fn heal(&self) {
        for Place { namespace, .. } in self.places.values() {
            run(&format!("ip netns exec {namespace} nft flush chain inet cut input"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What could not be made cannot be removed; that it could not be made was said then.
        let namespaces = self.places.values().map(|place| &place.namespace);
        for namespace in namespaces.chain([&self.name]) {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

/// Runs a program; no word may contain a space.
fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether network namespaces and mounts can be made here. Where they cannot, says so on stderr, and the test passes.
pub(crate) fn needs_root() -> bool {
    let probe = "ip link add cairn-probe type bridge && nft list tables";
    // In a network namespace of its own, which is gone with it.
    let made = Command::new("unshare").args(["--net", "sh", "-c", probe]).output();
    let can = made.as_ref().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("SKIPPED: this test needs root, and the programs unshare, ip and nft: {made:?}");
    }
    can
}
