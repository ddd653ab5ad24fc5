//! Passing the gateway's listener on: the abstract Unix socket `@dcc-mcp-gateway/<host>:<port>`, and what is said over it.
//!
//! Who owns the name serves the port. It gives every process of the same user that connects a duplicate of the listener,
//! and keeps the connection: when the owner dies, the kernel closes it, and that wakes the standby. Lines go over it,
//! each with a line feed:
//!
//! | from | line | meaning |
//! |---|---|---|
//! | gateway | `listener <its instance id>` | the listener comes with the first byte |
//! | gateway | `lent <its instance id>` | the same; the socket is the service manager's, and not to be shut down |
//! | gateway | `turn <number>` | when the gateway dies, so many standbys try before this one |
//! | gateway | `bye <version>` | it serves no longer; who is of that version or newer may take over at once |
//! | gateway | `free <version>` | the same, and the listener is to be closed: one that has no duplicate takes over |
//! | standby | `version <version>` | its own |
//!
//! **Invariant**: nothing is given to, or taken from, a process of another user (`SO_PEERCRED`), nor one whose process
//! id cannot be seen from here. What comes in place of a listener and is none, or one of another address, is closed.
//! **Thread**: `election`; nothing here waits.
//! **Bounds**: `STANDBYS_MAX`, `STANDBYS_PER_LOOK`, `STANDBY_LINE_BYTES_MAX`.
//! Left out on purpose: what follows from it (`election/step.rs`). Other systems than Linux have no such names, and the
//! engine `tiny-http` cannot leave a listener without taking one more connection from it: there, nothing is passed.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg, sockopt,
};

use crate::election::listener::one_listener;
use crate::election::step::Event;
use crate::limits::{NAME_DESCRIPTOR_FROM, STANDBY_LINE_BYTES_MAX, STANDBYS_MAX, STANDBYS_PER_LOOK};
use crate::logging::Quoted;
use crate::throttle::Throttle;
use crate::version::Version;

/// The name, owned.
pub struct Name {
    socket: UnixListener,
    /// Where it stands for the right to accept.
    listener: TcpListener,
    is_lent: bool,
    instance_id: String,
    standbys: Vec<Standby>,
}

/// A process that waits for our end.
struct Standby {
    stream: UnixStream,
    line: Line,
    turn: u32,
    version: Option<Version>,
}

/// The connection of a standby to the gateway.
pub struct Followed {
    stream: UnixStream,
    address: SocketAddr,
    line: Line,
    arrived: Option<TcpListener>,
    instance_id: Option<String>,
    turn: u32,
}

/// What a gateway says to its standby.
#[derive(Debug)]
pub enum Word {
    Listener {
        listener: TcpListener,
        /// The service manager has it too.
        is_lent: bool,
    },
    /// It leaves in favour of this version.
    Bye(Version),
    /// The same, and the listener is to be closed.
    Free(Version),
    /// Nothing more will come: it is dead.
    Gone,
}

/// What has come of a line that is not complete.
#[derive(Default)]
struct Line(Vec<u8>);

/// Takes the name, or says why not.
pub fn take(listener: &TcpListener, is_lent: bool, instance_id: &str) -> Result<Name, Event> {
    let address = listener.local_addr().map_err(|_| Event::NoNames)?;
    let socket = names::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Event::NameInUse,
        _ => Event::NoNames,
    })?;
    let listener = listener.try_clone().map_err(|_| Event::NoNames)?;
    socket.set_nonblocking(true).map_err(|_| Event::NoNames)?;
    let socket = raised(socket, NAME_DESCRIPTOR_FROM);
    Ok(Name { socket, listener, is_lent, instance_id: instance_id.to_owned(), standbys: Vec::new() })
}

/// Connects to the owner of the name, and tells it our version.
pub fn join(address: SocketAddr, version: &Version) -> Result<Followed, Event> {
    let stream = names::connect(address).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Event::Nobody,
        // Its queue is full: somebody is there, who cannot be asked now.
        io::ErrorKind::WouldBlock => Event::Nobody,
        _ => Event::NoNames,
    })?;
    if !is_of_our_user(&stream) {
        return Err(Event::Stranger);
    }
    // The table of descriptors grows now: with many threads that takes the kernel milliseconds, too many in a takeover.
    let stream = raised(stream, NAME_DESCRIPTOR_FROM);
    // It has just been opened: there is room for a line.
    (&stream).write_all(format!("version {version}\n").as_bytes()).map_err(|_| Event::Nobody)?;
    Ok(Followed { stream, address, line: Line::default(), arrived: None, instance_id: None, turn: 0 })
}

impl Name {
    /// All that can wake its owner: the name itself, then the standbys.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.socket.as_fd()).chain(self.standbys.iter().map(|standby| standby.stream.as_fd()))
    }

    /// Takes in who has come, hears what is said, and forgets who has gone.
    pub fn look(&mut self) {
        self.standbys.retain_mut(Standby::hear);
        for _ in 0..STANDBYS_PER_LOOK {
            match self.socket.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    pub fn standbys(&self) -> usize {
        self.standbys.len()
    }

    /// Whether a standby of this version has the listener.
    pub fn has_standby_of(&self, version: &Version) -> bool {
        self.standbys.iter().any(|standby| standby.version.as_ref() == Some(version))
    }

    pub fn newest_standby(&self) -> Option<&Version> {
        self.standbys.iter().filter_map(|standby| standby.version.as_ref()).max()
    }

    /// Gives the name up in favour of this version. The connections that are given back end when the standbys have
    /// heard it.
    pub fn leave(self, version: &Version) -> Vec<UnixStream> {
        self.say("bye", version)
    }

    /// The same, and the port as well: no duplicate shall be left. The caller has stopped accepting.
    pub fn free(self, version: &Version) {
        // A standby that has been stopped does not hear it; without this its duplicate would keep the port.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        drop(self.say("free", version));
    }

    /// The name goes first: who wakes by the word shall find it free.
    fn say(self, word: &str, version: &Version) -> Vec<UnixStream> {
        drop(self.socket);
        let line = format!("{word} {version}\n");
        let told = |standby: Standby| {
            let mut stream = &standby.stream;
            // One whose buffer is full never reads; it is woken by the end of the connection.
            stream.write_all(line.as_bytes()).is_ok().then_some(standby.stream)
        };
        self.standbys.into_iter().filter_map(told).collect()
    }

    fn admit(&mut self, stream: UnixStream) {
        static THROTTLE: Throttle = Throttle::new();
        let turn = self.free_turn();
        let stream = raised(stream, NAME_DESCRIPTOR_FROM - 1 - turn as RawFd);
        let refused = match (is_of_our_user(&stream), self.standbys.len() < STANDBYS_MAX) {
            (true, true) => stream.set_nonblocking(true).and_then(|()| self.give_listener(&stream, turn)).err(),
            (true, false) => Some(io::Error::other("there are too many standbys")),
            (false, _) => Some(io::Error::other("it is of another user")),
        };
        match refused {
            None => self.standbys.push(Standby { stream, line: Line::default(), turn, version: None }),
            Some(why) => {
                if let Some(suppressed) = THROTTLE.allows() {
                    log::warn!("event=standby_refused why={} suppressed={suppressed}", Quoted(&why));
                }
            }
        }
    }

    /// The lowest that no standby has.
    fn free_turn(&self) -> u32 {
        (0..).find(|turn| self.standbys.iter().all(|standby| standby.turn != *turn)).unwrap_or_default()
    }

    fn give_listener(&self, stream: &UnixStream, turn: u32) -> io::Result<()> {
        let word = if self.is_lent { "lent" } else { "listener" };
        let line = format!("{word} {}\nturn {turn}\n", self.instance_id);
        let given = [self.listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&given));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // The connection is new: two lines find room in it as a whole, or something is wrong with it.
        match sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, flags)? {
            sent if sent == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

impl Standby {
    /// False once it has gone, or says what no standby says.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; STANDBY_LINE_BYTES_MAX];
        // Once only, so that one that never stops talking does not keep us. A plain read: descriptors that come with
        // the bytes are closed by the kernel.
        match (&self.stream).read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => match self.line.push(&bytes[..count]) {
                Ok(lines) => {
                    lines.iter().for_each(|line| self.take(line));
                    true
                }
                Err(TooLong) => false,
            },
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    fn take(&mut self, line: &str) {
        if let Some(version) = line.strip_prefix("version ").and_then(Version::parse) {
            self.version = Some(version);
        }
    }
}

impl Followed {
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The instance that serves, once it has told.
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }

    /// How many standbys try before us when the gateway dies.
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// The next word, if one has come.
    pub fn hear(&mut self) -> Option<Word> {
        loop {
            match self.receive() {
                Ok(0) => return Some(Word::Gone),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(Word::Gone),
            }
            let Ok(lines) = self.line.push(&[]) else { return Some(Word::Gone) };
            if let Some(word) = lines.iter().find_map(|line| self.take(line)) {
                return Some(word);
            }
        }
    }

    /// One byte after the other would do; a line is read up to its end at most, so that no word is lost.
    fn receive(&mut self) -> Result<usize, Errno> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut byte)];
        let received = recvmsg(&self.stream, &mut parts, &mut control, names::RECEIVE)?;
        let mut arrived = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                arrived.extend(descriptors);
            }
        }
        if received.bytes > 0 && !arrived.is_empty() {
            self.arrived = one_listener(arrived, self.address);
        }
        self.line.0.extend_from_slice(&byte[..received.bytes]);
        Ok(received.bytes)
    }

    fn take(&mut self, line: &str) -> Option<Word> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "listener" | "lent" => {
                self.instance_id = Some(rest.to_owned());
                self.arrived.take().map(|listener| Word::Listener { listener, is_lent: word == "lent" })
            }
            "turn" => {
                self.turn = rest.parse().unwrap_or_default();
                None
            }
            "bye" => Version::parse(rest).map(Word::Bye),
            "free" => Version::parse(rest).map(Word::Free),
            // Of a version to come.
            _ => None,
        }
    }
}

struct TooLong;

impl Line {
    /// The lines that are complete with these bytes.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        self.0.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            let line = std::mem::replace(&mut self.0, rest);
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if self.0.len() > STANDBY_LINE_BYTES_MAX { Err(TooLong) } else { Ok(lines) }
    }
}

/// The same socket under a number from this one on, where the process may have so many.
///
/// Linux closes what a dead process had from the highest number to the lowest, hundreds of clients' connections too.
/// What wakes the standbys shall be first of all, in the order of their turns, and the name before it, so that they find
/// it free.
fn raised<T: AsFd + From<OwnedFd>>(socket: T, from: RawFd) -> T {
    rustix::io::fcntl_dupfd_cloexec(&socket, from).map(T::from).unwrap_or(socket)
}

/// The user id that the kernel gives where the real one cannot be expressed here: it may be anybody.
#[cfg(target_os = "linux")]
const OVERFLOW_UID: u32 = 65_534;

#[cfg(target_os = "linux")]
fn is_of_our_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == own && own.as_raw() != OVERFLOW_UID)
}

#[cfg(all(target_os = "linux", not(feature = "tiny-http")))]
mod names {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr as UnixAddr;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_socket, socket_with};

    use super::*;

    pub const RECEIVE: RecvFlags = RecvFlags::DONTWAIT.union(RecvFlags::CMSG_CLOEXEC);

    fn name(address: SocketAddr) -> String {
        format!("dcc-mcp-gateway/{address}")
    }

    pub fn bind(address: SocketAddr) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&UnixAddr::from_abstract_name(name(address))?)
    }

    /// Non-blocking from the start: a full queue is an error, not a wait.
    pub fn connect(address: SocketAddr) -> io::Result<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect_socket(&socket, &SocketAddrUnix::new_abstract_name(name(address).as_bytes())?)?;
        Ok(UnixStream::from(socket))
    }
}

#[cfg(not(all(target_os = "linux", not(feature = "tiny-http"))))]
mod names {
    use super::*;

    pub const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;

    pub fn bind(_: SocketAddr) -> io::Result<UnixListener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn connect(_: SocketAddr) -> io::Result<UnixStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(not(target_os = "linux"))]
fn is_of_our_user(_: &UnixStream) -> bool {
    false
}

#[cfg(all(target_os = "linux", not(feature = "tiny-http")))]
#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn version(text: &str) -> Version {
        Version::parse(text).expect("a version")
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        (listener, address)
    }

    fn join(address: SocketAddr) -> Followed {
        super::join(address, &version("1.2.3")).unwrap_or_else(|event| panic!("{event:?}"))
    }

    /// The next word, while the gateway looks around.
    fn next(followed: &mut Followed, mut look: impl FnMut()) -> Word {
        let end = Instant::now() + PATIENCE;
        loop {
            look();
            if let Some(word) = followed.hear() {
                return word;
            }
            assert!(Instant::now() < end, "it says nothing");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_standby_is_given_the_listener_and_hears_that_the_gateway_leaves() {
        let (listener, address) = listener();
        let mut name = take(&listener, false, "a-gateway").unwrap_or_else(|event| panic!("{event:?}"));
        assert!(matches!(take(&listener, false, "another"), Err(Event::NameInUse)));
        let mut standbys = [join(address), join(address)];
        for standby in &mut standbys {
            let Word::Listener { listener, is_lent } = next(standby, || name.look()) else { panic!("no listener") };
            assert_eq!((listener.local_addr().ok(), is_lent), (Some(address), false));
            let client = TcpStream::connect(address).expect("somebody listens");
            assert_eq!(listener.accept().expect("it can accept").1, client.local_addr().expect("connected"));
            assert_eq!(standby.instance_id(), Some("a-gateway"));
        }
        assert_eq!(name.newest_standby(), Some(&version("1.2.3")));
        assert!(name.has_standby_of(&version("1.2.3")) && !name.has_standby_of(&version("1.2.4")));

        let kept = name.leave(&version("2.0.0"));
        let another = take(&listener, true, "b").unwrap_or_else(|event| panic!("the name is free: {event:?}"));
        for standby in &mut standbys {
            assert!(matches!(next(standby, || {}), Word::Bye(told) if told == version("2.0.0")));
            assert!(standby.hear().is_none(), "it is still connected");
        }
        drop(kept);
        assert!(standbys.iter_mut().all(|standby| matches!(next(standby, || {}), Word::Gone)));

        let mut name = another;
        let mut standby = join(address);
        assert!(matches!(next(&mut standby, || name.look()), Word::Listener { is_lent: true, .. }));
        name.free(&version("2.0.0"));
        assert!(matches!(next(&mut standby, || {}), Word::Free(told) if told == version("2.0.0")));
        assert!(
            !crate::election::listener::is_tcp_listener(&listener),
            "nobody has a listener any more, stopped processes included"
        );
        assert_eq!(super::join(address, &version("1.2.3")).err(), Some(Event::Nobody));
    }

    #[test]
    fn each_standby_has_a_turn_of_its_own_and_leaves_it_to_the_next() {
        let (listener, address) = listener();
        let mut name = take(&listener, false, "a").unwrap_or_else(|event| panic!("{event:?}"));
        let come = |name: &mut Name| {
            let mut standby = join(address);
            assert!(matches!(next(&mut standby, || name.look()), Word::Listener { .. }));
            assert!(standby.hear().is_none(), "its turn has come with the listener");
            standby
        };
        let mut standbys: Vec<Followed> = (0..3).map(|_| come(&mut name)).collect();
        assert_eq!(standbys.iter().map(Followed::turn).collect::<Vec<_>>(), [0, 1, 2]);
        drop(standbys.remove(0));
        let end = Instant::now() + PATIENCE;
        while name.standbys() > 2 {
            name.look();
            assert!(Instant::now() < end, "the gateway does not see that a standby has gone");
        }
        assert_eq!(come(&mut name).turn(), 0);
        assert_eq!(come(&mut name).turn(), 3);
    }

    #[test]
    fn the_end_of_a_gateway_is_heard() {
        let (listener, address) = listener();
        let mut name = take(&listener, false, "a").unwrap_or_else(|event| panic!("{event:?}"));
        let mut standby = join(address);
        assert!(matches!(next(&mut standby, || name.look()), Word::Listener { .. }));
        assert!(standby.hear().is_none());
        drop(name);
        assert!(matches!(next(&mut standby, || {}), Word::Gone));
    }

    /// Connects to a gateway that says this, and gives these descriptors with its first byte.
    fn hear_from(line: &[u8], given: impl Fn(SocketAddr) -> Vec<OwnedFd>) -> Option<Word> {
        let (_reserved, address) = listener();
        let gateway = names::bind(address).expect("the name is free");
        let mut followed = join(address);
        let (stream, _) = gateway.accept().expect("it has connected");
        let given = given(address);
        let given: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !given.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&given)));
        }
        sendmsg(&stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL).expect("sent");
        followed.hear()
    }

    #[test]
    fn only_a_listener_of_the_address_is_taken() {
        let line = b"listener x\n";
        let duplicate = |_: SocketAddr| vec![OwnedFd::from(listener().0)];
        assert!(hear_from(line, duplicate).is_none(), "it listens elsewhere");
        assert!(hear_from(line, |_| vec![]).is_none());
        assert!(hear_from(line, |_| vec![OwnedFd::from(io::pipe().expect("a pipe").0)]).is_none());
        let connected = |_: SocketAddr| {
            let (listener, address) = listener();
            let client = TcpStream::connect(address).expect("connected");
            drop(listener);
            vec![OwnedFd::from(client)]
        };
        assert!(hear_from(line, connected).is_none());
        let unix = |_: SocketAddr| vec![OwnedFd::from(UnixStream::pair().expect("a pair").0)];
        assert!(hear_from(line, unix).is_none());
        assert!(matches!(hear_from(&[b'x'; 2 * STANDBY_LINE_BYTES_MAX], |_| vec![]), Some(Word::Gone)));
        for nonsense in
            [&b"\n\n\n"[..], b"bye\n", b"bye 1\n", b"free x\n", b"\xff\xfe \x00\n", b"listener\n", b"later word\n"]
        {
            assert!(hear_from(nonsense, |_| vec![]).is_none(), "{nonsense:?}");
        }
    }

    #[test]
    fn standbys_that_say_nonsense_or_never_read_or_are_too_many_do_not_matter() {
        let (listener, address) = listener();
        let mut name = take(&listener, false, "a").unwrap_or_else(|event| panic!("{event:?}"));
        let mut loud = join(address).stream;
        loud.set_nonblocking(true).expect("a mode");
        for _ in 0..50 {
            let _ = loud.write(&[b'x'; 4096]);
            name.look();
        }
        assert_eq!(name.standbys(), 0, "what is no line ends the connection");

        let mute: Vec<Followed> = (0..STANDBYS_MAX + 3)
            .map(|_| {
                let one = join(address);
                name.look();
                one
            })
            .collect();
        assert_eq!(name.standbys(), STANDBYS_MAX);
        drop(mute);
        name.look();
        assert_eq!(name.standbys(), 0, "their places are free again");
        let mut standby = join(address);
        assert!(matches!(next(&mut standby, || name.look()), Word::Listener { .. }));
    }
}
