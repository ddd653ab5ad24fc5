//! What one instance serves: the tools of its loaded skills, and the skill tools that load and find them.
//!
//! **Thread**: the connection's; a script runs while its caller waits.
//! Left out on purpose: how skills are found, loaded and run (`skills.rs`).

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::endpoint::outlet::Outlet;
use crate::endpoint::service::{
    Answer, Asking, Call, CallMethod, Failure, Payload, Service, encoded, unknown_prompt, unknown_resource,
    unknown_tool,
};
use crate::front::Site;
use crate::hash::fnv64;
use crate::http::head::RequestHead;
use crate::http::server::Exchange;
use crate::json;
use crate::jsonrpc::{self, ErrorObject};
use crate::mcp::lists::{ListObject, ListResult, Listed};
use crate::mcp::mirror::Mirror;
use crate::mcp::params::{CompleteArgument, CompleteParams};
use crate::mcp::tasks::TaskSupport;
use crate::mcp::{RawObject, Revision, Tool};
use crate::metrics::Route;
use crate::session::State;
use crate::skills::Skills;
use crate::skills::child::Cancel;
use crate::skills::offer::Offer;
use crate::skills::outcome::Outcome;
use crate::skills::prompt_script;
use crate::skills::prompts::Written;
use crate::skills::set::SkillTool;
use crate::skills::tools::skill_tools;
use crate::status::Status;
use crate::talk::Talk;
use crate::tasks::TaskTable;
use crate::tasks::serve::TaskService;

pub struct InstanceService {
    tasks: TaskService,
    skills: Arc<Skills>,
    lists: Mutex<Arc<Lists>>,
}

/// The routes of an instance's port.
pub struct InstanceSite {
    pub endpoint: Endpoint,
    pub status: Status,
}

/// What is listed, encoded once for each change.
struct Lists {
    offer: Arc<Offer>,
    tools: ListResult,
    prompts: ListResult,
    resources: ListResult,
    resource_templates: ListResult,
    state: State,
}

const INSTRUCTIONS: &str = "This server runs the skills of one application. list_skills and search_skills show what \
    there is; load_skill turns a skill into tools.";

impl InstanceService {
    pub fn new(skills: Arc<Skills>, tasks: TaskTable) -> InstanceService {
        let lists = Mutex::new(Arc::new(Lists::of(skills.offer())));
        InstanceService { tasks: TaskService { skills: Arc::clone(&skills), table: tasks }, skills, lists }
    }

    /// The lists as they are now.
    fn lists(&self) -> Arc<Lists> {
        let offer = self.skills.offer();
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&lists.offer, &offer) {
            *lists = Arc::new(Lists::of(offer));
        }
        Arc::clone(&lists)
    }
}

impl Lists {
    fn of(offer: Arc<Offer>) -> Lists {
        let own = skill_tools();
        let tools = own.iter().chain(offer.tools.tools.iter().map(|tool| &tool.tool)).map(Tool::raw).collect();
        Lists {
            tools: encode(Listed::Tools, tools),
            prompts: encode(Listed::Prompts, raw(&offer.prompts.encoded())),
            resources: encode(Listed::Resources, raw(&offer.resources.encoded())),
            resource_templates: encode(Listed::ResourceTemplates, raw(&offer.resources.encoded_templates())),
            state: state_of(&offer),
            offer,
        }
    }
}

fn encode(listed: Listed, objects: Vec<RawObject>) -> ListResult {
    let objects: Vec<ListObject> = objects.iter().map(ListObject::encode).collect();
    ListResult::encode(listed, &objects.iter().collect::<Vec<_>>())
}

fn raw(array: &[u8]) -> Vec<RawObject> {
    json::read(array).expect("an offer encodes as arrays of objects")
}

impl Service for InstanceService {
    fn state(&self) -> State {
        self.lists().state
    }

    fn list(&self, listed: Listed, revision: Option<Revision>) -> Result<Arc<[u8]>, ErrorObject> {
        let lists = self.lists();
        let list = match listed {
            Listed::Tools => &lists.tools,
            Listed::Prompts => &lists.prompts,
            Listed::Resources => &lists.resources,
            Listed::ResourceTemplates => &lists.resource_templates,
        };
        Ok(list.bytes(revision))
    }

    fn call(&self, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        let offer = || self.skills.offer();
        let result = match call.method {
            CallMethod::CallTool => return self.call_tool(call, outlet),
            CallMethod::GetTask | CallMethod::TaskResult | CallMethod::CancelTask | CallMethod::UpdateTask => {
                return self.tasks.serve(call, outlet);
            }
            CallMethod::GetPrompt => return self.get_prompt(call, outlet),
            CallMethod::ReadResource => offer().resources.read(&call.name)?,
            CallMethod::CompletePrompt => {
                let (argument, prompts) = (completed(call)?, &offer().prompts);
                if !prompts.contains(&call.name) {
                    return Err(unknown_prompt(&call.name).into());
                }
                completion(prompts.complete(&call.name, &argument.name, &argument.value))
            }
            CallMethod::CompleteResource => {
                let (argument, resources) = (completed(call)?, &offer().resources);
                if !resources.has_template(&call.name) && !resources.contains(&call.name) {
                    return Err(unknown_resource(&call.name).into());
                }
                completion(resources.complete(&call.name, &argument.name, &argument.value))
            }
        };
        Ok(Payload::Owned(result))
    }

    fn asking(&self, call: &Call<'_>) -> Asking {
        let (tools, offer) = (self.skills.tools(), self.skills.offer());
        let asks = match call.method {
            CallMethod::CallTool => {
                let Some(tool) = tools.find(&call.name) else { return Asking::Nobody };
                if matches!(call.tasks.decide(tool.task_support, &call.name), Ok(true)) {
                    return Asking::Elsewhere;
                }
                tool.dialog
            }
            CallMethod::GetPrompt => offer.prompts.asks(&call.name),
            _ => false,
        };
        if asks { Asking::Here } else { Asking::Nobody }
    }

    fn watch(&self, uri: &str, _: Deadline) -> Result<(), Failure> {
        // Every change is told; the hub knows who wants to hear of it.
        if self.skills.offer().resources.contains(uri) { Ok(()) } else { Err(unknown_resource(uri).into()) }
    }

    fn mirror(&self, tool: &str) -> Option<Arc<Mirror>> {
        self.skills.tools().find(tool)?.mirror.clone()
    }

    fn list_tasks(&self, owner: &str, cursor: Option<&str>, _: Deadline) -> Answer {
        self.tasks.list(owner, cursor)
    }

    fn instructions(&self) -> &str {
        INSTRUCTIONS
    }
}

impl InstanceService {
    fn call_tool(&self, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        let arguments = call.arguments.unwrap_or("{}");
        let tools = self.skills.tools();
        let found = tools.find(&call.name);
        if call.tasks.decide(found.map_or(TaskSupport::Forbidden, |tool| tool.task_support), &call.name)?
            && let Some(tool) = found
        {
            return self.tasks.begin(tool, call, outlet);
        }
        if let Some(tool) = found {
            return Ok(Payload::Owned(self.run(tool, arguments, call, outlet).json));
        }
        match self.skills.call_skill_tool(&call.name, &self::arguments(call)?) {
            Some(result) => Ok(encoded(&result)),
            // It may be known, but not loaded: then this says which skill to load.
            None => Err(self
                .skills
                .why_not(&call.name)
                .map_or_else(|| unknown_tool(&call.name), ErrorObject::invalid_params)
                .into()),
        }
    }

    fn get_prompt(&self, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        let (offer, arguments) = (self.skills.offer(), arguments(call)?);
        Ok(Payload::Owned(match offer.prompts.written(&call.name, &arguments)? {
            None => offer.prompts.get(&call.name, &arguments)?,
            Some(Written { script, arguments, description }) => {
                prompt_script::result(&self.run(script, &arguments, call, outlet), description)?
            }
        }))
    }

    /// Runs a script while its client is watched and kept from giving up.
    fn run(&self, tool: &SkillTool, arguments: &str, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Outcome {
        let cancel = Arc::new(Cancel::new());
        let canceller = Arc::clone(&cancel);
        call.ticket.on_cancel(move || canceller.cancel());
        // A duplicate, since the outlet itself is written to meanwhile.
        let client = outlet.socket().and_then(|socket| socket.try_clone_to_owned().ok());
        let watched = client.as_ref().map(|client| client.as_fd());
        let mut talk = Talk::new(call, outlet, &cancel);
        let outcome = self.skills.call(tool, arguments, call.deadline, &cancel, watched, &mut talk);
        talk.end();
        outcome
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

fn arguments(call: &Call<'_>) -> Result<Map<String, Value>, ErrorObject> {
    serde_json::from_str(call.arguments.unwrap_or("{}"))
        .map_err(|error| ErrorObject::invalid_params(format!("\"arguments\" cannot be read: {error}")))
}

/// What is to be completed, and how it begins.
fn completed(call: &Call<'_>) -> Result<CompleteArgument, ErrorObject> {
    let params: CompleteParams<'_> = serde_json::from_str(call.params)
        .map_err(|error| ErrorObject::invalid_params(format!("these params do not fit the method: {error}")))?;
    Ok(params.argument.0)
}

fn completion(values: Vec<String>) -> Vec<u8> {
    jsonrpc::to_bytes(&json!({"completion": {"total": values.len(), "hasMore": false, "values": values}}))
}

/// The marks of what is offered. A resource that changes is no change of the list.
pub fn state_of(offer: &Offer) -> State {
    let mark = |list: &[u8]| fnv64(list) as u32;
    let (resources, templates) = (offer.resources.encoded(), offer.resources.encoded_templates());
    State {
        tools: mark(&offer.tools.encoded()),
        prompts: mark(&offer.prompts.encoded()),
        resources: mark(&resources) ^ mark(&templates).rotate_left(1),
    }
}
