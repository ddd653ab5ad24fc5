//! What the clients of `make bench-takeover` see, and who kills: times in microseconds need one clock for both.
//!
//! `takeover PORT`, with the HTTP requests in `BENCH_LIST` and `BENCH_CALL`. Eight clients call all along, four of them
//! on a new connection each time. A line `<pid> <absent> <present,present…>` on standard input kills that process and
//! asks for the list, on new connections, until it comes whole: with every text of the last word in it and without the
//! second, which is `-` where all may be in it. Each line is answered by one of JSON, and the end of the input by the totals.
//! **Bounds**: `PATIENCE` for the list, `ANSWER_TIME` for one answer.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const CLIENTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(120);
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Between two calls of one client: the processors are shared with the servers.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    refused: AtomicU64,
    /// Sent on a connection that the killed process had, or could still have accepted.
    lost: AtomicU64,
    /// Sent on one that was opened after the list had come from the next: there is no excuse for these.
    failed: AtomicU64,
    /// Microseconds since the start at which the last list came.
    served_since: AtomicU64,
    is_over: AtomicBool,
}

fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or_else(|| {
        eprintln!("usage: takeover PORT");
        std::process::exit(2);
    });
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let [list, call] = ["BENCH_LIST", "BENCH_CALL"].map(|name| std::env::var(name).unwrap_or_default());
    let (seen, started) = (Seen::default(), Instant::now());
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (seen, call) = (&seen, &call);
            scope.spawn(move || keep_calling(target, call, number % 2 == 0, seen, started));
        }
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let [pid, absent, present] = words[..] else { panic!("not three words: {line}") };
            let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a process id");
            println!("{}", kill(target, &list, pid, absent, &present.split(',').collect::<Vec<_>>()));
            seen.served_since.store(micros(started), Ordering::SeqCst);
        }
        seen.is_over.store(true, Ordering::SeqCst);
    });
    let [answered, refused, lost, failed] =
        [&seen.answered, &seen.refused, &seen.lost, &seen.failed].map(|count| count.load(Ordering::SeqCst));
    println!(r#"{{"answered":{answered},"refused":{refused},"lost":{lost},"failed":{failed}}}"#);
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

/// Kills, and waits for the whole list.
fn kill(target: SocketAddr, list: &str, pid: Pid, absent: &str, present: &[&str]) -> String {
    let (mut refused, mut incomplete, mut lost) = (0, 0, 0);
    let began = Instant::now();
    kill_process(pid, Signal::KILL).expect("the process is there");
    while began.elapsed() < PATIENCE {
        match connect(target).and_then(|mut stream| ask(&mut stream, list)) {
            Ok(body) if present.iter().all(|id| body.contains(id)) && (absent == "-" || !body.contains(absent)) => {
                let took = micros(began);
                return format!(r#"{{"us":{took},"refused":{refused},"incomplete":{incomplete},"lost":{lost}}}"#);
            }
            Ok(_) => incomplete += 1,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                refused += 1;
                thread::sleep(Duration::from_micros(200));
            }
            Err(_) => lost += 1,
        }
    }
    format!(r#"{{"us":null,"refused":{refused},"incomplete":{incomplete},"lost":{lost}}}"#)
}

fn keep_calling(target: SocketAddr, call: &str, keeps: bool, seen: &Seen, started: Instant) {
    let mut kept: Option<(TcpStream, u64)> = None;
    while !seen.is_over.load(Ordering::SeqCst) {
        thread::sleep(PAUSE);
        let (mut stream, opened) = match kept.take() {
            Some(kept) => kept,
            None => match connect(target) {
                Ok(stream) => (stream, micros(started)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    seen.refused.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Err(_) => {
                    seen.failed.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
            },
        };
        // Read before: what was opened before the death of the one that served then may be lost with it.
        let outcome = ask(&mut stream, call);
        match outcome {
            Ok(_) => {
                seen.answered.fetch_add(1, Ordering::SeqCst);
                kept = keeps.then_some((stream, opened));
            }
            // The time of a list is written a moment after the death: a loss is judged when that is over.
            Err(_) => {
                thread::sleep(Duration::from_millis(300));
                let was_of_the_dead = opened <= seen.served_since.load(Ordering::SeqCst);
                (if was_of_the_dead { &seen.lost } else { &seen.failed }).fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    Ok(stream)
}

/// The body of an answer with status 200; anything else is an error.
fn ask(stream: &mut TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::with_capacity(16 * 1024);
    let mut chunk = [0; 16 * 1024];
    let (mut head_end, mut length) = (None, None);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
        if head_end.is_none() {
            head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
            let head = String::from_utf8_lossy(&bytes[..head_end.unwrap_or(0)]).to_ascii_lowercase();
            length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        }
        let Some(start) = head_end else { continue };
        let is_whole = length.map_or(bytes.ends_with(b"\r\n0\r\n\r\n"), |length| bytes.len() >= start + length);
        if is_whole {
            let is_good = bytes.starts_with(b"HTTP/1.1 200");
            let body = String::from_utf8_lossy(&bytes[start..]).into_owned();
            let is_failed = length.is_some_and(|length| length < 4096) && body.contains("\"isError\":true");
            return if is_good && !is_failed { Ok(body) } else { Err(io::Error::other(body)) };
        }
    }
}
