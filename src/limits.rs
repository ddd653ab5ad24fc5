//! Every bound of the program, in one place, each with its reason and with what happens beyond it.
//!
//! **Invariant**: no queue, buffer, wait or count in `src/` is without a bound from this file or a flag.
//! **Bounds**: this file is them; the assertions at its end say how they relate to each other.
//! Left out on purpose: what an operator sets by a flag (`config.rs`), and the protocol's own constants (`mcp.rs`).

use std::time::Duration;

// ---- HTTP, both sides -------------------------------------------------------------------------------------------

/// Bytes of a request or response head. Browsers and proxies stay below 8 KiB; beyond: 431 and close.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of one head. Beyond: 431 and close.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request target. RFC 9112 section 3 asks for at least 8000 octets; beyond: 414 and close.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a request body, and of a whole reply read from an instance. Beyond: 413, or an upstream error.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one chunk-size line with its extensions, and of all trailers. Beyond: 400 and close.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of all chunk extensions of one body. Nobody sends any but to hide something; beyond: 400 and close.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// A request head must be whole within this time of its first byte; single bytes do not extend it. Beyond: 408 and close.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// A request body must be whole within this time plus its size over `BODY_BYTES_PER_SECOND_MIN`. Beyond: 408 and close.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The slowest sender of a body that is waited for: a 16 MiB body gets about four minutes.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
/// A connection without a request ends after this time, quietly.
pub const IDLE_KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time that an idle connection of a server that drains has for one more request, which is answered with
/// `Connection: close`. Clients drop connections that were idle for 4 to 5 s themselves. Beyond: closed.
pub const DRAIN_IDLE_MAX: Duration = Duration::from_secs(5);
/// A peer that takes no byte for this time is closed.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(10);
/// Connections the kernel holds for a listener before they are accepted (`listen(2)`; capped by `somaxconn`).
pub const LISTEN_BACKLOG: i32 = 4096;
/// First and last pause after a failed `accept(2)`, doubled in between: descriptors may be short for a while.
pub const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
pub const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time a refused peer gets to read the refusal before the socket is closed on what it still sends (RFC 9112 section 9.6).
pub const LINGER: Duration = Duration::from_secs(1);
/// Bytes thrown away during that time.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Stack of a connection thread. The deepest use is JSON of the greatest depth that is accepted.
pub const CONNECTION_STACK_BYTES: usize = 256 * 1024;
/// A connection keeps its buffer up to this size between requests; a larger one is given back.
pub const CONNECTION_BUFFER_KEPT_BYTES: usize = 64 * 1024;

// ---- HTTP client ------------------------------------------------------------------------------------------------

/// Time to open a connection to an instance: it is on this host or one hop away.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Idle connections kept for one instance. Beyond: closed after use.
pub const POOL_IDLE_MAX: usize = 64;
/// An idle connection is not used again after this time; the shortest keep-alive seen in servers is 5 s (uvicorn).
pub const POOL_IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// A pooled connection used less than this long ago is not looked at again before it is used: it saves a system call
/// a request under load, and a peer that closed it within that time would have been missed as well a moment later.
pub const POOL_FRESH_TIME: Duration = Duration::from_millis(20);
/// An answer that comes within this time is waited for in the read itself, which saves a system call a request. Only
/// after that is it noticed that the client has gone meanwhile.
pub const ANSWER_AT_ONCE: Duration = Duration::from_millis(10);
/// Interim replies (1xx) skipped before a final one. Beyond: a protocol error.
pub const INTERIM_REPLIES_MAX: usize = 16;
/// Bytes of a body asked from the kernel at once.
pub const READ_BYTES: usize = 64 * 1024;
/// Bytes of a body that no handler asked for and that are read all the same to keep the connection. Beyond: closed.
pub const UNREAD_BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one event in a stream read from an instance: a result may be as large as a body.
pub const SSE_EVENT_BYTES_MAX: usize = BODY_BYTES_MAX;

// ---- sessions and streams ---------------------------------------------------------------------------------------

/// GET streams of one session; the oldest is closed for a newer one.
pub const STREAMS_PER_SESSION_MAX: usize = 8;
/// Messages waiting for one stream. Beyond: the stream is closed, its client reconnects and is told what it missed.
pub const SSE_QUEUE_MAX: usize = 256;
/// Streams in all, each with a thread of its own. Beyond: a stream ends as soon as it has begun.
pub const STREAMS_MAX: usize = 4096;
/// Silence on a stream before a comment line; intermediaries cut at 30 s and more.
pub const SSE_COMMENT_EVERY: Duration = Duration::from_secs(15);
/// `retry:` told to clients: longer than our worst failover, since they try only about twice.
pub const SSE_RETRY: Duration = Duration::from_secs(4);
/// Sessions ended by DELETE that are remembered, so that they get 404; the oldest is forgotten first.
pub const ENDED_SESSIONS_MAX: usize = 4096;
/// A client that lost the stream of its call has this time to come back for the rest; an answer is kept as long. Twice
/// the tries of the SDKs, about 4 s apart (`SSE_RETRY`), and a reader that went unnoticed for `SSE_COMMENT_EVERY`.
/// Beyond: the call is cancelled, the answer forgotten.
pub const RESUME_TIME_MAX: Duration = Duration::from_secs(30);
/// Events of one running call that are kept for that. Beyond: the oldest goes, the answer never.
pub const TRAIL_EVENTS_MAX: usize = SSE_QUEUE_MAX;
/// Bytes of the events that are kept, of all calls: some answers of the largest size. Beyond: the oldest ones of calls
/// that have ended go, and of a running one all but the newest.
pub const TRAILS_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// Calls that have ended and whose events are kept. Beyond: the oldest are forgotten.
pub const TRAILS_DONE_MAX: usize = 1024;
/// Calls under way that can be cancelled; one more is served, but cannot be cancelled.
pub const CALLS_TRACKED_MAX: usize = 8192;
/// Sessions whose log level is remembered; the one that set it first is forgotten first, and has the default again.
pub const LOG_LEVELS_MAX: usize = 4096;
/// Resources to which one session, or one `subscriptions/listen`, subscribes. Beyond: an error.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 256;
/// Subscriptions of all sessions of one port. Beyond: an error.
pub const SUBSCRIPTIONS_MAX: usize = 16_384;
/// A session that had no stream for this time is not coming back: its subscriptions are forgotten.
pub const SUBSCRIBER_SILENT_MAX: Duration = Duration::from_secs(300);
/// Instances whose resources the gateway follows, each with a thread. Beyond: changes of the further ones are not told.
pub const FOLLOWERS_MAX: usize = 256;
/// Pause between two looks at what is to be followed; a client that subscribes does not wait for it.
pub const FOLLOWERS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// A stream of an instance is followed for this time, then opened anew: one that is dead without an end is left some time.
pub const FOLLOW_TIME_MAX: Duration = Duration::from_secs(3600);
/// Longest pause before an instance that cannot be followed is tried again.
pub const FOLLOW_RETRY_MAX: Duration = Duration::from_secs(30);
/// Nesting of a JSON-RPC message, itself included; readers commonly stop here. Beyond: -32600, or an upstream error.
pub const JSON_DEPTH_MAX: usize = 128;
/// Messages of one JSON-RPC batch (MCP 2025-03-26). Beyond: -32600.
pub const BATCH_MESSAGES_MAX: usize = 64;

// ---- registry ---------------------------------------------------------------------------------------------------

/// Bytes of one registry entry; ours are below 2 KiB. Beyond: skipped and counted.
pub const ENTRY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of one published tool list. Beyond: skipped and counted; ours are smaller (below).
pub const TOOL_LIST_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of `services.json`, which holds the rows of every other adapter. Beyond: skipped and counted.
pub const SERVICES_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Live instances shown. Beyond: the further ones, in the order of their ids, are counted and left out.
pub const INSTANCES_MAX: usize = 4096;
/// Names read from one registry folder in one scan; junk files count too.
pub const FOLDER_NAMES_MAX: usize = 65_536;
/// Tools taken from one instance. Beyond: the rest is counted and left out.
pub const TOOLS_PER_INSTANCE_MAX: usize = 2000;
/// Bytes of one text in an entry (`PATH_MAX` of Linux, for scenes). Beyond: not written; read, it is skipped and counted.
pub const ENTRY_TEXT_BYTES_MAX: usize = 4096;
/// Bytes of an instance id or an application type: they become file names, URL paths and labels. Beyond: as above.
pub const ENTRY_NAME_BYTES_MAX: usize = 64;
/// Documents, and pairs of metadata, of one entry. Beyond: as above.
pub const ENTRY_LIST_MAX: usize = 256;
/// Entries kept of one folder, dead ones included. Beyond: the further ones, in the order of their names, are counted.
pub const ENTRIES_MAX: usize = 2 * INSTANCES_MAX;
/// Rows read from `services.json`. Beyond: the further ones are counted and left out.
pub const FOREIGN_ROWS_MAX: usize = ENTRIES_MAX;
/// Readings of a `services.json` that stays broken, as it may be caught half written. Beyond: when it changes.
pub const FOREIGN_TRIES_MAX: u32 = 8;
/// A foreign row names a pid but not whose: a missing process counts when three of its beats (5 s) are missing as well.
pub const FOREIGN_PID_GRACE: Duration = Duration::from_secs(15);
/// Broken entries named in the log by one scan. Beyond: only their number.
pub const BROKEN_LOGGED_PER_SCAN_MAX: usize = 8;
/// Time between two scans that counts as observed. A longer gap (we slept, or the registry did) counts as this much.
pub const OBSERVED_GAP_MAX: Duration = Duration::from_secs(2);
/// Dead entries removed by one scan; the others wait for the next, so that a scan stays short.
pub const PRUNES_PER_SCAN_MAX: usize = 64;
/// Ports probed at the same time, each by a short-lived thread. Beyond: asked again at the next scan.
pub const PROBES_MAX: usize = 32;
/// Time a port gets to accept a probe.
pub const PROBE_TIME_MAX: Duration = Duration::from_millis(500);
/// Where a port decides who lives, it is asked again after this time: what answered may have died since.
pub const PORT_ASKED_EVERY: Duration = Duration::from_secs(5);
/// And one that did not answer after this time: it hides one that may live, behind a network that is back by now.
pub const SILENT_PORT_ASKED_EVERY: Duration = Duration::from_secs(1);
/// An older answer says nothing: whoever has the port now may be another.
pub const PORT_ANSWER_KEPT: Duration = Duration::from_secs(15);
/// The registry is called unreachable when a scan has not come back for this time (a hung network file system).
pub const SCAN_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause between two scans of the registry.
pub const SCAN_EVERY: Duration = Duration::from_millis(500);
/// A scan that is late by so much shows that this process was paused (or starved): what it knows is old.
pub const SLEPT_AFTER: Duration = Duration::from_secs(1);
/// Lists then wait so long for the scan. Beyond: they are answered by what was known.
pub const SETTLE_MAX: Duration = Duration::from_secs(1);
/// A stopping instance goes on accepting for two scans of the others, who hand it calls until they have seen it gone.
pub const SEEN_TO_BE_GONE_AFTER: Duration = Duration::from_secs(1);
/// Pause between two tries to bind the gateway port.
pub const BIND_RETRY_EVERY: Duration = Duration::from_millis(100);
/// An instance that has died before our eyes is not shown for this time, in which a scan sees the same. Beyond: shown.
pub const DEATH_CONFIRMED_MAX: Duration = Duration::from_secs(2);
/// Standbys that are given the gateway's listener; each costs it a descriptor. Beyond: they try to bind the port instead.
pub const STANDBYS_MAX: usize = 256;
/// The descriptor of the gateway's name has a number from here on, and those of their connections one just below it:
/// `election/passing.rs` says why. The kernel's table of descriptors has room for 1,024 then, 8 KiB.
pub const NAME_DESCRIPTOR_FROM: i32 = 768;
/// Connections to the gateway's name that are taken at once, before anything else is looked at.
pub const STANDBYS_PER_LOOK: usize = 16;
/// Bytes of a line between gateway and standby: a word, and an instance id or a version. Beyond: the connection ends.
pub const STANDBY_LINE_BYTES_MAX: usize = 128;
/// Bytes of a version. Beyond: it is none.
pub const VERSION_BYTES_MAX: usize = 64;
/// Between the first tries of two standbys after the gateway has died: about what the one that wins needs to answer.
pub const TURN_EVERY: Duration = Duration::from_millis(2);
/// Time that a newer version gets to take a port that was given up for it, before the others compete.
pub const HANDOVER_GRACE: Duration = Duration::from_secs(1);
/// Bytes of the body of `POST /gateway/yield`, which holds a version. Beyond: 413.
pub const YIELD_BODY_BYTES_MAX: usize = 1024;
/// A gateway that handed the port over and has it again does not do so again for this time, lest it goes to and fro.
pub const YIELD_PAUSE: Duration = Duration::from_secs(60);
/// Time that standbys get to show that they live when a gateway leaves. Beyond: the listener is shut down, so that none
/// that has been stopped keeps the port from others.
pub const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);
/// Longest pause between two scans of a registry that cannot be read.
pub const SCAN_RETRY_MAX: Duration = Duration::from_secs(5);
/// First pause before a heartbeat that could not be written is tried again; it doubles up to the heartbeat interval.
pub const BEAT_RETRY_MIN: Duration = Duration::from_millis(500);
/// Times that a file of the registry is written if it is gone before it is in its place. Each neighbour that clears away after
/// a dead process of the same id may take it once, and many may do so at the same time. Beyond: the writing fails.
pub const REPLACE_TRIES_MAX: u32 = 16;
/// A heartbeat that takes longer to write than this shows that others cannot write theirs either, so that nobody's silence
/// counts: a slow file system must not make the living stale.
pub const BEAT_TIME_MAX: Duration = Duration::from_secs(2);
/// A new gateway looks at the registry once more before it answers with lists. Beyond: it answers with what it knows.
pub const TAKEOVER_LOOK_MAX: Duration = Duration::from_secs(1);
/// Longest pause between retries of a registry that fails.
pub const REGISTRY_RETRY_MAX: Duration = Duration::from_secs(30);
/// Time an instance gets to tell its tools over HTTP, in the background.
pub const TOOLS_FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause between two questions for the tools of an instance that publishes none in the registry.
pub const TOOLS_FETCH_EVERY: Duration = Duration::from_secs(5);
/// `tools/list` is held this long while the first catalogue is not complete.
pub const WARM_UP_MAX: Duration = Duration::from_secs(3);
/// Time the own listener gets to answer the self-probe.
pub const SELF_PROBE_TIME_MAX: Duration = Duration::from_secs(2);
/// Time a server gets to answer `healthcheck` or `status`; container engines wait longer than that for the command.
pub const QUERY_TIME_MAX: Duration = Duration::from_secs(5);
/// Time each instance gets when the gateway asks all of them at once (skills).
pub const FAN_OUT_TIME_MAX: Duration = Duration::from_secs(5);
/// Instances asked at the same time, for one request.
pub const FAN_OUT_THREADS_MAX: usize = 32;
/// Threads that ask instances, for all requests together: threads are what new connections need too. Beyond: a request
/// asks with fewer, at the least with its own, one instance after the other.
pub const FAN_OUT_THREADS_ALL_MAX: usize = 8 * FAN_OUT_THREADS_MAX;

// ---- skills -----------------------------------------------------------------------------------------------------

/// Bytes of one SKILL.md, tools.yaml, groups.yaml … Beyond: the skill is skipped with a warning.
pub const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// Nesting of YAML in them; below that of JSON, which it becomes. Beyond: the skill is skipped with a warning.
pub const YAML_DEPTH_MAX: usize = 64;
/// Bytes of a YAML tree with its aliases written out. Beyond: the skill is skipped with a warning.
pub const YAML_WEIGHT_MAX: usize = 4 * 1024 * 1024;
/// Keys of one YAML map; finding doubles costs their square. Beyond: the skill is skipped with a warning.
pub const YAML_KEYS_MAX: usize = 1000;
/// Files of one skill folder that are watched for changes, and scripts taken from it. Beyond: left out.
pub const SKILL_FILES_MAX: usize = 1000;
/// Bytes of one file that is read as a resource, or as an image of a prompt; in Base64 it still fits into a reply.
/// Beyond: an error that says so.
pub const RESOURCE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of a resource's URI or of a template for one. Beyond: the skill is skipped with a warning; asked for: not found.
pub const RESOURCE_URI_BYTES_MAX: usize = 2048;
/// Folders below a skill's folder of resources that are entered, and of a skill that are watched for changes.
/// Beyond: left out.
pub const SKILL_FOLDER_DEPTH_MAX: usize = 3;
/// Prompts, resources, and resource templates that one instance shows, of each. Beyond: left out with a warning.
pub const PROMPTS_MAX: usize = 2000;
pub const RESOURCES_MAX: usize = 2000;
/// Bytes of the list of an instance's tools: it is published together with the lists of those
/// (`TOOL_LIST_BYTES_MAX`). Beyond: the further ones are left out with a warning.
pub const TOOLS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of its list of prompts, of resources, or of templates. Beyond: as above.
pub const OFFER_LIST_BYTES_MAX: usize = 1024 * 1024;
/// Icons of one tool, prompt or resource: some sizes for a light and for a dark background. Beyond: the skill is skipped
/// with a warning.
pub const ICONS_MAX: usize = 8;
/// Bytes of an icon's URI, which may hold the image itself; lists carry it with every item. Beyond: as above.
pub const ICON_URI_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a whole list of a gateway, which is not paged: most clients look at one page (docs/clients.md), and rmcp takes
/// 16 MiB. Beyond: the last ones by type, instance and name are left out of the list; they can be called all the same.
pub const LIST_BYTES_MAX: usize = RESULT_BYTES_MAX;
/// Bytes of a published tool name (MCP 2025-11-25 allows 128 characters). Beyond: cut, and told apart by a hash.
pub const TOOL_NAME_BYTES_MAX: usize = 128;
/// Skills found below all search paths. Beyond: a warning, the rest is left out.
pub const SKILLS_MAX: usize = 1000;
/// Pause between two looks at the skill folders.
pub const SKILLS_SCAN_EVERY: Duration = Duration::from_secs(2);
/// Bytes of a script's standard output. Beyond: its process group is ended and the result says so.
pub const SCRIPT_OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one JSON-RPC message of a script, and of one answer to it: an image may be in it. Beyond: a longer line is
/// output, a larger answer an error; as long as so much waits to be read by a script, it is not listened to.
pub const SCRIPT_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// JSON-RPC messages of one script: one a second for the longest time there is. Beyond: not passed on, and counted as output.
pub const SCRIPT_MESSAGES_MAX: usize = 100_000;
/// Questions of one call that wait for their answers. Beyond: an error to the script.
pub const QUESTIONS_PER_CALL_MAX: usize = 16;
/// Questions of all calls that wait for their answers. Beyond: an error to the script.
pub const QUESTIONS_MAX: usize = 4096;
/// Calls that are kept between two requests of their clients (2026-07-28). Each may hold a script, of which there must be
/// places left for others. Beyond: an error to the client that would be asked.
pub const PARKED_CALLS_MAX: usize = SCRIPTS_RUNNING_MAX / 2;
/// The answer of a call that ended while it was kept waits this long for the client that comes back.
pub const PARKED_ANSWER_KEPT: Duration = Duration::from_secs(30);
/// Messages between the thread of such a call and the connection that serves its client. Beyond: the call waits.
pub const LINE_MESSAGES_MAX: usize = 64;
/// Tasks that run at the same time, each with a thread and a script: half of the scripts, so that plain calls have places.
/// Beyond: an error that says so.
pub const TASKS_RUNNING_MAX: usize = SCRIPTS_RUNNING_MAX / 2;
/// Tasks that are kept. Beyond: those go whose results were fetched, the oldest first; if there are none, an error.
pub const TASKS_MAX: usize = 4096;
/// Bytes of all results that are kept for tasks. Beyond: as above.
pub const TASKS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Time that a task is kept beyond the longest that it may run, where its client names none.
pub const TASK_TTL: Duration = Duration::from_secs(30 * 60);
/// The least time between the end of a task and its being forgotten, whatever its client asks for.
pub const TASK_FETCH_TIME_MIN: Duration = Duration::from_secs(60);
/// Bytes of what a script told last of its progress, as its task shows it. Beyond: cut.
pub const TASK_MESSAGE_BYTES_MAX: usize = 1024;
/// The longest time that a client may ask for. Beyond: this.
pub const TASK_TTL_MAX: Duration = Duration::from_secs(25 * 60 * 60);
/// Told to clients: how often it is worth asking.
pub const TASK_POLL_EVERY: Duration = Duration::from_secs(1);
/// Tasks of one page of a list.
pub const TASKS_PAGE: usize = 100;
/// Characters that an error repeats of a name or URI that a client sent. Beyond: cut.
pub const ECHO_CHARS_MAX: usize = 200;
/// The last bytes of standard error that are kept for the result of a failed script.
pub const SCRIPT_STDERR_TAIL_BYTES: usize = 4 * 1024;
/// Time between SIGTERM and SIGKILL for a script's process group.
pub const SCRIPT_TERM_GRACE: Duration = Duration::from_secs(1);

/// Time between the end of a script and that of what it started and left holding its output. Beyond: they are ended too.
pub const SCRIPT_PIPE_GRACE: Duration = Duration::from_millis(300);
/// Time the kernel gets to end a killed script; one that hangs in a dead file server cannot be waited for.
pub const SCRIPT_KILL_GRACE: Duration = Duration::from_secs(1);
/// Bytes of one argument word and of all of them; Linux takes 128 KiB a word, about 2 MiB with the environment.
/// Beyond: the script gets no words, only its standard input.
pub const SCRIPT_WORD_BYTES_MAX: usize = 64 * 1024;
pub const SCRIPT_WORDS_BYTES_MAX: usize = 256 * 1024;
/// Scripts that run at the same time. Beyond: a result that says so.
pub const SCRIPTS_RUNNING_MAX: usize = 128;
/// The longest time a skill may ask for (`timeout_hint_secs`): a render over night. Beyond: this.
pub const SCRIPT_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of an encoded result; the rest of a reply is its envelope. Beyond: the copy as text is left out.
pub const RESULT_BYTES_MAX: usize = BODY_BYTES_MAX - 64 * 1024;
/// Nesting of a result; readers commonly stop at 128, and the envelope has some levels of its own. Beyond: a failed call.
pub const RESULT_DEPTH_MAX: usize = 100;
/// Skills that depend on skills that depend on … Beyond: the first of them cannot be loaded.
pub const SKILL_DEPENDS_DEPTH_MAX: usize = 32;

// ---- logs and the process ---------------------------------------------------------------------------------------

/// Bytes of one log line; the rest is cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Signals waiting to be taken: two stops and a reload are all that can matter.
pub const SIGNALS_WAITING_MAX: usize = 16;
/// Sockets that the service manager may give; two have a meaning. Beyond: an error at the start.
pub const GIVEN_SOCKETS_MAX: usize = 16;
/// Time the service manager gets to take a notification.
pub const NOTIFY_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes of one log line on standard error where that is a pipe. Linux takes up to 4 KiB (`PIPE_BUF`) whole and at once
/// from a writer that was told there is room; more could block for as long as nobody reads. The rest is cut and marked.
pub const PIPE_LINE_BYTES_MAX: usize = 4000;
/// Time that a log line waits for a reader of standard error who is slow. Beyond: lines are counted, not written.
pub const STDERR_STALL_MAX: Duration = Duration::from_millis(100);
/// Time that a thread that panics waits for the log file; it may hold it itself. Beyond: only standard error has its line.
pub const PANIC_FILE_WAIT_MAX: Duration = Duration::from_secs(1);
/// A log file that failed (full disk, no permission) is tried again after this time; its lines are counted meanwhile.
pub const LOG_RETRY_EVERY: Duration = Duration::from_secs(30);
/// Log files of one name that may be in use by other processes before the next name is given up (`<name>-2` …).
pub const LOG_NAMES_MAX: usize = 64;
/// Application types told apart in metrics. Beyond: counted together as `other`.
pub const DCC_LABELS_MAX: usize = 64;
/// Messages waiting for a worker thread, where nothing else is said.
pub const INBOX_MAX: usize = 256;
/// Time a worker gets to end when it is told to stop.
pub const WORKER_STOP_MAX: Duration = Duration::from_secs(2);

// ---- flags ------------------------------------------------------------------------------------------------------

/// The longest time a flag takes: a week. Beyond: a usage error; no wait is without an end.
pub const FLAG_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Connections a flag may allow. Each has a thread, and Linux has 32,768 of them by default. Beyond: as above.
pub const FLAG_CONNECTIONS_MAX: usize = 65_536;

const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(CHUNK_LINE_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX * 3 <= u16::MAX as usize, "heads are indexed by 16 bits, bad UTF-8 grows by 3");
const _: () = assert!(SCRIPT_OUTPUT_BYTES_MAX < BODY_BYTES_MAX, "a result must fit into a reply");
const _: () = assert!(
    TOOLS_BYTES_MAX + 3 * OFFER_LIST_BYTES_MAX + 1024 <= TOOL_LIST_BYTES_MAX as usize,
    "whatever an instance offers can be published"
);
const _: () = assert!(
    RESOURCE_BYTES_MAX / 3 * 4 + 64 * 1024 < RESULT_BYTES_MAX as u64,
    "a resource in Base64 must fit into a result"
);
const _: () = assert!(SCRIPT_MESSAGE_BYTES_MAX < SCRIPT_OUTPUT_BYTES_MAX && SCRIPT_MESSAGE_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(TASK_TTL_MAX.as_secs() > SCRIPT_TIME_MAX.as_secs());
const _: () = assert!(TOOL_LIST_BYTES_MAX < BODY_BYTES_MAX as u64, "a tool list must fit into a reply");
const _: () =
    assert!(SCAN_EVERY.as_millis() * 2 <= OBSERVED_GAP_MAX.as_millis(), "a scan that is a little late counts");
const _: () = assert!(SEEN_TO_BE_GONE_AFTER.as_millis() >= SCAN_EVERY.as_millis() * 2);
const _: () = assert!(ENTRY_TEXT_BYTES_MAX < ENTRY_BYTES_MAX as usize);
const _: () =
    assert!(VERSION_BYTES_MAX + 16 <= STANDBY_LINE_BYTES_MAX && ENTRY_NAME_BYTES_MAX + 16 <= STANDBY_LINE_BYTES_MAX);
const _: () = assert!(NAME_DESCRIPTOR_FROM > STANDBYS_MAX as i32 + 64 && NAME_DESCRIPTOR_FROM + 64 < 1024);
const _: () = assert!(SSE_COMMENT_EVERY.as_secs() * 2 < IDLE_KEEP_ALIVE.as_secs());
const _: () = assert!(RESUME_TIME_MAX.as_secs() > 2 * SSE_RETRY.as_secs() + SSE_COMMENT_EVERY.as_secs());
const _: () = assert!(SSE_RETRY.as_millis() > WARM_UP_MAX.as_millis());
const _: () = assert!(POOL_IDLE_TIME_MAX.as_secs() < IDLE_KEEP_ALIVE.as_secs());
const _: () = assert!(PIPE_LINE_BYTES_MAX < 4096 && PIPE_LINE_BYTES_MAX < LOG_LINE_BYTES_MAX);
