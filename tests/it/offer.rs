//! Prompts, resources and completion: what a skill offers, at its instance and through the gateway.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{R03, R06, R11, Session, modern};
use crate::folder::write;
use crate::program::{Program, Start, World};
use crate::skill::{ECHO, script};
use crate::wait::{PATIENCE, until};

const SKILL: &str = r#"---
name: shot-notes
description: Notes on shots
tools: []
prompts:
  - name: review
    title: Review a shot
    description: Asks for a review
    arguments:
      - {name: shot, description: Its name, required: true, values: [sh010, sh020, sq100]}
      - {name: tone}
    template: "Review {{shot}} in a {{tone}} tone."
resources:
  - {uri: "notes://house-style", name: house-style, mime_type: text/plain, text: "Be kind."}
  - {uri_template: "notes://shot/{shot}", name: shot, mime_type: text/plain, text: "Notes on {{shot}}."}
---
"#;

/// Writes the skill `shot-notes`, which has a prompt, a resource and a template.
pub fn write_skill(skills: &Path) {
    write(&skills.join("shot-notes/SKILL.md"), SKILL);
}

/// A gateway, and an instance that has loaded the skill.
fn start() -> (World, Program, Program) {
    let world = World::new();
    write_skill(&world.skills());
    let gateway = world.start(Start::new());
    let instance = world.start_with_skills("maya");
    world.wait_instances(2);
    (world, gateway, instance)
}

/// How a prompt and the resources are called at a port.
struct Names {
    prompt: String,
    uri: Box<dyn Fn(&str) -> String>,
}

fn both(world: &World, instance: &Program) -> Vec<(Session, Names)> {
    let id = instance.instance_id.clone();
    let gateway = Names {
        prompt: format!("{}__shot_notes__review", instance.short()),
        uri: Box::new(move |uri| format!("dcc://{id}/{uri}")),
    };
    let own = Names { prompt: "shot_notes__review".to_owned(), uri: Box::new(str::to_owned) };
    let mut through = Session::open(world.gateway(), R11);
    until(PATIENCE, "the prompt is listed", || {
        !through.result("prompts/list", json!({}))["prompts"].as_array().is_none_or(Vec::is_empty)
    });
    vec![(through, gateway), (Session::open(instance.address, R11), own)]
}

#[test]
fn prompts_are_listed_filled_in_and_completed() {
    let (world, _gateway, instance) = start();
    for (mut session, names) in both(&world, &instance) {
        let prompts = session.result("prompts/list", json!({}));
        assert_eq!(prompts["prompts"][0]["name"], json!(names.prompt));
        assert_eq!(prompts["prompts"][0]["arguments"][0]["required"], json!(true));
        let got = session
            .result("prompts/get", json!({"name": names.prompt, "arguments": {"shot": "sh010", "tone": "calm"}}));
        assert_eq!(
            got["messages"][0]["content"],
            json!({"type": "text", "text": "Review sh010 in a calm tone."}),
            "{got}"
        );
        let completed = session.result(
            "completion/complete",
            json!({
            "ref": {"type": "ref/prompt", "name": names.prompt}, "argument": {"name": "shot", "value": "sh"}}),
        );
        assert_eq!(completed["completion"]["values"], json!(["sh010", "sh020"]));
        for params in [
            json!({"name": "no_such_prompt"}),
            json!({"name": names.prompt}),
            json!({"name": names.prompt, "arguments": {}}),
        ] {
            let error = session.request("prompts/get", params.clone())["error"].clone();
            assert_eq!(error["code"], json!(-32602), "{params}: {error}");
        }
    }
}

#[test]
fn resources_are_listed_and_read_under_the_names_of_each_port() {
    let (world, _gateway, instance) = start();
    for (mut session, names) in both(&world, &instance) {
        let style = (names.uri)("notes://house-style");
        let listed = session.result("resources/list", json!({}));
        assert_eq!(listed["resources"][0]["uri"], json!(style), "{listed}");
        let read = session.result("resources/read", json!({"uri": style}));
        assert_eq!(read["contents"][0], json!({"uri": style, "mimeType": "text/plain", "text": "Be kind."}), "{read}");
        let templates = session.result("resources/templates/list", json!({}));
        assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], json!((names.uri)("notes://shot/{shot}")));
        let shot = (names.uri)("notes://shot/sh010");
        let read = session.result("resources/read", json!({"uri": shot}));
        assert_eq!(read["contents"][0]["text"], json!("Notes on sh010."), "{read}");
        let missing = (names.uri)("notes://nowhere");
        let error = session.request("resources/read", json!({"uri": missing}))["error"].clone();
        assert_eq!(error["code"], json!(-32002), "{error}");
    }
}

#[test]
fn a_resource_is_found_under_its_own_uri_where_only_one_instance_has_it() {
    let (world, _gateway, instance) = start();
    let mut session = both(&world, &instance).remove(0).0;
    let read = session.result("resources/read", json!({"uri": "notes://house-style"}));
    assert_eq!(read["contents"][0]["text"], json!("Be kind."));
    let _second = world.start_with_skills("blender");
    world.wait_instances(3);
    until(PATIENCE, "it is not known whose it is", || {
        session.request("resources/read", json!({"uri": "notes://house-style"}))["error"]["code"] == json!(-32002)
    });
}

#[test]
fn each_kind_of_list_is_told_when_it_changes() {
    let (world, _gateway, instance) = start();
    for (session, _) in both(&world, &instance) {
        let mut stream = session.stream(None);
        let mut other = Session::open(instance.address, R06);
        other.call("unload_skill", json!({"skill_name": "shot-notes"}));
        let mut told = Vec::new();
        until(PATIENCE, "both are told", || {
            told.extend(stream.next_message(PATIENCE).map(|(_, message)| message["method"].clone()));
            told.len() >= 2
        });
        told.sort_by_key(Value::to_string);
        assert_eq!(told, ["notifications/prompts/list_changed", "notifications/resources/list_changed"]);
        other.call("load_skill", json!({"skill_name": "shot-notes"}));
        until(PATIENCE, "it is back", || stream.next_message(PATIENCE).is_some());
    }
}

#[test]
fn older_revisions_are_not_sent_what_they_do_not_know() {
    let (world, _gateway, instance) = start();
    both(&world, &instance);
    for address in [world.gateway(), instance.address] {
        let listed = Session::open(address, R03).result("prompts/list", json!({}));
        assert!(listed["prompts"][0].get("title").is_none(), "2025-03-26 knows no title: {listed}");
        let listed = Session::open(address, R06).result("prompts/list", json!({}));
        assert_eq!(listed["prompts"][0]["title"], json!("Review a shot"));
    }
}

const SWATCHES: &str = r#"---
name: swatches
description: Has icons
tools:
  - {name: pick, icons: [{src: "https://studio.example/pick.png", mime_type: image/png, sizes: [48x48]}]}
prompts:
  - {name: mix, template: Mix., icons: [{src: "https://studio.example/mix.png"}]}
resources:
  - {uri: "swatch://one", name: one, text: One, icons: [{src: "data:image/svg+xml;base64,PHN2Zy8+", theme: dark}]}
  - {uri_template: "swatch://{n}", name: n, text: "{{n}}", icons: [{src: "https://studio.example/n.png"}]}
---
"#;

#[test]
fn icons_are_shown_to_revisions_that_know_them() {
    let world = World::new();
    write(&world.skills().join("swatches/SKILL.md"), SWATCHES);
    script(&world.skills().join("swatches/scripts/pick.sh"), ECHO);
    let bad = SWATCHES.replace("swatches", "bad").replace("https://studio.example/mix", "javascript:mix");
    write(&world.skills().join("bad/SKILL.md"), bad);
    let _gateway = world.start(Start::new());
    let instance = world.start_with_skills("maya");
    world.wait_instances(2);
    let warning = "bad/SKILL.md:7: `src` of an icon: clients take `https:` and `data:` URIs alone";
    until(PATIENCE, "a bad icon is named once", || instance.stderr().matches(warning).count() == 1);
    let mut session = Session::open(world.gateway(), R11);
    until(PATIENCE, "the tool is listed", || {
        session.tool_names().contains(&format!("{}__swatches__pick", instance.short()))
    });
    let all = [
        ("tools", json!([{"src": "https://studio.example/pick.png", "mimeType": "image/png", "sizes": ["48x48"]}])),
        ("prompts", json!([{"src": "https://studio.example/mix.png"}])),
        ("resources", json!([{"src": "data:image/svg+xml;base64,PHN2Zy8+", "theme": "dark"}])),
        ("resourceTemplates", json!([{"src": "https://studio.example/n.png"}])),
    ];
    for ((list, icons), address) in all.iter().flat_map(|kind| [(kind, instance.address), (kind, world.gateway())]) {
        let method = if *list == "resourceTemplates" { "resources/templates/list" } else { &format!("{list}/list") };
        let shown = |result: &Value| -> Vec<Value> {
            result[list].as_array().expect("a list").iter().filter_map(|item| item.get("icons").cloned()).collect()
        };
        for revision in [R03, R06, R11] {
            let listed = Session::open(address, revision).result(method, json!({}));
            let expected = if revision == R11 { std::slice::from_ref(icons) } else { &[] };
            assert_eq!(shown(&listed), expected, "{revision} {method}: {listed}");
        }
        let listed = modern(address, "/mcp", method, &json!({}), &json!({})).message()["result"].clone();
        assert_eq!(shown(&listed), std::slice::from_ref(icons), "{method}: {listed}");
    }
}
