//! What one instance serves: the tools of its loaded skills, and the skill tools that load and find them.
//!
//! **Thread**: the connection's; a script runs while its caller waits.
//! Left out on purpose: how skills are found, loaded and run (`skills.rs`).

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::endpoint::Endpoint;
use crate::endpoint::outlet::Outlet;
use crate::endpoint::service::{Answer, Payload, Service, ToolCall, encoded, unknown_tool};
use crate::front::Site;
use crate::hash::fnv64;
use crate::http::head::RequestHead;
use crate::http::server::Exchange;
use crate::jsonrpc::ErrorObject;
use crate::mcp::{ListToolsResult, RawTool, Revision, Tool};
use crate::metrics::Route;
use crate::session::State;
use crate::skills::Skills;
use crate::skills::child::Cancel;
use crate::skills::set::{SkillTool, ToolSet};
use crate::skills::tools::skill_tools;
use crate::status::Status;
use crate::talk::Talk;

pub struct InstanceService {
    skills: Arc<Skills>,
    listed: Mutex<Listed>,
}

/// The routes of an instance's port.
pub struct InstanceSite {
    pub endpoint: Endpoint,
    pub status: Status,
}

/// `tools/list`, encoded once for each tool set.
struct Listed {
    tools: Arc<ToolSet>,
    result: ListToolsResult,
    state: State,
}

const INSTRUCTIONS: &str = "This server runs the skills of one application. list_skills and search_skills show what \
    there is; load_skill turns a skill into tools.";

impl InstanceService {
    pub fn new(skills: Arc<Skills>) -> InstanceService {
        let listed = Mutex::new(Listed::of(skills.tools()));
        InstanceService { skills, listed }
    }

    /// The list for the tools as they are now.
    fn listed(&self) -> (ListToolsResult, State) {
        let tools = self.skills.tools();
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&listed.tools, &tools) {
            *listed = Listed::of(tools);
        }
        (listed.result.clone(), listed.state)
    }
}

impl Listed {
    fn of(tools: Arc<ToolSet>) -> Listed {
        let own = skill_tools();
        let all: Vec<RawTool> = own.iter().chain(tools.tools.iter().map(|tool| &tool.tool)).map(Tool::raw).collect();
        let result = ListToolsResult::encode(&all.iter().collect::<Vec<_>>());
        let state = state_of(&tools);
        Listed { tools, result, state }
    }
}

impl Service for InstanceService {
    fn state(&self) -> State {
        self.listed().1
    }

    fn list_tools(&self, revision: Revision) -> Result<Arc<[u8]>, ErrorObject> {
        Ok(self.listed().0.bytes(revision))
    }

    fn call_tool(&self, call: &ToolCall<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        let arguments = call.arguments.unwrap_or("{}");
        if let Some(tool) = self.skills.tools().find(&call.name) {
            return self.run(tool, arguments, call, outlet);
        }
        let arguments: Map<String, Value> = serde_json::from_str(arguments)
            .map_err(|error| ErrorObject::invalid_params(format!("\"arguments\" cannot be read: {error}")))?;
        match self.skills.call_skill_tool(&call.name, &arguments) {
            Some(result) => Ok(encoded(&result)),
            // It may be known, but not loaded: then this says which skill to load.
            None => Err(self
                .skills
                .why_not(&call.name)
                .map_or_else(|| unknown_tool(&call.name), ErrorObject::invalid_params)
                .into()),
        }
    }

    fn instructions(&self) -> &str {
        INSTRUCTIONS
    }
}

impl InstanceService {
    /// Runs a tool's script while its client is watched and kept from giving up.
    fn run(&self, tool: &SkillTool, arguments: &str, call: &ToolCall<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        let cancel = Arc::new(Cancel::new());
        let canceller = Arc::clone(&cancel);
        call.ticket.on_cancel(move || canceller.cancel());
        // A duplicate, since the outlet itself is written to meanwhile.
        let client = outlet.socket().and_then(|socket| socket.try_clone_to_owned().ok());
        let watched = client.as_ref().map(|client| client.as_fd());
        let mut talk = Talk::new(call, outlet);
        let outcome = self.skills.call(tool, arguments, call.deadline, &cancel, watched, &mut talk);
        talk.end();
        Ok(Payload::Owned(outcome.json))
    }
}

impl Site for InstanceSite {
    fn route(&self, path: &str) -> Route {
        match path {
            "/health" => Route::Health,
            "/readyz" => Route::Readyz,
            "/metrics" => Route::Metrics,
            "/mcp" => Route::Mcp,
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
        match route {
            Route::Mcp => self.endpoint.handle(request, exchange, headers),
            _ => self.status.serve(route, request, exchange, headers),
        }
    }
}

/// The mark of a tool set.
pub fn state_of(tools: &ToolSet) -> State {
    State { tools: fnv64(&tools.encoded()) as u32, ..State::default() }
}
