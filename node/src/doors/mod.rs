//! The ways in: HTTP and the link. They parse, call the driver or the cluster, and render; they know neither tiers nor
//! engines.

pub(crate) mod api;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod routes;
