//! Published tool names: what every client accepts, whatever the instance calls its tool.

use std::collections::HashSet;

use serde_json::json;

use crate::backend::{Backend, Manner, tool};
use crate::client::{R06, Session};
use crate::program::{Start, World};
use crate::wait::{PATIENCE, until_some};

#[test]
fn every_name_is_published_in_a_form_that_clients_accept() {
    let long = "x".repeat(200);
    let longer = format!("{long}y");
    let originals = [
        "plain",
        "with-dash",
        "with.dot",
        "with_dot",
        "with/slash",
        "with slash",
        "geometry__create",
        "UPPER",
        "\u{e9}\u{4e16}\u{754c}",
        "a:b",
        "a;b",
        &long,
        &longer,
        "-",
        "_",
        "0",
    ];
    let world = World::new();
    let _gateway = world.start(Start::new());
    let backend =
        Backend::start(Manner::Json(json!({"content": []})), originals.iter().map(|name| tool(name)).collect());
    let _entry = backend.register(&world.registry(), "maya");
    let mut session = Session::open(world.gateway(), R06);
    let prefix = format!("{}__", backend.short());
    let published = until_some(PATIENCE, "the tools are listed", || {
        let tools = session.tools();
        let of_backend: Vec<_> =
            tools.into_iter().filter(|tool| tool["_meta"]["io.dcc-mcp/instance"] == backend.id.as_str()).collect();
        (of_backend.len() == originals.len()).then_some(of_backend)
    });
    let mut names = HashSet::new();
    for tool in &published {
        let name = tool["name"].as_str().expect("a name");
        assert!(name.starts_with(&prefix), "{name}");
        assert!(
            name.len() <= 60 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
            "{name}"
        );
        assert!(names.insert(name.to_owned()), "{name} is there once");
        assert_eq!(tool["_meta"]["io.dcc-mcp/dcc"], "maya");
        let original = tool["_meta"]["io.dcc-mcp/tool"].as_str().expect("the original name");
        assert!(originals.contains(&original), "{original}");
        session.call(name, json!({}));
        let arrived = backend.requests_of("tools/call");
        assert_eq!(arrived.last().expect("it was called")["params"]["name"], json!(original), "called as {name}");
    }
    for plain in ["plain", "with-dash", "with_dot", "geometry__create", "UPPER"] {
        assert!(names.contains(&format!("{prefix}{plain}")), "{plain} needs no change");
    }
}

#[test]
fn names_and_order_do_not_depend_on_others() {
    let world = World::new();
    let _gateway = world.start(Start::new());
    let answer = || Manner::Json(json!({"content": []}));
    let first = Backend::start(answer(), ["b.x", "b/x", "a", &"z".repeat(90)].map(tool).into());
    let _first = first.register(&world.registry(), "maya");
    let mut session = Session::open(world.gateway(), R06);
    let prefix = format!("{}__", first.short());
    let mut of_first = |count: usize| {
        until_some(PATIENCE, "the tools are listed", || {
            let names = session.tool_names();
            let instances = names.iter().filter_map(|name| name.split_once("__")).map(|(short, _)| short);
            let instances: HashSet<_> = instances.collect();
            if instances.len() < count {
                return None;
            }
            Some(names.iter().filter(|name| name.starts_with(&prefix)).cloned().collect::<Vec<_>>())
        })
    };
    let alone = of_first(1);
    let others: Vec<_> = ["blender", "zbrush", "maya"]
        .into_iter()
        .map(|dcc| (Backend::start(answer(), ["b.x", "a"].map(tool).into()), dcc))
        .collect();
    let _entries: Vec<_> = others.iter().map(|(backend, dcc)| backend.register(&world.registry(), dcc)).collect();
    assert_eq!(of_first(4), alone);

    let tools = session.tools();
    let keys: Vec<_> = tools
        .iter()
        .filter(|tool| tool["_meta"]["io.dcc-mcp/instance"].is_string())
        .map(|tool| {
            ["io.dcc-mcp/dcc", "io.dcc-mcp/instance"].map(|key| tool["_meta"][key].as_str().unwrap_or("").to_owned())
        })
        .collect();
    assert!(keys.is_sorted(), "by application type, then instance: {keys:?}");
    let first_of_instance = tools.iter().position(|tool| tool["_meta"]["io.dcc-mcp/instance"].is_string());
    let last_meta = tools.iter().rposition(|tool| !tool["_meta"]["io.dcc-mcp/instance"].is_string());
    assert!(last_meta < first_of_instance, "the gateway's own tools come first");
    assert_eq!(session.tools(), tools, "the same answer again");
}
