//! The question whether a server of this machine lives, for orchestrators: the images have no HTTP client.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reqwest::{Client, StatusCode, redirect::Policy};

/// Below what orchestrators usually give a check, so that the reason is still told.
const DEADLINE: Duration = Duration::from_secs(2);

/// Why a server does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// There was no answer in time.
    #[error("no answer from {url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why there was none.
        reason: String,
    },
    /// The answer was another one than 200.
    #[error("{url} answered {status}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The answer.
        status: StatusCode,
    },
}

/// Asks the server that listens on `listen_addr` for `/health/live`, for 2 seconds at most.
///
/// # Errors
/// When it does not answer 200 in time; the text is one line.
pub async fn check_live(listen_addr: SocketAddr) -> Result<(), HealthcheckError> {
    let url = format!("http://{}/health/live", from_here(listen_addr));
    match ask(&url).await {
        Ok(StatusCode::OK) => Ok(()),
        Ok(status) => Err(HealthcheckError::Refused { url, status }),
        Err(error) => Err(HealthcheckError::Unreachable { url, reason: root_cause(&error).to_string() }),
    }
}

async fn ask(url: &str) -> reqwest::Result<StatusCode> {
    let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(DEADLINE).build()?;
    Ok(client.get(url).send().await?.status())
}

/// Who listens on every address is asked on loopback.
fn from_here(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    addr
}

/// An HTTP client's errors say in the innermost one what happened.
fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
