//! Facts of this process and its host: who lives, who we are, signals, random bytes, sockets of the service manager and
//! word to it.
//!
//! **Invariant**: `process_is_gone` says true only when the system has proven it; every doubt is "not gone".
//! **Thread**: `signals` turns signals into messages; the handler itself only writes one byte.
//! **Bounds**: `SIGNALS_WAITING_MAX`, `NOTIFY_TIME_MAX`.
//! Left out on purpose: SIGPIPE, which Rust ignores already. The only `unsafe` of the program is here: in `adopt`, as a
//! descriptor that was opened before we began is a number in the environment, and in `scheduling`, for system
//! calls for which no crate has a safe function.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::limits::{GIVEN_SOCKETS_MAX, NOTIFY_TIME_MAX, SIGNALS_WAITING_MAX};
use crate::logging::Quoted;
use crate::worker;

/// What the operator asks for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Starts the thread `signals`. Each Stop that arrives is one message, so that a second one can be told from the first.
pub fn signals() -> io::Result<Receiver<Signal>> {
    let (stop, stop_byte) = UnixStream::pair()?;
    let (reload, reload_byte) = UnixStream::pair()?;
    pipe::register(SIGTERM, stop_byte.try_clone()?)?;
    pipe::register(SIGINT, stop_byte)?;
    pipe::register(SIGHUP, reload_byte)?;
    hear_of_children()?;
    let (out, received) = bounded(SIGNALS_WAITING_MAX);
    worker::spawn("signals", move || relay(&stop, &reload, &out))?;
    Ok(received)
}

/// Who started us may have ignored SIGCHLD, and that is inherited: the kernel would then reap our scripts before we could
/// ask how they ended, and our scripts' own children as well.
fn hear_of_children() -> io::Result<()> {
    if ignored_signals(&fs::read("/proc/self/status").unwrap_or_default()) & 1 << (SIGCHLD - 1) != 0 {
        flag::register(SIGCHLD, Arc::default())?;
    }
    Ok(())
}

/// The mask of ignored signals of a `/proc/<pid>/status` (proc_pid_status(5)); the first bit is signal 1.
fn ignored_signals(status: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(status);
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Where pids can be compared: `<boot id>/<inode of the pid namespace>`. Two processes with the same value see the same
/// processes under the same pids. Without a `/proc` of our own it is unique to this process: then nobody judges us, nor
/// we anybody, by pid, and heartbeats alone decide.
pub fn host_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| host_id_of_proc().unwrap_or_else(|| format!("process-{}", uuid_v4())))
}

/// Whether a `host_id` is of this machine since it was started, whatever its pid namespace.
pub fn is_this_boot(host_id: &str) -> bool {
    let boot = |id: &str| id.split_once('/').map(|(boot, _)| boot.to_owned());
    boot(host_id).is_some_and(|one| boot(self::host_id()) == Some(one))
}

/// Start time of a process in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
pub fn pid_start(pid: u32) -> Option<u64> {
    Some(stat_of(pid)?.start)
}

/// True only if it is proven that the process which had this pid and start time is no more: there is no such process,
/// it is a zombie, or the pid belongs to one that started at another time.
pub fn process_is_gone(pid: u32, start: Option<u64>) -> bool {
    let Some(id) = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) else { return false };
    // Not by a missing /proc/<pid>: that may be hidden from us (mount option hidepid) while the process lives.
    if test_kill_process(id) == Err(Errno::SRCH) {
        return true;
    }
    stat_of(pid).is_some_and(|stat| stat.is_zombie() || start.is_some_and(|start| start != stat.start))
}

/// Seconds since the epoch. For people and for first sights only: clocks of two hosts are never compared.
pub fn wall_clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_millis() as f64 / 1000.0)
}

/// Bytes that nobody can guess. A system that has none cannot run a server: the process ends.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = fill_from_kernel(&mut bytes)
        || fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).is_ok();
    assert!(filled, "the system has no random bytes");
    bytes
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid_v4() -> String {
    let bits = u128::from_be_bytes(random_bytes());
    let (version, variant) = (bits >> 64 & 0xfff | 0x4000, bits >> 48 & 0x3fff | 0x8000);
    let (time_low, time_mid, node) = (bits >> 96, bits >> 80 & 0xffff, bits & 0xffff_ffff_ffff);
    format!("{time_low:08x}-{time_mid:04x}-{version:04x}-{variant:04x}-{node:012x}")
}

/// The own address on the route to the network. Connecting a UDP socket chooses a route and sends nothing; the targets
/// are documentation addresses (RFC 5737, RFC 3849), which only the default route covers.
pub fn outward_address() -> Option<IpAddr> {
    let any = [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))];
    let far = ["192.0.2.1:9", "[2001:db8::1]:9"];
    any.iter().zip(far).find_map(|(any, far)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(far).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified() && !address.is_loopback()).then_some(address)
    })
}

/// The addresses of a host. `localhost` is loopback whatever the system says (RFC 6761 section 6.3): an empty root, as that
/// of an image from scratch, has no file that would tell.
pub fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(loopback.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    Ok((host, port).to_socket_addrs()?.collect())
}

pub fn hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    (!name.is_empty() && name != "(none)").then_some(name)
}

/// Tells the service manager a state (`READY=1`, `STOPPING=1`, `WATCHDOG=1` …; sd_notify(3)). Nothing without one.
pub fn notify(state: &str) {
    let Some(target) = std::env::var_os("NOTIFY_SOCKET").and_then(|target| target.into_string().ok()) else { return };
    if let Err(error) = send_datagram(&target, state.as_bytes()) {
        log::warn!("event=not_notified socket={} error={}", Quoted(&target), Quoted(&error));
    }
}

/// How often the service manager wants to hear `WATCHDOG=1` at least (sd_watchdog_enabled(3)).
pub fn watchdog() -> Option<Duration> {
    watchdog_of(std::process::id(), |name| std::env::var(name).ok())
}

fn watchdog_of(pid: u32, variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let is_for_us = variable("WATCHDOG_PID").is_none_or(|of| of == pid.to_string());
    let time = variable("WATCHDOG_USEC")?.parse().ok().map(Duration::from_micros)?;
    (is_for_us && !time.is_zero()).then_some(time)
}

/// Sockets that the service manager has opened for us, with their names (sd_listen_fds(3)). They are given out once:
/// a second call finds none. To be called before the program opens descriptors of its own.
pub fn given_sockets() -> io::Result<Vec<(String, OwnedFd)>> {
    static ARE_TAKEN: AtomicBool = AtomicBool::new(false);
    if ARE_TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let names = given_names(std::process::id(), |name| std::env::var(name).ok())?;
    let first = LISTEN_FDS_START;
    names.into_iter().zip(first..).map(|(name, number)| Ok((name, adopt(number)?))).collect()
}

/// Whether there were any: they go on without this process, so that they must not be shut down.
#[cfg(feature = "tiny-http")]
pub fn has_given_sockets() -> bool {
    given_names(std::process::id(), |name| std::env::var(name).ok()).is_ok_and(|names| !names.is_empty())
}

/// SD_LISTEN_FDS_START.
const LISTEN_FDS_START: RawFd = 3;

/// What is said to this process by the environment, and would be wrong for those it starts.
pub const SERVICE_VARIABLES: [&str; 6] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The names of the descriptors from `LISTEN_FDS_START` on; an empty one where there is none.
fn given_names(pid: u32, variable: impl Fn(&str) -> Option<String>) -> io::Result<Vec<String>> {
    // Inherited from whoever started us: meant for another process.
    if variable("LISTEN_PID") != Some(pid.to_string()) {
        return Ok(Vec::new());
    }
    let count = variable("LISTEN_FDS").unwrap_or_default();
    let count = count.parse().ok().filter(|count| *count <= GIVEN_SOCKETS_MAX);
    let Some(count) = count else { return Err(io::Error::other("LISTEN_FDS is no small number")) };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    Ok(names.split(':').map(str::to_owned).chain(std::iter::repeat_with(String::new)).take(count).collect())
}

/// The descriptor of this number, which is closed when scripts are started.
#[allow(unsafe_code)]
fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only asked about, for the length of this call; if nothing is open there, that is the answer.
    let there = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(there, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, as was just seen. It was opened for this process by who started it, as LISTEN_PID says, so
    // nothing here owns it yet, and `given_sockets` takes each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has this thread wait, when it wakes, until who is running sleeps or has used up its time: no client that sends many
/// requests is interrupted at each of them. Where whoever started us chose how we are scheduled, it stays so.
pub fn let_others_finish() {
    #[cfg(target_os = "linux")]
    scheduling::change(libc::SCHED_OTHER, libc::SCHED_BATCH);
}

/// Does what starts a process, which would inherit that.
pub fn not_inheriting<T>(act: impl FnOnce() -> T) -> T {
    #[cfg(target_os = "linux")]
    let changed = scheduling::change(libc::SCHED_BATCH, libc::SCHED_OTHER);
    let outcome = act();
    #[cfg(target_os = "linux")]
    if changed {
        let_others_finish();
    }
    outcome
}

/// How this thread is scheduled, where the first thread is as usual. A system that refuses this only switches more often.
#[cfg(target_os = "linux")]
mod scheduling {
    /// By their numbers: musl has functions for these calls that always refuse.
    #[allow(unsafe_code)]
    fn policy(thread: u32) -> libc::c_long {
        // SAFETY: it reads and writes no memory.
        unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread) }
    }

    /// True if it was the one and is the other now.
    #[allow(unsafe_code)]
    pub fn change(from: libc::c_int, to: libc::c_int) -> bool {
        let usual = policy(std::process::id()) == libc::c_long::from(libc::SCHED_OTHER);
        let (this_thread, priority): (u32, libc::c_int) = (0, 0);
        // SAFETY: it reads one integer, the only field of `struct sched_param`, which outlives the call, and writes nothing.
        let set = || unsafe { libc::syscall(libc::SYS_sched_setscheduler, this_thread, to, &raw const priority) };
        usual && policy(this_thread) == libc::c_long::from(from) && set() == 0
    }
}

fn send_datagram(target: &str, bytes: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(NOTIFY_TIME_MAX))?;
    match target.strip_prefix('@') {
        Some(name) => send_to_abstract(&socket, name, bytes),
        None => socket.send_to(bytes, Path::new(target)).map(drop),
    }
}

#[cfg(target_os = "linux")]
fn send_to_abstract(socket: &UnixDatagram, name: &str, bytes: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    socket.send_to_addr(bytes, &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send_to_abstract(_: &UnixDatagram, _: &str, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn fill_from_kernel(bytes: &mut [u8]) -> bool {
    let wanted = bytes.len();
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty()) == Ok(wanted)
}

#[cfg(not(target_os = "linux"))]
fn fill_from_kernel(_: &mut [u8]) -> bool {
    false
}

/// Body of the thread `signals`: ends when nobody receives any more.
fn relay(stop: &UnixStream, reload: &UnixStream, out: &Sender<Signal>) {
    loop {
        let mut ready = [PollFd::new(stop, PollFlags::IN), PollFd::new(reload, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return log::error!("event=signals_lost error={error}"),
        }
        let came = ready.map(|fd| !fd.revents().is_empty());
        for (came, mut source, signal) in [(came[0], stop, Signal::Stop), (came[1], reload, Signal::Reload)] {
            let mut bytes = [0; SIGNALS_WAITING_MAX];
            let count = if came { source.read(&mut bytes).unwrap_or(0) } else { 0 };
            for _ in 0..count {
                // Full: as many are waiting as can be of use.
                if let Err(TrySendError::Disconnected(_)) = out.try_send(signal) {
                    return;
                }
            }
        }
    }
}

fn host_id_of_proc() -> Option<String> {
    if !proc_is_ours() {
        return None;
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let inode: String = namespace.to_str()?.chars().filter(char::is_ascii_digit).collect();
    let boot_id = boot_id.trim();
    (!boot_id.is_empty() && !inode.is_empty()).then(|| format!("{boot_id}/{inode}"))
}

/// Whether `/proc` counts pids as we do; in a container it may be that of the host.
fn proc_is_ours() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| {
        fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == std::process::id().to_string().as_str())
    })
}

#[derive(Debug, PartialEq)]
struct ProcessStat {
    state: char,
    threads: u64,
    start: u64,
}

impl ProcessStat {
    /// The first thread of a living process may have ended alone; that is a zombie with other threads.
    fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

fn stat_of(pid: u32) -> Option<ProcessStat> {
    if !proc_is_ours() {
        return None;
    }
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5). The second field is the name in parentheses, which may itself hold spaces and parentheses.
fn parse_stat(bytes: &[u8]) -> Option<ProcessStat> {
    let name_end = bytes.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&bytes[name_end + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(ProcessStat {
        state: field(3)?.chars().next()?,
        threads: field(20)?.parse().ok()?,
        start: field(22)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn stat_lines() {
        let tail = "4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 3 21 4711 23 24";
        let expected = Some(ProcessStat { state: 'S', threads: 3, start: 4711 });
        for name in ["sh", "a b", "a) R 1 2", "((", ") S"] {
            assert_eq!(parse_stat(format!("42 ({name}) S {tail}\n").as_bytes()), expected, "{name}");
        }
        assert_eq!(parse_stat(b"42 (\xff\xfe) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 3 21 4711 23"), expected);
        for broken in [
            "",
            "42 (sh)",
            "42 (sh) S 1 2 3",
            "no name S 4 5",
            "42 (sh) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 x 21 y",
        ] {
            assert_eq!(parse_stat(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn masks_of_ignored_signals() {
        for (status, expected) in [
            ("Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000011000\nSigCgt:\t0\n", 0x11000),
            ("SigIgn:\t0000000000000000\n", 0),
            ("SigIgn:\tnonsense\n", 0),
            ("", 0),
        ] {
            assert_eq!(ignored_signals(status.as_bytes()), expected, "{status}");
        }
    }

    #[test]
    fn the_living_are_not_gone_and_the_dead_are() {
        let own = std::process::id();
        let start = pid_start(own);
        assert!(start.is_some());
        assert!(!process_is_gone(own, start));
        assert!(!process_is_gone(own, None));
        assert!(process_is_gone(own, start.map(|start| start + 1)), "a pid used again by another process");
        assert!(!process_is_gone(0, None) && !process_is_gone(u32::MAX, None), "no pid proves nothing");

        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().expect("sleep runs");
        let start = pid_start(child.id());
        assert!(!process_is_gone(child.id(), start));
        child.kill().expect("a child of ours can be killed");
        let patience = Instant::now() + Duration::from_secs(5);
        while !process_is_gone(child.id(), start) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(process_is_gone(child.id(), start), "a zombie counts as gone");
        child.wait().expect("a killed child ends");
        assert!(process_is_gone(child.id(), start));
    }

    fn variables<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn sockets_of_the_service_manager() {
        let names = |set: &[(&str, &str)]| given_names(7, variables(set)).ok();
        let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&[]), some(&[]));
        assert_eq!(names(&[("LISTEN_PID", "8"), ("LISTEN_FDS", "2")]), some(&[]), "for another process");
        assert_eq!(names(&[("LISTEN_FDS", "2")]), some(&[]));
        assert_eq!(names(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "0")]), some(&[]));
        assert_eq!(names(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "2")]), some(&["", ""]));
        let named = [("LISTEN_PID", "7"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "gateway:instance:more")];
        assert_eq!(names(&named), some(&["gateway", "instance"]));
        for count in ["", "x", "-1", "17", "99999999999999999999"] {
            assert_eq!(names(&[("LISTEN_PID", "7"), ("LISTEN_FDS", count)]), None, "{count}");
        }
        assert!(adopt(i32::MAX).is_err(), "nothing is open there");
    }

    #[test]
    fn the_watchdog() {
        let time = |set: &[(&str, &str)]| watchdog_of(7, variables(set));
        let second = Some(Duration::from_secs(1));
        assert_eq!(time(&[("WATCHDOG_USEC", "1000000")]), second);
        assert_eq!(time(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "7")]), second);
        assert_eq!(time(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "8")]), None);
        for nonsense in ["", "0", "-1", "x", "1.5"] {
            assert_eq!(time(&[("WATCHDOG_USEC", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn identities() {
        assert!(is_this_boot(host_id()) && !is_this_boot("elsewhere/1") && !is_this_boot("") && !is_this_boot("x"));
        assert_eq!(host_id(), host_id());
        assert!(host_id().split_once('/').is_some_and(|(boot, namespace)| boot.len() == 36 && !namespace.is_empty()));
        let id = uuid_v4();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'));
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_ne!(id, uuid_v4());
        assert!(outward_address().is_none_or(|address| !address.is_unspecified() && !address.is_loopback()));
        assert!(wall_clock() > 1.6e9);
    }

    #[test]
    fn names_have_addresses() {
        let texts = |host| addresses(host, 9).map(|all| all.iter().map(SocketAddr::to_string).collect::<Vec<_>>()).ok();
        let found = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(texts("localhost"), found(&["127.0.0.1:9", "[::1]:9"]));
        assert_eq!(texts("LocalHost"), found(&["127.0.0.1:9", "[::1]:9"]));
        assert_eq!(texts("10.0.0.1"), found(&["10.0.0.1:9"]));
        assert_eq!(texts("::1"), found(&["[::1]:9"]));
        assert_eq!(texts("no such name"), None);
    }

    #[test]
    fn signals_become_messages() {
        let received = signals().expect("signals can be set up");
        let own = Pid::from_raw(std::process::id() as i32).expect("a pid is positive");
        for (sent, expected) in [
            (rustix::process::Signal::HUP, Signal::Reload),
            (rustix::process::Signal::TERM, Signal::Stop),
            (rustix::process::Signal::INT, Signal::Stop),
        ] {
            rustix::process::kill_process(own, sent).expect("own process can be signalled");
            assert_eq!(received.recv_timeout(Duration::from_secs(5)), Ok(expected));
        }
    }

    #[test]
    fn datagrams_reach_paths_and_abstract_names() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("dcc-mcp-test-{}", uuid_v4());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a short name is valid");
        let service = UnixDatagram::bind_addr(&address).expect("an unused name can be bound");
        send_datagram(&format!("@{name}"), b"READY=1").expect("the socket is there");
        let mut bytes = [0; 16];
        assert_eq!(service.recv(&mut bytes).map(|count| &bytes[..count]).ok(), Some(&b"READY=1"[..]));

        let path = std::env::temp_dir().join(&name);
        let service = UnixDatagram::bind(&path).expect("an unused path can be bound");
        send_datagram(path.to_str().expect("a plain path"), b"STOPPING=1").expect("the socket is there");
        assert_eq!(service.recv(&mut bytes).map(|count| &bytes[..count]).ok(), Some(&b"STOPPING=1"[..]));
        fs::remove_file(&path).expect("our own socket can be removed");
        assert!(send_datagram(path.to_str().expect("a plain path"), b"").is_err());
    }
}
