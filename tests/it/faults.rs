//! Faults of the registry folder that need no rights to make: what lies where a file should be, files that are
//! overwritten, junk, folders that go and come. Those that need rights are in `tests/faults/`.
//!
//! **Bounds**: the heartbeat is a second here, so that what is mended by the next one is mended soon.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::json;

use crate::backend::{Backend, Manner};
use crate::client::{R06, Session, get, status};
use crate::folder::{write, write_by_rename};
use crate::program::{Program, Start, World, fresh_id};
use crate::skill;
use crate::wait::{PATIENCE, print, promise, throughout, until};

/// Where the files of an instance and of other adapters lie.
const PLACES: [&str; 5] =
    ["instances/{}.json", "instances/.{}.json.tmp", "tools/{}.json", "tools/.{}.json.tmp", "services.json"];

/// Two pauses between scans, and what the scans take.
const TWO_SCANS: Duration = Duration::from_millis(1200);

fn beating() -> Start {
    Start::new().args(["--heartbeat-interval", "1"])
}

/// The sequence number of an entry; nothing while a regular file is not there. Never waits for a FIFO.
fn seq(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    serde_json::from_slice::<serde_json::Value>(&fs::read(path).ok()?).ok()?["heartbeat"]["seq"].as_u64()
}

fn entry_file(world: &World, program: &Program) -> std::path::PathBuf {
    world.registry().join(format!("instances/{}.json", program.instance_id))
}

/// Waits for two more heartbeats, during which so many are listed all the time.
fn beats_twice_and_nobody_is_lost(world: &World, beating: &Program, count: usize, what: &str) {
    let file = entry_file(world, beating);
    let before = seq(&file).unwrap_or(0);
    until(PATIENCE, what, || {
        let listed = world.instances().map(|list| list.len());
        assert_eq!(listed, Some(count), "{what}: nobody is lost meanwhile");
        seq(&file).is_some_and(|now| now > before + 1)
    });
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a FIFO can be made");
}

#[test]
fn what_lies_in_the_place_of_a_file_blocks_nobody_and_is_put_right() {
    let world = World::new();
    let gateway = world.start(beating());
    let other = world.start(beating());
    world.wait_instances(2);
    let (id, registry) = (&other.instance_id, world.registry());
    let victim = world.path().join("victim");
    write(&victim, "not to be written to");
    for kind in ["a FIFO", "a link to a file", "a link to nowhere"] {
        let put = |path: &Path| match kind {
            "a FIFO" => fifo(path),
            "a link to a file" => symlink(&victim, path).expect("a link"),
            _ => symlink("/nowhere/at/all", path).expect("a link"),
        };
        for place in PLACES {
            // In one step, so that no scan finds the file missing, which would be a farewell.
            let (path, beside) = (registry.join(place.replace("{}", id)), registry.join("beside"));
            put(&beside);
            fs::rename(&beside, &path).expect("it can take the place of a file");
        }
        beats_twice_and_nobody_is_lost(&world, &other, 2, kind);
        beats_twice_and_nobody_is_lost(&world, &gateway, 2, &format!("{kind}, for the others"));
        for place in PLACES.iter().filter(|place| place.ends_with("{}.json")) {
            let path = registry.join(place.replace("{}", id));
            until(PATIENCE, place, || fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()));
        }
    }
    assert_eq!(fs::read_to_string(&victim).ok().as_deref(), Some("not to be written to"));
    assert!(!victim.with_extension("json").exists());
}

#[test]
fn a_folder_in_the_place_of_an_entry_is_told_and_not_removed() {
    let world = World::new();
    let _gateway = world.start(beating());
    let other = world.start(beating());
    world.wait_instances(2);
    let (file, beside) = (entry_file(&world, &other), world.registry().join("beside"));
    let exchange = || renameat_with(CWD, &file, CWD, &beside, RenameFlags::EXCHANGE);
    write(&beside.join("note"), "somebody's");
    exchange().expect("the folder takes the place of the entry");
    let readyz = || get(other.address, "/readyz").ok();
    until(PATIENCE, "the instance says that it cannot register", || {
        readyz().is_some_and(|reply| reply.status == 503 && reply.text().contains("registered"))
    });
    assert_eq!(world.instances().map(|list| list.len()), Some(2), "it is listed as it was last seen");
    assert_eq!(fs::read_to_string(file.join("note")).ok().as_deref(), Some("somebody's"));
    exchange().expect("and gives it back");
    until(PATIENCE, "it registers by itself", || readyz().is_some_and(|reply| reply.status == 200));
    beats_twice_and_nobody_is_lost(&world, &other, 2, "and beats");
}

#[test]
fn files_of_the_living_that_are_overwritten_take_nobody_away() {
    let world = World::new();
    skill::probe(&world.skills());
    let mut gateway = world.start(beating());
    let skills = world.skills().display().to_string();
    let other = world.start(beating().args(["--skill-paths", &skills, "--load-skills", "all"]));
    world.wait_instances(2);
    let (file, id) = (entry_file(&world, &other), other.instance_id.clone());
    let good = fs::read(&file).expect("its entry");
    for (what, bytes) in [
        ("half", good[..good.len() / 2].to_vec()),
        ("NULs", vec![0; good.len()]),
        ("nothing", Vec::new()),
        ("too much", vec![b' '; 1024 * 1024]),
        ("another's entry", String::from_utf8_lossy(&good).replace(&id, &fresh_id()).into_bytes()),
    ] {
        fs::write(&file, bytes).expect("the file can be overwritten");
        beats_twice_and_nobody_is_lost(&world, &other, 2, what);
    }

    // Its owner does not look at its list again; whoever cannot read it asks for it.
    write(&world.registry().join(format!("tools/{id}.json")), vec![0; 300]);
    let mut session = Session::open(world.gateway(), R06);
    let tool = format!("{}__probe_tools__echo", other.short());
    until(PATIENCE, "the tools are listed as before", || session.tool_names().contains(&tool));
    let _standby = world.start(beating());
    world.wait_instances(3);
    gateway.kill_9();
    until(PATIENCE, "and by one that came later", || {
        session.try_post(&json!({"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {}})).is_ok()
    });
    until(PATIENCE, "in full", || session.tool_names().contains(&tool));
    assert_eq!(session.structured(&tool, json!({"text": "x"}))["text"], json!("x"));
}

#[test]
fn ten_thousand_junk_files_hide_nobody_and_stay() {
    let world = World::new();
    let _gateway = world.start(Start::new());
    world.wait_instances(1);
    let folder = world.registry().join("instances");
    for number in 0..10_000 {
        match number % 5 {
            0 => symlink("/dev/zero", folder.join(format!("junk-{number}.json"))).expect("a link"),
            1 => fifo(&folder.join(format!("junk-{number}.json"))),
            2 => write(&folder.join(format!("junk-{number}.txt")), "junk"),
            _ => write(&folder.join(format!("junk-{number}.json")), "junk"),
        }
    }
    let started = Instant::now();
    let mut newcomer = world.start(Start::new());
    world.wait_instances(2);
    print(&format!("among 10,000 junk files a newcomer is listed after {} ms", started.elapsed().as_millis()));
    newcomer.kill_9();
    let killed = Instant::now();
    world.wait_instances(1);
    print(&format!("and gone {} ms after its death", killed.elapsed().as_millis()));
    assert_eq!(status(world.gateway(), "/readyz"), Some(200));
    let junk = fs::read_dir(&folder).expect("the folder").flatten();
    let junk = junk.filter(|entry| entry.file_name().to_string_lossy().starts_with("junk-")).count();
    assert_eq!(junk, 10_000, "what is not understood is not removed");
}

/// Whole processes are started in such numbers by `make bench-registry`.
#[test]
fn two_hundred_that_register_in_one_second_are_listed_two_scans_later() {
    let world = World::new();
    let _gateway = world.start(Start::new());
    world.wait_instances(1);
    let backend = Backend::start(Manner::Json(json!({"content": []})), vec![]);
    let folder = world.registry().join("instances");
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let (mut entry, id) = (backend.entry("maya"), fresh_id());
                    entry["instance_id"] = json!(id);
                    write_by_rename(&folder.join(format!("{id}.json")), entry.to_string());
                }
            });
        }
    });
    print(&format!("200 entries were written within {} ms", started.elapsed().as_millis()));
    promise("200 instances are listed after two scans", TWO_SCANS, || {
        let written = Instant::now();
        world.wait_instances(201);
        written.elapsed()
    });
}

#[test]
fn folders_that_are_taken_away_take_nobody_with_them() {
    let world = World::new();
    let gateway = world.start(beating());
    let others = [world.start(beating()), world.start(beating())];
    world.wait_instances(3);
    for (round, folder) in ["", "instances", "tools"].iter().enumerate() {
        let aside = world.path().join(format!("aside-{round}"));
        fs::rename(world.registry().join(folder), &aside).expect("the folder can be moved");
        if round % 2 == 1 {
            // Somebody makes an empty one before its owners do.
            let _ = fs::create_dir(world.registry().join(folder)); // they may be quicker
        }
        for program in [&gateway, &others[0], &others[1]] {
            beats_twice_and_nobody_is_lost(&world, program, 3, &format!("\"{folder}\" was taken away"));
        }
        fs::remove_dir_all(&aside).expect("what was moved can be removed");
    }
    until(PATIENCE, "file by file, against those who write", || fs::remove_dir_all(world.registry()).is_ok());
    until(PATIENCE, "all are back", || {
        [&gateway, &others[0], &others[1]].iter().all(|program| program.is_registered())
    });
    world.wait_instances(3);
    throughout(Duration::from_secs(2), "and stay", || world.instances().is_some_and(|list| list.len() == 3));
}
