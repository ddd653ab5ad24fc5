//! The example skills and those in `docs/skills.md` do what they say. Python and Node are needed, as for all tests.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::jsonrpc::ErrorObject;
use crate::skills::arguments::ArgumentRules;
use crate::skills::child::Cancel;
use crate::skills::dialog::{Answer, Dialog};
use crate::skills::testing::Folder;
use crate::skills::{Load, Skills, SkillsConfig};

/// The instance that the examples run in.
struct Bench(Skills);

impl Bench {
    fn start(path: PathBuf) -> Bench {
        let config = SkillsConfig {
            paths: vec![path],
            dcc: String::new(),
            load: Load::All,
            call_timeout: Duration::from_secs(60),
        };
        let bench = Bench(Skills::start(config, Box::new(|_, _| {})).expect("a thread can be started"));
        for found in bench.ask("list_skills", json!({}))["skills"].as_array().into_iter().flatten() {
            assert_eq!(found["status"], "loaded", "{found}");
        }
        bench
    }

    fn ask(&self, tool: &str, arguments: Value) -> Value {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let result = self.0.call_skill_tool(tool, &arguments).expect("there is such a tool");
        result.structured_content.expect("it worked")
    }

    fn result(&self, tool: &str, arguments: &Value) -> Value {
        self.talk(tool, arguments, &mut || {})
    }

    fn talk(&self, tool: &str, arguments: &Value, dialog: &mut dyn Dialog) -> Value {
        let tools = self.0.tools();
        let tool = tools.find(tool).unwrap_or_else(|| panic!("there is no tool {tool}"));
        let deadline = Deadline::after(Duration::from_secs(60));
        let outcome = self.0.call(tool, &arguments.to_string(), deadline, &Cancel::new(), None, dialog);
        let result: Value = serde_json::from_slice(&outcome.json).expect("a result is JSON");
        if let (Some(schema), false) = (&tool.tool.output_schema, outcome.is_error) {
            let object: &Map<String, Value> = result["structuredContent"].as_object().expect("it is structured");
            assert_eq!(ArgumentRules::of(schema.get()).check(object), Ok(()), "{}", tool.tool.name);
        }
        result
    }

    /// The structured content of a call that works.
    fn call(&self, tool: &str, arguments: Value) -> Value {
        let result = self.result(tool, &arguments);
        assert_eq!(result.get("isError"), None, "{tool}: {result}");
        result["structuredContent"].clone()
    }

    /// The text of a call that fails.
    fn failure(&self, tool: &str, arguments: Value) -> String {
        let result = self.result(tool, &arguments);
        assert_eq!(result["isError"], true, "{tool}: {result}");
        result["content"][0]["text"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn docs() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"))
}

fn file(name: &str) -> String {
    docs().join("examples/files").join(name).display().to_string()
}

fn start() -> Bench {
    Bench::start(docs().join("examples/skills"))
}

#[test]
fn a_mesh_is_inspected_converted_and_transformed() {
    let (bench, out) = (start(), Folder::new());
    let to = |name: &str| out.path().join(name).display().to_string();
    let cube = bench.call("mesh_tools__inspect_obj", json!({"file": file("cube.obj")}));
    assert_eq!((&cube["vertices"], &cube["triangles"]), (&json!(8), &json!(12)));
    assert_eq!((&cube["materials"], &cube["bounds"]["size"]), (&json!(["painted", "metal"]), &json!([2.0, 2.0, 2.0])));

    let gltf = json!({"file": file("cube.obj"), "format": "gltf", "output": to("cube.gltf")});
    assert_eq!(bench.call("convert_obj", gltf.clone())["parts"], json!(["painted", "metal"]));
    let written: Value =
        serde_json::from_str(&fs::read_to_string(to("cube.gltf")).expect("it was written")).expect("JSON");
    assert_eq!(written["asset"]["version"], "2.0");
    let primitives = written["meshes"][0]["primitives"].as_array().expect("a mesh has primitives");
    let indices =
        primitives.iter().map(|part| &written["accessors"][part["indices"].as_u64().unwrap_or(999) as usize]["count"]);
    assert_eq!(indices.filter_map(Value::as_u64).sum::<u64>(), 36);
    for view in written["bufferViews"].as_array().into_iter().flatten() {
        let end = view["byteOffset"].as_u64().unwrap_or(0) + view["byteLength"].as_u64().unwrap_or(0);
        assert!(end <= written["buffers"][0]["byteLength"].as_u64().unwrap_or(0));
    }
    assert!(bench.failure("convert_obj", gltf).contains("is there already; set overwrite to replace it"));

    bench.call("convert_obj", json!({"file": file("vase.obj"), "format": "usda", "output": to("vase.usda")}));
    let usda = fs::read_to_string(to("vase.usda")).expect("it was written");
    assert!(usda.starts_with("#usda 1.0\n") && usda.contains("int[] faceVertexCounts = [3, 3"), "{usda}");

    let moved = json!({"file": file("cube.obj"), "output": to("big.obj"), "scale": 2.5, "place": "centre"});
    bench.call("transform_obj", moved);
    let big = bench.call("inspect_obj", json!({"file": to("big.obj")}));
    assert_eq!(big["bounds"]["min"], json!([-2.5, -2.5, -2.5]));
    assert_eq!(big["materials"], cube["materials"]);

    out.write("bad.obj", "v 1 2 3\nf 1 2 3\n");
    assert!(
        bench
            .failure("inspect_obj", json!({"file": to("bad.obj")}))
            .contains("bad.obj:2: the index 2 points to nothing")
    );
    assert!(bench.failure("inspect_obj", json!({"file": to("none.obj")})).contains("No such file"));
    assert!(bench.failure("inspect_obj", json!({})).contains("the argument \"file\" (string) is missing"));
}

#[test]
fn a_prompt_brings_what_it_needs() {
    let bench = start();
    let offer = bench.0.offer();
    let arguments = json!({"file": "a.obj", "purpose": "film"});
    let result = offer.prompts.get("review_mesh", arguments.as_object().expect("an object")).expect("there is one");
    let result: Value = serde_json::from_slice(&result).expect("a result is JSON");
    let (format, task) = (&result["messages"][0]["content"], &result["messages"][1]["content"]["text"]);
    assert_eq!((&format["type"], &format["resource"]["mimeType"]), (&json!("resource"), &json!("text/markdown")));
    assert!(format["resource"]["text"].as_str().is_some_and(|text| text.starts_with("# Wavefront OBJ")), "{format}");
    assert!(task.as_str().is_some_and(|text| text.contains("in a.obj with mesh_tools__inspect_obj")), "{task}");
    assert!(task.as_str().is_some_and(|text| text.ends_with("if it is known: film")), "{task}");
    assert_eq!(offer.prompts.complete("mesh_tools__review_mesh", "purpose", "3"), ["3d-print"]);
    assert!(bench.0.tools().find("mesh_tools__inspect_obj").is_some(), "the prompt names it");
}

#[test]
fn images_are_described_averaged_and_put_on_a_sheet() {
    let (bench, out) = (start(), Folder::new());
    let sheet = out.path().join("sheet.png").display().to_string();
    let (checker, gradient) = (file("textures/checker.png"), file("textures/gradient.png"));
    let info = bench.call("image_tools__png_info", json!({"file": checker}));
    assert_eq!(
        (&info["width"], &info["colour_type"], &info["text"]["Title"]),
        (&json!(64), &json!("rgb"), &json!("Checker"))
    );
    assert_eq!((&info["broken_chunks"], &info["gamma"]), (&json!([]), &json!(0.45455)));
    // Half (220, 60, 40), half (245, 240, 230).
    assert_eq!(bench.call("average_colour", json!({"file": checker}))["rgb"], json!([232.5, 150.0, 135.0]));
    assert_eq!(bench.call("average_colour", json!({"file": gradient}))["pixels"], 48 * 32);
    let sizes = bench.call("image_size", json!({"files": [gradient, file("cube.obj")]}));
    assert_eq!((&sizes["images"][0]["width"], &sizes["images"][0]["format"]), (&json!(48), &json!("png")));
    assert!(sizes["images"][1]["error"].is_string());

    assert!(bench.0.tools().find("contact_sheet").is_none(), "its group is not active");
    bench.ask("activate_tool_group", json!({"group": "write"}));
    let made = bench.call("contact_sheet", json!({"files": [checker, gradient], "output": sheet, "size": 32}));
    assert_eq!((&made["width"], &made["height"]), (&json!(64), &json!(32)));
    let info = bench.call("png_info", json!({"file": sheet}));
    assert_eq!((&info["width"], &info["height"], &info["broken_chunks"]), (&json!(64), &json!(32), &json!([])));
    assert!(bench.failure("png_info", json!({"file": file("cube.obj")})).contains("is not a PNG file"));
}

#[test]
fn scenes_are_reported_on() {
    let bench = start();
    for (name, textures, missing) in [
        ("cube.obj", 2, "textures/brushed.png"),
        ("cube.mtl", 2, "textures/brushed.png"),
        ("scene.usda", 2, "./textures/grunge.exr"),
    ] {
        let report = bench.call("missing_textures", json!({"file": file(name)}));
        assert_eq!((&report["textures"], &report["missing"]), (&json!(textures), &json!([missing])), "{name}");
    }
    let usage = bench.call("scene_report__disk_usage", json!({"folder": file("")}));
    assert_eq!((&usage["files"], &usage["by_type"]["png"]["files"]), (&json!(6), &json!(2)));
    assert!(bench.failure("disk_usage", json!({"folder": "/no/such/folder"})).contains("exit code 2"));
}

/// A client whose user is asked one thing, and says the same each time.
struct User {
    question: &'static str,
    says: Value,
    told: Vec<(String, Value)>,
    asked: Vec<u64>,
    pipe: (io::PipeReader, io::PipeWriter),
}

impl User {
    fn new(yes: bool) -> User {
        User::asked("Replace 2 frames in", json!({"action": "accept", "content": {"yes": yes}}))
    }

    fn asked(question: &'static str, says: Value) -> User {
        User { question, says, told: Vec::new(), asked: Vec::new(), pipe: io::pipe().expect("a pipe can be made") }
    }

    fn levels(&self) -> Vec<&str> {
        self.told.iter().filter_map(|(_, params)| params["level"].as_str()).collect()
    }

    fn steps(&self) -> Vec<u64> {
        self.told.iter().filter_map(|(_, params)| params["progress"].as_u64()).collect()
    }
}

impl Dialog for User {
    fn idle(&mut self) {}

    fn tell(&mut self, method: &str, params: &str) {
        self.told.push((method.to_owned(), serde_json::from_str(params).expect("params are JSON")));
    }

    fn ask(&mut self, _: &str, method: &str, params: &str) -> Result<u64, ErrorObject> {
        assert!(method == "elicitation/create" && params.contains(self.question), "{method} {params}");
        self.asked.push(1);
        self.pipe.1.write_all(b"x").map(|()| 1).map_err(|_| ErrorObject::invalid_params("no pipe"))
    }

    fn answers(&self) -> Option<BorrowedFd<'_>> {
        Some(self.pipe.0.as_fd())
    }

    fn answer(&mut self) -> Option<(u64, Answer)> {
        let number = self.asked.pop()?;
        self.pipe.0.read_exact(&mut [0]).ok()?;
        Some((number, Ok(self.says.to_string().into_bytes())))
    }
}

#[test]
fn a_turntable_tells_how_far_it_is_and_asks_before_it_replaces() {
    let (bench, out) = (start(), Folder::new());
    let folder = out.path().join("frames").display().to_string();
    let arguments = json!({"file": file("cube.obj"), "folder": folder, "frames": 2, "size": 32});
    let mut user = User::new(true);
    let made = bench.talk("render_preview__turntable", &arguments, &mut user);
    assert_eq!(made["structuredContent"]["frames"], json!(["frame.0001.png", "frame.0002.png"]), "{made}");
    assert_eq!((user.steps(), user.levels()), (vec![1, 2], vec!["info"]));
    let info = bench.call("png_info", json!({"file": format!("{folder}/frame.0002.png")}));
    assert_eq!((&info["width"], &info["broken_chunks"]), (&json!(32), &json!([])));

    let mut yes = User::new(true);
    assert_eq!(bench.talk("turntable", &arguments, &mut yes).get("isError"), None);
    assert_eq!(yes.steps(), [1, 2]);
    let mut no = User::new(false);
    let kept = bench.talk("turntable", &arguments, &mut no);
    assert_eq!((&kept["isError"], no.steps().len()), (&json!(true), 0), "{kept}");
    let nobody = bench.failure("turntable", arguments.clone());
    assert!(nobody.contains("2 frames are there already") && nobody.contains("set overwrite"), "{nobody}");
    let mut arguments = arguments;
    arguments["overwrite"] = json!(true);
    bench.call("turntable", arguments);
    assert!(bench.failure("turntable", json!({"file": file("cube.mtl"), "folder": folder})).contains("has no faces"));
}

#[test]
fn names_are_checked_and_each_bad_one_is_told() {
    let (bench, out) = (start(), Folder::new());
    for name in ["good.obj", "a \"b\\c.obj", "tall.OBJ", "none"] {
        out.write(name, "");
    }
    let mut user = User::new(true);
    let result = bench.talk("check_names", &json!({"folder": out.path()}), &mut user);
    assert_eq!(result["structuredContent"], json!({"files": 4, "bad": 3}), "{result}");
    assert_eq!(user.levels(), ["info", "warning", "warning", "warning"]);
    assert_eq!(user.steps(), [1, 2, 3, 4]);
    let texts: Vec<&str> = user.told.iter().filter_map(|(_, params)| params["data"].as_str()).collect();
    assert!(texts.contains(&"a \"b\\c.obj has a blank"), "{texts:?}");
}

#[test]
fn names_are_tidied_as_the_user_says() {
    let bench = start();
    for (says, expected, left) in [
        (json!({"action": "accept", "content": {"sign": "-"}}), "2 of 2 files are renamed", ["a-b.obj", "c-d-e", "f"]),
        (json!({"content": {"sign": "_"}, "action": "accept"}), "2 of 2 files are renamed", ["a_b.obj", "c_d_e", "f"]),
        (json!({"action": "decline"}), "the user did not want it", ["a b.obj", "c d e", "f"]),
    ] {
        let out = Folder::new();
        for name in ["a b.obj", "c d e", "f"] {
            out.write(name, "");
        }
        let mut user = User::asked("Rename 2 files in", says);
        let result = bench.talk("tidy_names", &json!({"folder": out.path()}), &mut user);
        assert!(result["content"][0]["text"].as_str().is_some_and(|text| text.contains(expected)), "{result}");
        let mut names: Vec<String> = fs::read_dir(out.path())
            .expect("the folder is there")
            .flatten()
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, left);
        let nobody = bench.result("tidy_names", &json!({"folder": out.path()}));
        assert_eq!(nobody["isError"] == true, expected.starts_with("the user"), "{nobody}");
    }
}

/// The files shown in `docs/skills.md` are skills that load, and their examples of calls work.
#[test]
fn the_guide_shows_skills_that_work() {
    let guide = fs::read_to_string(docs().join("skills.md")).expect("the guide is there");
    let folder = Folder::new();
    let mut lines = guide.lines().peekable();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).filter(|name| name.contains('/'));
        if let (Some(name), true) = (name, lines.peek().is_some_and(|next| next.starts_with("```"))) {
            lines.next();
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            folder.write(name, &(text.join("\n") + "\n"));
        }
    }
    let bench = Bench::start(folder.path().to_owned());
    bench.ask("activate_tool_group", json!({"group": "more"}));
    let mut answers = Vec::new();
    for skill in ["clock", "bakery", "greeter", "words"] {
        let about = bench.ask("get_skill_info", json!({"skill_name": skill}));
        for tool in about["tools"].as_array().into_iter().flatten() {
            let example = tool["call_examples"].get(0).cloned().unwrap_or_else(|| json!({}));
            answers.push(bench.call(tool["name"].as_str().unwrap_or_default(), example));
        }
    }
    let offer = bench.0.offer();
    for (prompt, expected) in [
        ("notes__review", "Write review notes for the shot sh010. Tone: \n"),
        ("review_in_style", "# Style of notes\nOne line each; what, where, until when.\n"),
    ] {
        let arguments = Map::from_iter([("shot".to_owned(), json!("sh010"))]);
        let result = offer.prompts.get(prompt, &arguments).expect("there is such a prompt");
        let result: Value = serde_json::from_slice(&result).expect("a result is JSON");
        let content = &result["messages"][0]["content"];
        assert_eq!(content.get("resource").unwrap_or(content)["text"], expected);
    }
    for (uri, expected) in [
        ("skill://notes/resources/style.md", "One line each"),
        ("studio://shots", "sh020"),
        ("studio://shots/sh010/brief", "The brief of sh010 is"),
    ] {
        let result = offer.resources.read(uri).expect("there is such a resource");
        assert!(String::from_utf8_lossy(&result).contains(expected), "{uri}");
    }
    assert_eq!(offer.resources.list().len(), 2);
    let year = answers[0]["message"].as_str().and_then(|time| time.get(..2));
    assert_eq!(year, Some("20"));
    assert_eq!(
        answers[1..],
        [
            json!({"maps": 2}),
            json!({"greeting": "Hello, Ada!"}),
            json!({"words": 3}),
            json!({"success": true, "message": "three"})
        ]
    );
}
