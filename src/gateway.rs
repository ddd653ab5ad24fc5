//! The gateway port: every tool of every live instance behind one endpoint, and the routes around it.
//!
//! **Invariant**: whatever a request needs is in one catalogue snapshot; a request waits for no instance but its own.
//! **Thread**: the connection's.
//! Left out on purpose: who serves the port (`election.rs`) and what is live (`scanner.rs`).

pub mod catalogue;
pub mod current;
pub mod fan_out;
pub mod followers;
pub mod handover;
pub mod known;
pub mod link;
pub mod meta;
pub mod modern;
pub mod names;
pub mod offered;
pub mod pieces;
pub mod proxy;
pub mod receive;
pub mod relayed;
pub mod rewrite;
pub mod snapshot;
pub mod stateless;
pub mod tasks;
pub mod upstream;
pub mod upstream_error;
pub mod waiting;

use std::io;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::media;
use crate::endpoint::outlet::Outlet;
use crate::endpoint::service::{
    Answer, Asking, Call, CallMethod, Failure, Payload, Service, encoded, unknown_prompt, unknown_resource,
    unknown_tool,
};
use crate::endpoint::{Endpoint, method_not_allowed};
use crate::front::Site;
use crate::gateway::catalogue::Catalogue;
use crate::gateway::followers::Followers;
use crate::gateway::handover::Handover;
use crate::gateway::pieces::published_uri;
use crate::gateway::proxy::Passage;
use crate::gateway::rewrite::VIA;
use crate::gateway::snapshot::{Member, Snapshot};
use crate::http::head::{Method, RequestHead};
use crate::http::server::{Exchange, Refusal};
use crate::json;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::mcp::Revision;
use crate::mcp::lists::Listed;
use crate::mcp::mirror::Mirror;
use crate::mcp::tasks::{TaskSupport, unknown_task};
use crate::metrics::Route;
use crate::registry::Instance;
use crate::session::State;
use crate::status::{Status, respond_json};

/// The tools of all instances as one MCP service.
pub struct GatewayService {
    pub catalogue: Arc<Catalogue>,
    pub followers: Followers,
}

/// The routes of the gateway port.
pub struct GatewaySite {
    pub endpoint: Endpoint,
    pub catalogue: Arc<Catalogue>,
    pub status: Status,
    /// Holds lists back where what the catalogue knows is old because this process was paused.
    pub settle: Box<dyn Fn() + Send + Sync>,
    pub handover: Handover,
}

const INSTRUCTIONS: &str = "This endpoint serves every live application instance (Maya, Blender, Houdini, headless \
    workers …). list_dcc_instances shows them. A tool is named <first 8 digits of the instance id>__<tool>; its \
    description and _meta say which instance runs it. search_skills finds what an instance could do, and load_skill \
    turns a skill into tools.";

impl Service for GatewayService {
    fn state(&self) -> State {
        self.catalogue.now().state
    }

    fn settled(&self) -> State {
        self.catalogue.settled().state
    }

    fn list(&self, listed: Listed, revision: Option<Revision>) -> Result<Arc<[u8]>, ErrorObject> {
        match self.catalogue.warm() {
            Ok(snapshot) => Ok(snapshot.list(listed, revision)),
            Err(_) => Err(ErrorObject::new(
                INTERNAL_ERROR,
                "the registry could not be read yet, so what there is is not known; ask again shortly (see /readyz)",
            )),
        }
    }

    fn call(&self, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        if call.method.is_about_task() {
            let snapshot = self.with_member(|member| call.name.starts_with(member.id()));
            return tasks::serve(&snapshot, call, outlet);
        }
        if call.method == CallMethod::CallTool && meta::is_own_tool(&call.name) {
            call.tasks.decide(TaskSupport::Forbidden, &call.name)?;
            let arguments: Map<String, Value> = serde_json::from_str(call.arguments.unwrap_or("{}"))
                .map_err(|error| ErrorObject::invalid_params(format!("\"arguments\" cannot be read: {error}")))?;
            let result = meta::call(&self.catalogue, &call.name, &arguments, call.deadline);
            return result.map(|result| encoded(&result)).ok_or_else(|| unknown_tool(&call.name).into());
        }
        let route = self.route(call)?;
        let (mirror, deadline) = (route.mirror.as_deref(), deadline(&route, call));
        if call.method == CallMethod::CallTool && call.tasks.decide(route.task_support, &call.name)? {
            return tasks::begin(&route, call, deadline, outlet);
        }
        let answer = route.upstream.call(&route.name, mirror, call, deadline, outlet);
        if !matches!(call.method, CallMethod::ReadResource | CallMethod::CompleteResource) {
            return answer;
        }
        let instance = &route.upstream.instance;
        match answer {
            Ok(answer) => Ok(with_published_uris(answer, instance)),
            Err(Failure::Error(error)) => Err(Failure::Error(with_published_uris(error, instance))),
            cancelled => cancelled,
        }
    }

    fn asking(&self, call: &Call<'_>) -> Asking {
        if call.method.is_about_task()
            || matches!(call.method, CallMethod::CompletePrompt | CallMethod::CompleteResource)
        {
            return Asking::Nobody;
        }
        match self.route(call).map(|route| route.upstream.is_stateless(call.deadline)) {
            Ok(Ok(true)) => Asking::Elsewhere,
            Ok(Ok(false)) => Asking::Here,
            // The call itself will say why it cannot be made.
            Ok(Err(_)) | Err(_) => Asking::Nobody,
        }
    }

    fn watch(&self, uri: &str, deadline: Deadline) -> Result<(), Failure> {
        let route = self.find(|snapshot| snapshot.resource(uri)).ok_or_else(|| unknown_resource(uri))?;
        route.upstream.subscribe(&route.name, deadline)?;
        self.followers.look();
        Ok(())
    }

    fn mirror(&self, tool: &str) -> Option<Arc<Mirror>> {
        self.catalogue.now().tool(tool)?.mirror.clone()
    }

    fn list_tasks(&self, owner: &str, cursor: Option<&str>, deadline: Deadline) -> Answer {
        tasks::list(&self.with_member(|_| false), owner, cursor, deadline)
    }

    fn instructions(&self) -> &str {
        INSTRUCTIONS
    }
}

impl GatewayService {
    /// Where a call goes.
    fn route(&self, call: &Call<'_>) -> Result<snapshot::Route, ErrorObject> {
        let name = &*call.name;
        match call.method {
            CallMethod::CallTool => {
                // A tool that was loaded a moment ago is called at once; the catalogue hears of it with its next look.
                let likely = || self.catalogue.now().likely_route(name);
                self.find(|snapshot| snapshot.tool(name).cloned()).or_else(likely).ok_or_else(|| unknown_tool(name))
            }
            CallMethod::GetPrompt | CallMethod::CompletePrompt => {
                self.find(|snapshot| snapshot.prompt(name).cloned()).ok_or_else(|| unknown_prompt(name))
            }
            CallMethod::ReadResource | CallMethod::CompleteResource => {
                self.find(|snapshot| snapshot.resource(name)).ok_or_else(|| unknown_resource(name))
            }
            CallMethod::GetTask | CallMethod::TaskResult | CallMethod::CancelTask | CallMethod::UpdateTask => {
                Err(unknown_task(name))
            }
        }
    }

    /// Looks into the snapshot as it is, and if there is nothing into the first whole one: what an instance has is not
    /// unknown before the instance was heard.
    fn find<T>(&self, find: impl Fn(&Snapshot) -> Option<T>) -> Option<T> {
        let snapshot = self.catalogue.now();
        let later = || if snapshot.complete { None } else { find(&*self.catalogue.warm().ok()?) };
        find(&snapshot).or_else(later)
    }

    /// The snapshot, with this member if there is one.
    fn with_member(&self, is_it: impl Fn(&Member) -> bool) -> Arc<Snapshot> {
        self.find(|snapshot| snapshot.members.iter().any(|member| is_it(member)).then_some(()));
        self.catalogue.now()
    }
}

/// What an instance read for us, or why it could not, under the URIs that our clients know.
fn with_published_uris(answer: Payload, instance: &Instance) -> Payload {
    let Ok(Value::Object(mut members)) = json::read(answer.as_bytes()) else { return answer };
    for (member, value) in &mut members {
        let holders = match (member.as_str(), value) {
            ("contents", Value::Array(contents)) => contents.as_mut_slice(),
            ("data", data) => std::slice::from_mut(data),
            _ => continue,
        };
        for holder in holders {
            if let Some(uri) = holder.get("uri").and_then(Value::as_str) {
                holder["uri"] = published_uri(instance, uri).into();
            }
        }
    }
    Payload::Owned(jsonrpc::to_bytes(&members))
}

impl Site for GatewaySite {
    fn route(&self, path: &str) -> Route {
        match path {
            "/health" => Route::Health,
            "/readyz" => Route::Readyz,
            "/metrics" => Route::Metrics,
            "/instances" => Route::Instances,
            "/gateway/yield" => Route::Yield,
            "/mcp" => Route::Mcp,
            _ if path.strip_prefix("/mcp/dcc/").is_some_and(is_one_segment) => Route::McpDcc,
            _ if path.strip_prefix("/mcp/").is_some_and(is_one_segment) => Route::McpInstance,
            _ => Route::Other,
        }
    }

    fn serve(
        &self,
        route: Route,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        if matches!(route, Route::Mcp | Route::McpInstance | Route::McpDcc | Route::Instances) {
            (self.settle)();
        }
        match route {
            Route::Mcp | Route::McpInstance | Route::McpDcc if comes_from_a_gateway(request) => {
                let message = "this is a gateway; the registry row that led a gateway here is of no instance";
                exchange.refuse(&Refusal::new(508, "loop_detected", message))
            }
            Route::Mcp => self.endpoint.handle(request, exchange, headers),
            Route::McpInstance | Route::McpDcc => self.proxy(route, request, exchange, headers),
            Route::Instances if matches!(request.method(), Method::Get | Method::Head) => {
                respond_json(exchange, 200, headers, &self.instances())
            }
            Route::Yield => self.handover.serve(request, exchange, headers),
            Route::Instances => method_not_allowed(exchange, headers, "GET, HEAD"),
            _ => self.status.serve(route, request, exchange, headers),
        }
    }
}

impl GatewaySite {
    fn instances(&self) -> Vec<u8> {
        let snapshot = self.catalogue.settled();
        let instances: Vec<Value> = snapshot.members.iter().map(|member| member.to_json()).collect();
        jsonrpc::to_bytes(&json!({"total": instances.len(), "instances": instances}))
    }

    fn proxy(
        &self,
        route: Route,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        if !matches!(request.method(), Method::Get | Method::Post | Method::Delete) {
            return method_not_allowed(exchange, headers, "GET, POST, DELETE");
        }
        if request.method() == Method::Post
            && let Err((status, error)) = media::check_content_type(request)
        {
            // A web page can send any other type to a server without being asked for its origin.
            return respond_json(exchange, status, headers, &jsonrpc::error(None, &error));
        }
        let call_timeout = self.endpoint.call_timeout;
        let passage = Passage { request, headers, call_timeout, draining: self.status.draining() };
        let name = request.path().rsplit('/').next().unwrap_or_default();
        let snapshot = self.catalogue.now();
        let found = match route {
            Route::McpDcc => proxy::by_type(&snapshot, name, request.header("mcp-session-id")),
            _ => proxy::by_prefix(&snapshot, name),
        };
        match found {
            Ok(destination) => proxy::forward(&passage, &destination, exchange),
            Err((status, message)) => proxy::nowhere(&passage, exchange, status, &message),
        }
    }
}

/// The call's time, or what the tool asks for if that is more.
fn deadline(route: &snapshot::Route, call: &Call<'_>) -> Deadline {
    match route.timeout {
        Some(timeout) if timeout > call.deadline.limit() => Deadline::after(timeout),
        _ => call.deadline,
    }
}

/// A gateway that another (or itself) takes for an instance would ask in circles, with more threads at each turn.
fn comes_from_a_gateway(request: &RequestHead) -> bool {
    request.header(VIA.0).is_some_and(|via| via.contains(VIA.1))
}

fn is_one_segment(rest: &str) -> bool {
    !rest.is_empty() && !rest.contains('/')
}
