//! `/nodes`: registration, heartbeats, removal.

use actix_web::{HttpResponse, delete, get, http::header, post, put, web};
use cairn_api_spec::{
    cluster::{Heartbeat, HeartbeatReply, Node, NodeList, RegisterNode},
    error::Problem,
};
use cairn_server_kit::http::HttpError;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{AppState, BodyErrors, EdgeErrors};

pub(super) fn configure(config: &mut ServiceConfig<'_>) {
    config.service(register_node).service(list_nodes).service(get_node).service(beat_node).service(remove_node);
}

/// Registers a node
///
/// The same again answers 200, and so does a later session at the same address. Another address, or another incarnation
/// (the node's data are gone then, and it learns its partitions anew), is taken once the former process is silent or
/// has said that it stops.
#[utoipa::path(
    tag = "cluster",
    operation_id = "register_node",
    responses(
        (status = 201, description = "The node is new", body = Node, headers(("Location" = String, description = "Path of the node"))),
        (status = 200, description = "The node was registered already", body = Node),
        (status = 400, description = "The registration cannot be taken (`invalid_body`)", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A node with this id beats from another address or with another incarnation, or its data have been used by a later session (`node_conflict`)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The registration was changed at the same time (`overloaded`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors, BodyErrors,
    )
)]
#[post("/nodes")]
async fn register_node(state: web::Data<AppState>, body: web::Json<RegisterNode>) -> Result<HttpResponse, HttpError> {
    let (node_id, now) = (body.node_id.clone(), state.clock.now());
    let created = state.cluster.registry.register(body.into_inner(), now).await?;
    let node = state.cluster.node(&node_id, state.clock.now())?;
    if !created {
        return Ok(HttpResponse::Ok().json(node));
    }
    Ok(HttpResponse::Created().insert_header((header::LOCATION, format!("/nodes/{node_id}"))).json(node))
}

/// Lists the nodes
#[utoipa::path(
    tag = "cluster",
    operation_id = "list_nodes",
    responses((status = 200, description = "Every registered node, by id", body = NodeList), EdgeErrors)
)]
#[get("/nodes")]
async fn list_nodes(state: web::Data<AppState>) -> web::Json<NodeList> {
    web::Json(NodeList { nodes: state.cluster.nodes(state.clock.now()) })
}

/// Describes a node
#[utoipa::path(
    tag = "cluster",
    operation_id = "get_node",
    params(("node_id" = String, Path, description = "The node's stable name")),
    responses(
        (status = 200, description = "The node", body = Node),
        (status = 404, description = "No such node (`node_not_found`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors,
    )
)]
#[get("/nodes/{node_id}")]
async fn get_node(state: web::Data<AppState>, node_id: web::Path<String>) -> Result<web::Json<Node>, HttpError> {
    Ok(web::Json(state.cluster.node(&node_id, state.clock.now())?))
}

/// Takes a node's heartbeat
#[utoipa::path(
    tag = "cluster",
    operation_id = "beat_node",
    params(("node_id" = String, Path, description = "The node's stable name")),
    responses(
        (status = 200, description = "The map epoch: when it is not the node's, the node fetches the map", body = HeartbeatReply),
        (status = 400, description = "The heartbeat cannot be read (`invalid_body`)", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The node, with this incarnation, must register again (`node_not_found`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors, BodyErrors,
    )
)]
#[put("/nodes/{node_id}/heartbeat")]
async fn beat_node(
    state: web::Data<AppState>,
    node_id: web::Path<String>,
    body: web::Json<Heartbeat>,
) -> Result<web::Json<HeartbeatReply>, HttpError> {
    let (wall, now, registry) = (Timestamp::now(), state.clock.now(), &state.cluster.registry);
    let leave = registry.beat(&node_id, body.into_inner(), now, wall)?;
    Ok(web::Json(HeartbeatReply {
        epoch: state.cluster.ring.load().epoch,
        leave,
        transfer_bytes_per_second: state.cluster.rebalancing.limits().bytes_per_second,
        now_ms: wall.as_millisecond(),
        max_clock_skew_ms: if registry.any_clock_agrees(now) {
            u64::try_from(registry.patience().max_clock_skew.as_millis()).unwrap_or(u64::MAX)
        } else {
            0
        },
    }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// Drops the node at once; what only it held is restored from the object store, or lost
    #[serde(default)]
    #[param(default = false, required = false)]
    force: bool,
}

/// Removes a node
///
/// It drains first: its partitions move to others, then it leaves the registry and its process ends. Started again, it
/// joins again.
#[utoipa::path(
    tag = "cluster",
    operation_id = "remove_node",
    params(("node_id" = String, Path, description = "The node's stable name"), Removal),
    responses(
        (status = 202, description = "The node is draining, or with `force` dropped"),
        (status = 400, description = "`force` is neither true nor false (`invalid_parameter`)", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node (`node_not_found`)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The registration was changed at the same time (`overloaded`)", body = Problem, content_type = "application/problem+json"),
        EdgeErrors,
    )
)]
#[delete("/nodes/{node_id}")]
async fn remove_node(
    state: web::Data<AppState>,
    node_id: web::Path<String>,
    query: web::Query<Removal>,
) -> Result<HttpResponse, HttpError> {
    if query.force {
        state.cluster.registry.remove(&node_id, state.clock.now()).await?;
    } else {
        state.cluster.registry.drain(&node_id, state.clock.now()).await?;
    }
    Ok(HttpResponse::Accepted().finish())
}
