//! Which addresses a host name stands for, and which of them are this machine's.

use std::{
    net::{IpAddr, ToSocketAddrs as _, UdpSocket},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Semaphore;

/// How long a name is looked up.
const DEADLINE: Duration = Duration::from_secs(1);
/// Names that are looked up at the same time. A look-up goes on after its deadline, and occupies a thread.
const LOOKUPS: usize = 4;

/// An address that a host name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The address.
    pub ip: IpAddr,
    /// Whether it is one of this machine's.
    pub is_local: bool,
}

/// Looks names up.
#[derive(Debug)]
pub struct Resolver {
    slots: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(LOOKUPS)) }
    }
}

impl Resolver {
    /// The addresses of a host, a name or an IP address. Nothing when it has none, or they are not found within a
    /// second.
    pub async fn resolve(&self, host: &str) -> Vec<Resolved> {
        let host = host.to_owned();
        let look_up = async {
            let slot = self.slots.clone().acquire_owned().await.ok()?;
            let look_up = move || {
                let _slot = slot;
                look_up(&host)
            };
            tokio::task::spawn_blocking(look_up).await.ok()
        };
        tokio::time::timeout(DEADLINE, look_up).await.ok().flatten().unwrap_or_default()
    }
}

fn look_up(host: &str) -> Vec<Resolved> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => {
            (host, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
        }
    };
    addresses.into_iter().map(|ip| Resolved { ip, is_local: is_local(ip) }).collect()
}

/// A socket can be bound to this machine's addresses only.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
