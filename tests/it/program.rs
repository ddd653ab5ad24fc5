//! The built program as a process: started in a world of its own, waited for, killed at the end.
//!
//! **Invariant**: a process that was started here is killed by its own id when its value goes, whatever the test did.
//! **Bounds**: every wait has a deadline; standard error is kept up to `STDERR_KEPT_BYTES` and shown when a test fails.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, iter, thread};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client;
use crate::folder::TempFolder;
use crate::wait::{PATIENCE, until, until_some};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_dcc-mcp-server");
const STDERR_KEPT_BYTES: usize = 256 * 1024;

/// A registry folder and a gateway port that no other test knows.
pub struct World {
    folder: TempFolder,
    gateway_port: u16,
}

/// How one process of a world is started.
#[derive(Default)]
pub struct Start {
    args: Vec<String>,
    env: Vec<(String, String)>,
    instance_id: Option<String>,
    no_gateway: bool,
    /// Another than that of the world.
    gateway_port: Option<u16>,
    descriptors: Option<u32>,
    host: Option<Ipv4Addr>,
    /// What comes before the program's own arguments: other programs that run it, itself last.
    through: Vec<String>,
    sockets: Vec<OwnedFd>,
}

/// A running process of the program.
pub struct Program {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    entry_file: PathBuf,
    pub instance_id: String,
    /// The instance's own port.
    pub address: SocketAddr,
}

impl World {
    pub fn new() -> World {
        World { folder: TempFolder::new(), gateway_port: free_port() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn registry(&self) -> PathBuf {
        self.path().join("registry")
    }

    pub fn skills(&self) -> PathBuf {
        self.path().join("skills")
    }

    pub fn gateway(&self) -> SocketAddr {
        self.gateway_at(Ipv4Addr::LOCALHOST)
    }

    /// The gateway port of another address: what is another host elsewhere is another loopback address here.
    pub fn gateway_at(&self, host: Ipv4Addr) -> SocketAddr {
        SocketAddr::from((host, self.gateway_port))
    }

    /// A process that is ready: registered, its own port answers `/readyz`, and somebody serves the gateway port.
    #[track_caller]
    pub fn start(&self, start: Start) -> Program {
        let gateway = (!start.no_gateway).then(|| self.gateway_at(start.host.unwrap_or(Ipv4Addr::LOCALHOST)));
        let mut program = self.launch(start);
        program.wait_ready();
        if let Some(gateway) = gateway {
            until(PATIENCE, "a gateway answers", || client::status(gateway, "/health") == Some(200));
        }
        program
    }

    /// A ready process of this application type with every skill of the world loaded.
    #[track_caller]
    pub fn start_with_skills(&self, dcc: &str) -> Program {
        let skills = self.skills().display().to_string();
        self.start(Start::new().args(["--dcc", dcc, "--skill-paths", &skills, "--load-skills", "all"]))
    }

    /// A process that was started and not waited for.
    #[track_caller]
    pub fn launch(&self, start: Start) -> Program {
        let instance_id = start.instance_id.clone().unwrap_or_else(fresh_id);
        let entry_file = self.registry().join("instances").join(format!("{instance_id}.json"));
        let port = if start.no_gateway { 0 } else { start.gateway_port.unwrap_or(self.gateway_port) };
        let mut command = match start.descriptors {
            _ if !start.through.is_empty() => {
                self.command_in(&start.through.iter().map(String::as_str).collect::<Vec<_>>())
            }
            // The shell gives its place, and its process id, to the program.
            Some(most) => self.command_in(&["sh", "-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), PROGRAM]),
            None => self.command(),
        };
        command.args(["--registry-dir".into(), self.registry()]);
        command.args(["--instance-id", &instance_id, "--gateway-port", &port.to_string()]);
        command.args(start.host.iter().flat_map(|host| ["--host".to_owned(), host.to_string()]));
        command.args(&start.args).envs(start.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // They come as standard input and output; the shell of `with_sockets` moves them.
        let mut sockets = start.sockets.into_iter();
        sockets.next().map(|socket| command.stdin(socket));
        sockets.next().map(|socket| command.stdout(socket));
        let mut child = command.spawn().expect("the built program starts");
        let stderr = keep_stderr(&mut child);
        let address = SocketAddr::from((start.host.unwrap_or(Ipv4Addr::LOCALHOST), 0));
        Program { child, stderr, entry_file, instance_id, address }
    }

    /// Runs the program to its end, as for `--help`; kills it after `PATIENCE`.
    #[track_caller]
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>, env: &[(&str, &str)]) -> Output {
        let mut command = self.command();
        command.args(args).envs(env.iter().copied()).stdin(Stdio::null());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the built program starts");
        let out = collect(child.stdout.take());
        let err = collect(child.stderr.take());
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("the child is ours") {
                break status;
            }
            if Instant::now() > end {
                let _ = child.kill();
                panic!("the program did not end by itself");
            }
            thread::sleep(Duration::from_millis(5));
        };
        let join = |thread: thread::JoinHandle<Vec<u8>>| thread.join().expect("the reader does not panic");
        Output { status, stdout: join(out), stderr: join(err) }
    }

    /// Waits until the gateway is ready and lists exactly `count` instances.
    #[track_caller]
    pub fn wait_instances(&self, count: usize) -> Vec<Value> {
        until(PATIENCE, "the gateway is ready", || client::status(self.gateway(), "/readyz") == Some(200));
        until_some(PATIENCE, &format!("{count} instances are listed"), || {
            let list = self.instances()?;
            (list.len() == count).then_some(list)
        })
    }

    /// The ids that are listed at a gateway of this world with another address.
    pub fn ids_at(&self, gateway: SocketAddr) -> Option<Vec<String>> {
        let reply = client::get(gateway, "/instances").ok().filter(|reply| reply.status == 200)?;
        let list = reply.json()["instances"].as_array()?.clone();
        Some(list.iter().filter_map(|entry| entry["instance_id"].as_str().map(str::to_owned)).collect())
    }

    /// What `/instances` lists now, or nothing when the gateway does not answer.
    pub fn instances(&self) -> Option<Vec<Value>> {
        let reply = client::get(self.gateway(), "/instances").ok().filter(|reply| reply.status == 200)?;
        let body = reply.json();
        assert_eq!(body["total"].as_u64(), body["instances"].as_array().map(|list| list.len() as u64));
        body["instances"].as_array().cloned()
    }

    fn command(&self) -> Command {
        self.command_in(&[PROGRAM])
    }

    fn command_in(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DCC_MCP_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.path()).env("XDG_STATE_HOME", self.path().join("state")).current_dir(self.path());
        command
    }
}

impl Start {
    pub fn new() -> Start {
        Start::default()
    }

    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Start {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Start {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn instance_id(mut self, id: &str) -> Start {
        self.instance_id = Some(id.to_owned());
        self
    }

    /// With so many descriptors at most.
    pub fn descriptors(mut self, most: u32) -> Start {
        self.descriptors = Some(most);
        self
    }

    /// Competes for another port than that of the world.
    pub fn gateway_port(mut self, port: u16) -> Start {
        self.gateway_port = Some(port);
        self
    }

    /// Run by other programs: the last word is the path of this one.
    pub fn through(mut self, words: &[&str]) -> Start {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// With sockets as a service manager gives them, at most two (sd_listen_fds(3)).
    pub fn with_sockets(mut self, sockets: Vec<OwnedFd>, names: &str) -> Start {
        let moved = "exec 3<&0 </dev/null";
        let moved = if sockets.len() > 1 { format!("{moved}; exec 4<&1 >/dev/null") } else { moved.to_owned() };
        let count = sockets.len();
        let script = format!("{moved}; LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names} exec \"$0\" \"$@\"");
        self.sockets = sockets;
        self.through(&["sh", "-c", &script, PROGRAM])
    }

    /// Bound to this address, both ports.
    pub fn host(mut self, host: Ipv4Addr) -> Start {
        self.host = Some(host);
        self
    }

    /// A plain instance that never competes for the gateway port.
    pub fn no_gateway(mut self) -> Start {
        self.no_gateway = true;
        self
    }
}

impl Program {
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                panic!("the program ended at its start: {status}\n{}", self.stderr());
            }
            if let Some(entry) = self.entry() {
                let (host, port) = (entry["host"].as_str(), entry["port"].as_u64());
                // On loopback every host has its address; else it is reached there as well.
                if let Some(host) = host.and_then(|host| host.parse::<IpAddr>().ok()).filter(IpAddr::is_loopback) {
                    self.address.set_ip(host);
                }
                self.address.set_port(u16::try_from(port.unwrap_or(0)).expect("a port number"));
                if client::status(self.address, "/readyz") == Some(200) {
                    return;
                }
            }
            assert!(Instant::now() < end, "the instance is not ready\n{}", self.stderr());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The program's entry in the registry, if it is there and whole.
    pub fn entry(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(&self.entry_file).ok()?).ok()
    }

    pub fn is_registered(&self) -> bool {
        self.entry_file.exists()
    }

    /// True where the entry says that this process serves the gateway port.
    pub fn is_gateway(&self) -> bool {
        self.entry().is_some_and(|entry| entry["gateway"].is_string())
    }

    /// The first 8 hex digits of the instance id, which begin the names of its tools.
    pub fn short(&self) -> &str {
        &self.instance_id[..8]
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill_9(&mut self) {
        self.child.kill().expect("the child is ours");
        let status = self.child.wait().expect("the child is ours");
        assert_eq!(status.signal(), Some(9), "the program had ended before it was killed: {status}\n{}", self.stderr());
    }

    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id is not zero");
        kill_process(pid, signal).expect("the child is ours");
    }

    /// How many of its threads have a name that begins like this.
    pub fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the threads of the program");
        let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|comm| comm.starts_with(name)).count()
    }

    /// The numbers of its descriptors.
    pub fn descriptors(&self) -> Vec<i32> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the descriptors of the program");
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        until_some(limit, "the process has ended", || child.try_wait().expect("the child is ours"))
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_some()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("---- standard error of instance {} ----\n{}", self.instance_id, self.stderr());
        }
    }
}

/// The program under another version, built when it is first asked for.
pub fn other_version() -> String {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let folder = Path::new(PROGRAM).parent().expect("it is in a folder");
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "--locked", "--example", "other_version"]);
        if cfg!(feature = "tiny-http") {
            command.args(["--features", "tiny-http"]);
        }
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.arg("--target-dir").arg(folder.parent().expect("it is in the target folder"));
        assert!(command.status().expect("cargo runs").success(), "the example can be built");
        folder.join("examples/other_version")
    };
    BUILT.get_or_init(build).display().to_string()
}

/// A port that nobody has now, below those that the system gives out itself: it must not become the own port of an
/// instance before the gateway has it.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let next =
        || FIRST + std::process::id().wrapping_mul(211).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
    iter::repeat_with(|| next() as u16).take(COUNT as usize).find(is_free).expect("a free port")
}

/// A random UUID of version 4.
pub fn fresh_id() -> String {
    let mut bytes = [0u8; 16];
    let mut file = fs::File::open("/dev/urandom").expect("/dev/urandom");
    file.read_exact(&mut bytes).expect("16 random bytes");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn keep_stderr(child: &mut Child) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let mut pipe = child.stderr.take().expect("standard error is piped");
    let sink = Arc::clone(&kept);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            let mut kept = sink.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < STDERR_KEPT_BYTES {
                kept.extend_from_slice(&chunk[..count]);
            }
        }
    });
    kept
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("the output is piped");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
