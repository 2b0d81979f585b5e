//! One container: how it is started, where its port is, and what can be done to it.

use std::{net::Ipv4Addr, time::Duration};

use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, Image, ImageExt,
    bollard::{
        Docker,
        models::{ContainerInspectResponse, NetworkConnectRequest, NetworkDisconnectRequest},
    },
    core::{CmdWaitFor, ExecCommand, IntoContainerPort, client::docker_client_instance},
    runners::AsyncRunner,
};

use super::eventually;

/// What Kubernetes waits before it kills; Docker's own 10 s are little for a node that hands over on a busy machine.
const GRACE: Duration = Duration::from_secs(30);

/// A container, removed with its volumes when it is dropped; the last one of a network takes that along.
pub(crate) struct Container {
    /// Its name in Docker, and its host name in the network.
    pub(crate) name: String,
    inner: ContainerAsync<GenericImage>,
    docker: Docker,
    network: String,
    port: u16,
}

impl Container {
    /// Starts a container in a network, which is made when it is not there, and publishes a port on loopback.
    pub(crate) async fn start(name: &str, network: &str, port: u16, request: ContainerRequest<GenericImage>) -> Self {
        let docker = docker_client_instance().await.unwrap_or_else(|error| panic!("there is no Docker: {error}"));
        let image = format!("{}:{}", request.image().name(), request.image().tag());
        if let Err(error) = docker.inspect_image(&image).await {
            panic!(
                "the image {image} is not there: `make images` builds those of the servers, `.ci/base-images` gets or \
                 builds all others ({error})"
            );
        }
        let request = request
            .with_container_name(name)
            .with_hostname(name)
            .with_network(network)
            .with_mapped_port(0, port.tcp())
            .with_host_config_modifier(|host| {
                let ports = host.port_bindings.iter_mut().flat_map(|ports| ports.values_mut()).flatten().flatten();
                ports.for_each(|binding| binding.host_ip = Some(Ipv4Addr::LOCALHOST.to_string()));
            });
        let inner = request.start().await.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), inner, docker, network: network.to_owned(), port }
    }

    /// Where its port is now: Docker takes another one with every start.
    pub(crate) async fn url(&self) -> String {
        let port = self.inner.get_host_port_ipv4(self.port.tcp()).await.unwrap();
        format!("http://{}:{port}", Ipv4Addr::LOCALHOST)
    }

    /// `docker kill`.
    pub(crate) async fn kill(&self) {
        self.docker.kill_container(self.inner.id(), None).await.unwrap();
        eventually("the container is dead", async || match self.inner.is_running().await {
            Ok(false) => Ok(()),
            other => Err(format!("running: {other:?}")),
        })
        .await;
    }

    /// `docker stop`; the process must end by itself, and well.
    pub(crate) async fn stop(&self) {
        let grace = i32::try_from(GRACE.as_secs()).unwrap();
        self.inner.stop_with_timeout(Some(grace)).await.unwrap();
        let code = self.inner.exit_code().await.unwrap();
        assert_eq!(code, Some(0), "{} did not end well on SIGTERM", self.name);
    }

    /// `docker start` after it was killed or stopped; its volume is as it was left.
    pub(crate) async fn start_again(&self) {
        self.inner.start().await.unwrap();
    }

    /// Stops every process of it where it is.
    pub(crate) async fn pause(&self) {
        self.inner.pause().await.unwrap();
    }

    pub(crate) async fn unpause(&self) {
        self.inner.unpause().await.unwrap();
    }

    /// Pulls its plug: connections that there are hang, they are not closed.
    pub(crate) async fn disconnect(&self) {
        let request = NetworkDisconnectRequest { container: self.inner.id().to_owned(), force: None };
        self.docker.disconnect_network(&self.network, request).await.unwrap();
    }

    pub(crate) async fn connect(&self) {
        let request = NetworkConnectRequest { container: self.inner.id().to_owned(), endpoint_config: None };
        self.docker.connect_network(&self.network, request).await.unwrap();
    }

    /// Removes it with its volume.
    pub(crate) async fn remove(self) {
        self.inner.rm().await.unwrap();
    }

    /// What Docker knows of it.
    pub(crate) async fn inspect(&self) -> ContainerInspectResponse {
        self.docker.inspect_container(self.inner.id(), None).await.unwrap()
    }

    /// Runs a command in it; returns the exit code, and what it wrote to both outputs.
    pub(crate) async fn exec(&self, command: &[&str]) -> (i64, String) {
        let command = ExecCommand::new(command.iter().copied()).with_cmd_ready_condition(CmdWaitFor::exit());
        let mut done = self.inner.exec(command).await.unwrap();
        let mut output = done.stdout_to_vec().await.unwrap();
        output.extend(done.stderr_to_vec().await.unwrap());
        (done.exit_code().await.unwrap().unwrap(), String::from_utf8(output).unwrap())
    }

    /// What it has logged.
    pub(crate) async fn log(&self) -> Vec<u8> {
        let mut log = self.inner.stdout_to_vec().await.unwrap_or_default();
        log.extend(self.inner.stderr_to_vec().await.unwrap_or_default());
        log
    }
}
