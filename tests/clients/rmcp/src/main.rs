//! The checks of `rmcp`, the official Rust client; the plan of `run.py`, a JSON object, is the only argument. Every
//! check is one line on standard output: `ok NAME` or `not ok NAME: why`; what was seen is `fact NAME VALUE`.

use std::fmt::Debug;
use std::future::Future;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationCapability, FormElicitationCapability, Implementation, ProgressNotificationParam,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ErrorData, RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(15);
/// Right after the gateway was killed.
const CALLS_AT_ONCE: usize = 10;

/// What the server tells and asks.
#[derive(Clone, Default)]
struct Heard {
    steps: Arc<Mutex<Vec<(f64, Option<f64>)>>>,
    changed: Arc<Notify>,
}

type Client = RunningService<RoleClient, Heard>;

impl ClientHandler for Heard {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(ElicitationCapability::new().with_form(FormElicitationCapability::new()));
        ClientConfig::new(capabilities, Implementation::new("clients", "1"))
    }

    async fn create_elicitation(
        &self,
        _params: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"yes": true})))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.steps.lock().expect("nobody panics with it").push((params.progress, params.total));
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan: Value = serde_json::from_str(&std::env::args().nth(1).expect("a plan")).expect("a JSON object");
    let heard = Heard::default();
    let transport = StreamableHttpClientTransport::from_uri(text(&plan["url"]));
    let client = match heard.clone().serve(transport).await {
        Ok(client) => client,
        Err(error) => return say(&format!("not ok initialize: {error}")),
    };
    match text(&plan["part"]).as_str() {
        "pages" => say(&format!("fact pages {}", names(&client).await.map_or(0, |names| names.len()))),
        "lost" => lost(&client, &plan).await,
        _ => checks(&client, &heard, &plan).await,
    }
    let _ = client.cancel().await;
    say("ok close");
}

async fn checks(client: &Client, heard: &Heard, plan: &Value) {
    check("initialize", async {
        let peer = client.peer_info().ok_or("no answer")?;
        say(&format!("fact revision {}", peer.protocol_version));
        let name = peer.server_info.as_ref().map(|info| info.name.clone());
        equal(name.as_deref(), Some("dcc-mcp-server"))
    })
    .await;
    check("tools/list", async {
        let names = names(client).await?;
        for wanted in [text(&plan["tool"]), text(&plan["render_tool"]), "list_dcc_instances".to_owned()] {
            equal(names.contains(&wanted), true).map_err(|_| format!("{wanted} is not in {names:?}"))?;
        }
        Ok(())
    })
    .await;
    check("structured result", async {
        let result = call(client, &plan["tool"], &plan["arguments"]).await?;
        let found = result.structured_content.ok_or("no structured content")?;
        for (key, value) in plan["expected"].as_object().into_iter().flatten() {
            equal(&found[key], value)?;
        }
        Ok(())
    })
    .await;
    for (what, arguments) in [("progress", &plan["render"]), ("elicitation", &plan["render_again"])] {
        check(what, async {
            heard.steps.lock().expect("nobody panics with it").clear();
            let result = call(client, &plan["render_tool"], arguments).await?;
            equal(result.is_error.unwrap_or(false), false).map_err(|_| format!("{result:?}"))?;
            let steps = heard.steps.lock().expect("nobody panics with it").clone();
            equal(steps, vec![(1.0, Some(3.0)), (2.0, Some(3.0)), (3.0, Some(3.0))])
        })
        .await;
    }
    check("a failure is a result", async {
        let result = call(client, &plan["tool"], &plan["bad_arguments"]).await?;
        equal(result.is_error, Some(true))
    })
    .await;
    check("an unknown tool is -32602", async {
        match call_tool(client, &json!("no_such_tool"), &json!({})).await {
            Err(ServiceError::McpError(error)) => equal(error.code.0, -32602),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    check("list_changed", async {
        equal(names(client).await?.contains(&text(&plan["new_tool"])), false)?;
        call(client, &json!("load_skill"), &plan["load"]).await?;
        heard.changed.notified().await;
        equal(names(client).await?.contains(&text(&plan["new_tool"])), true)
    })
    .await;
    check("the gateway is killed and no call after it is lost", async {
        say("waiting");
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await; // it is dead now
        for _ in 0..CALLS_AT_ONCE {
            let result = call(client, &json!("list_dcc_instances"), &json!({})).await?;
            equal(result.is_error.unwrap_or(false), false)?;
        }
        heard.changed.notified().await;
        say("fact told list_changed");
        equal(names(client).await?.contains(&text(&plan["away_tool"])), true)?;
        let result = call(client, &plan["away_tool"], &json!({"still": "here"})).await?;
        equal(result.structured_content, Some(json!({"still": "here"})))
    })
    .await;
}

/// A call is under way when the gateway is killed: what becomes of it, and of the client.
async fn lost(client: &Client, plan: &Value) {
    say("waiting");
    let outcome = match call(client, &plan["slow_tool"], &json!({})).await {
        Ok(_) => "answered".to_owned(),
        Err(error) => error,
    };
    say(&format!("fact call {outcome}"));
    let alive = call(client, &json!("list_dcc_instances"), &json!({})).await;
    say(&format!("fact next {}", alive.map_or_else(|error| error, |_| "answered".to_owned())));
}

async fn check(what: &str, step: impl Future<Output = Result<(), String>>) {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(Ok(())) => say(&format!("ok {what}")),
        Ok(Err(error)) => say(&format!("not ok {what}: {}", error.replace('\n', " "))),
        Err(_) => say(&format!("not ok {what}: nothing after {PATIENCE:?}")),
    }
}

async fn names(client: &Client) -> Result<Vec<String>, String> {
    let tools = client.list_all_tools().await.map_err(|error| error.to_string())?;
    Ok(tools.into_iter().map(|tool| tool.name.into_owned()).collect())
}

async fn call(client: &Client, name: &Value, arguments: &Value) -> Result<CallToolResult, String> {
    call_tool(client, name, arguments).await.map_err(|error| error.to_string().replace('\n', " "))
}

async fn call_tool(client: &Client, name: &Value, arguments: &Value) -> Result<CallToolResult, ServiceError> {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    client.call_tool(CallToolRequestParams::new(text(name)).with_arguments(arguments)).await
}

fn equal<T: PartialEq + Debug>(found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found:?} is not {expected:?}")) }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
