//! Files in the registry folder that are torn, too big, of a newer form, or somebody else's.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::backend::{Backend, Manner, tool, write_rows};
use crate::client::{R06, Session, text_of};
use crate::folder::{write, write_by_rename};
use crate::program::{Start, World, fresh_id};
use crate::wait::{PATIENCE, throughout, until};

#[test]
fn entries_that_cannot_be_used_are_skipped_named_once_and_never_deleted() {
    let world = World::new();
    let _first = world.start(Start::new());
    let backend = Backend::start(Manner::Json(json!({"content": []})), vec![]);
    let folder = world.registry().join("instances");
    let good = backend.entry("maya");
    let with = |field: &str, value: serde_json::Value| {
        let mut entry = good.clone();
        entry["instance_id"] = json!(fresh_id());
        entry[field] = value;
        entry
    };
    let mut bad = vec![
        ("torn.json".to_owned(), good.to_string()[..100].to_owned()),
        ("nul.json".to_owned(), "\0".repeat(500)),
        ("empty.json".to_owned(), String::new()),
        ("list.json".to_owned(), "[]".to_owned()),
    ];
    for entry in [
        with("schema", json!(99)),
        with("padding", json!("x".repeat(70 * 1024))),
        with("port", json!(0)),
        with("port", json!(70_000)),
        with("host", json!("0.0.0.0")),
        with("host", json!("")),
        with("heartbeat", json!("yesterday")),
    ] {
        bad.push((format!("{}.json", entry["instance_id"].as_str().unwrap_or("")), entry.to_string()));
    }
    bad.push((format!("{}.json", fresh_id()), good.to_string()));
    // One scan names no more than eight of them, so that they come in two halves.
    let (early, late) = bad.split_at(bad.len() / 2);
    let put = |files: &[(String, String)]| {
        files.iter().for_each(|(name, text)| write_by_rename(&folder.join(name), text));
    };
    put(early);
    fs::create_dir(folder.join("folder.json")).expect("a folder");
    std::os::unix::fs::symlink("/etc/hostname", folder.join("link.json")).expect("a link");
    write(&folder.join("notes.txt"), "not an entry");
    let _good = backend.register_as(&world.registry(), good);

    world.wait_instances(2);
    let observer = world.start(Start::new());
    world.wait_instances(3);
    put(late);
    until(PATIENCE, "the other half is seen", || {
        late.iter().all(|(name, _)| observer.stderr().contains(name.as_str()))
    });
    throughout(Duration::from_millis(1500), "only the good ones are listed", || {
        world.instances().is_some_and(|list| list.len() == 3)
    });
    for (name, text) in &bad {
        assert_eq!(fs::read_to_string(folder.join(name)).ok().as_ref(), Some(text), "{name} is left as it was");
        let log = observer.stderr();
        let count = log.matches(name.as_str()).count();
        assert_eq!(count, 1, "{name} is named once in the log:\n{log}");
    }
    assert!(
        folder.join("folder.json").is_dir() && folder.join("link.json").exists() && folder.join("notes.txt").exists()
    );
}

#[test]
fn unknown_fields_of_an_entry_are_ignored() {
    let world = World::new();
    let _gateway = world.start(Start::new());
    let backend = Backend::start(Manner::Json(json!({"content": []})), vec![tool("go")]);
    let mut entry = backend.entry("maya");
    entry["from_the_future"] = json!({"a": [1]});
    entry["status"] = json!("dreaming");
    let _entry = backend.register_as(&world.registry(), entry);
    let mut session = Session::open(world.gateway(), R06);
    let name = format!("{}__go", backend.short());
    until(PATIENCE, "its tool is listed", || session.tool_names().contains(&name));
}

#[test]
fn a_published_tool_list_is_taken_without_asking_the_instance() {
    let world = World::new();
    let _gateway = world.start(Start::new());
    let backend = Backend::start(Manner::Json(json!({"content": [{"type": "text", "text": "ok"}]})), vec![tool("go")]);
    let _entry = backend.register_published(&world.registry(), "maya");
    let mut session = Session::open(world.gateway(), R06);
    let name = format!("{}__go", backend.short());
    until(PATIENCE, "its tool is listed", || session.tool_names().contains(&name));
    assert!(backend.requests_of("tools/list").is_empty(), "nobody asked: {:?}", backend.requests());
    assert_eq!(text_of(&session.call(&name, json!({}))), "ok");
}

#[test]
fn rows_of_existing_adapters_are_served_and_their_file_is_only_read() {
    let world = World::new();
    let tools: Vec<_> = (0..70).map(|number| tool(&format!("tool_{number:02}"))).collect();
    let result = json!({"content": [{"type": "text", "text": "from another adapter"}, {"type": "image", "data": "AA==", "mimeType": "image/png"}]});
    let maya = Backend::start_foreign(Manner::Json(result.clone()), tools);
    let houdini = Backend::start_foreign(Manner::Stream { steps: 0, result: result.clone() }, vec![tool("cook")]);
    let registry = world.registry();
    let maya_row = maya.foreign_row(&registry, "maya");
    let mut houdini_row = houdini.foreign_row(&registry, "houdini");
    houdini_row.row["schema_version"] = json!(99);
    let dead = fresh_id();
    let rows = [
        maya_row.row.clone(),
        json!({"dcc_type": 7}),
        houdini_row.row.clone(),
        json!({"dcc_type": "__gateway__", "instance_id": fresh_id(), "host": "127.0.0.1", "port": 9765}),
        json!({"dcc_type": "maya", "instance_id": dead, "host": "127.0.0.1", "port": maya.address.port(),
            "sentinel_path": registry.join("locks/nobody.lock").display().to_string()}),
        json!("a row that is a string"),
    ];
    write_rows(&registry, &rows);
    let before = fs::read(registry.join("services.json")).expect("the rows");

    let _gateway = world.start(Start::new());
    let listed = world.wait_instances(3);
    let shown = listed.iter().find(|entry| entry["instance_id"] == json!(maya.id)).expect("the row is listed");
    assert_eq!((&shown["dcc_type"], &shown["scene"]), (&json!("maya"), &json!("/scenes/shot010.ma")));
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "all pages of its tools are listed", || {
        session.tool_names().iter().filter(|name| name.starts_with(maya.short())).count() == 70
    });
    assert_eq!(session.call(&format!("{}__tool_69", maya.short()), json!({})), result);
    let cook = format!("{}__cook", houdini.short());
    until(PATIENCE, "an unknown schema_version is read for what is understood", || {
        session.tool_names().contains(&cook)
    });
    assert_eq!(session.call(&cook, json!({})), result);

    drop(maya_row);
    until(PATIENCE, "the owner of the sentinel is dead", || {
        session.tool_names().iter().all(|name| !name.starts_with(maya.short()))
    });
    assert!(session.tool_names().contains(&cook), "the other one stays");
    assert_eq!(fs::read(registry.join("services.json")).expect("the rows"), before, "never written");
}

#[test]
fn a_changed_tool_list_of_an_adapter_is_noticed() {
    let world = World::new();
    let backend = Backend::start_foreign(Manner::Json(json!({"content": []})), vec![tool("old")]);
    let row = backend.foreign_row(&world.registry(), "maya");
    write_rows(&world.registry(), std::slice::from_ref(&row.row));
    let _gateway = world.start(Start::new());
    let mut session = Session::open(world.gateway(), R06);
    let (old, new) = (format!("{}__old", backend.short()), format!("{}__new", backend.short()));
    until(PATIENCE, "its tool is listed", || session.tool_names().contains(&old));
    let mut stream = session.stream(None);
    backend.set_tools(vec![tool("old"), tool("new")]);
    stream.wait_list_changed(PATIENCE);
    if !session.tool_names().contains(&new) {
        // The first may have told of the old tool still: the list is in place before it is announced.
        stream.wait_list_changed(PATIENCE);
    }
    assert!(session.tool_names().contains(&new), "listed when the notification arrives");
}

#[test]
fn a_registry_that_cannot_be_written_is_told_and_recovers() {
    let world = World::new();
    let instance = world.start(Start::new().args(["--heartbeat-interval", "1"]));
    world.wait_instances(1);
    let (folder, aside) = (world.registry(), world.path().join("aside"));
    fs::rename(&folder, &aside).expect("the folder is moved away");
    write(&folder, "a file in the folder's place");
    let readyz = || crate::client::get(world.gateway(), "/readyz").ok();
    until(PATIENCE, "/readyz says that the registry is unreachable", || {
        readyz().is_some_and(|reply| reply.status == 503 && reply.text().contains("registry"))
    });
    assert_eq!(crate::client::status(world.gateway(), "/health"), Some(200), "liveness touches nothing");
    assert_eq!(world.instances().map(|list| list.len()), Some(1), "it serves from its last snapshot");
    fs::remove_file(&folder).expect("the file goes");
    fs::rename(&aside, &folder).expect("the folder is back");
    until(Duration::from_secs(45), "it recovers by itself", || readyz().is_some_and(|reply| reply.status == 200));
    until(PATIENCE, "it is registered", || instance.is_registered());
}
