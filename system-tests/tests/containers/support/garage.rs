//! An S3 server that is not ours.

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region},
    error::DisplayErrorContext,
};
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use super::{container::Container, eventually};

const IMAGE: (&str, &str) = ("dxflrs/garage", "v2.5.0");
const PORT: u16 = 3900;
const BUCKET: &str = "cairn";
const REGION: &str = "garage";
/// Only for a container that nobody else reaches.
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const RPC_SECRET: &str = SECRET_KEY;
/// What the compose file gives it, too.
const CONFIG: &str = include_str!("../../../../deploy/garage.toml");

/// See the module.
pub(crate) struct Garage(Container);

impl Garage {
    pub(crate) async fn start(name: &str, network: &str) -> Self {
        let request: ContainerRequest<GenericImage> = GenericImage::new(IMAGE.0, IMAGE.1)
            .with_cmd(["/garage", "server", "--single-node", "--default-bucket"])
            .with_copy_to("/etc/garage.toml", CONFIG.as_bytes().to_vec())
            .with_env_var("GARAGE_RPC_SECRET", RPC_SECRET)
            .with_env_var("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .with_env_var("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .with_env_var("GARAGE_DEFAULT_BUCKET", BUCKET);
        let garage = Self(Container::start(name, network, PORT, request).await);
        garage.ready().await;
        garage
    }

    pub(crate) fn container(&self) -> &Container {
        &self.0
    }

    /// The settings of a node that uses it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("S3_ENDPOINT", format!("http://{}:{PORT}", self.0.name)),
            ("S3_BUCKET", BUCKET.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Waits until it answers.
    pub(crate) async fn ready(&self) {
        eventually("the object store answers", async || self.try_objects().await).await;
    }

    /// The names of all objects.
    pub(crate) async fn objects(&self) -> Vec<String> {
        self.try_objects().await.unwrap()
    }

    async fn try_objects(&self) -> Result<Vec<String>, String> {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
            .endpoint_url(self.0.url().await)
            .force_path_style(true);
        let pages = Client::from_conf(config.build()).list_objects_v2().bucket(BUCKET).into_paginator().send();
        let pages: Vec<_> = pages.try_collect().await.map_err(|error| DisplayErrorContext(error).to_string())?;
        let objects = pages.into_iter().flat_map(|page| page.contents.unwrap_or_default());
        Ok(objects.filter_map(|object| object.key).collect())
    }
}
