//! One seed played: rounds of orders in an order that the seed decides, calm or with kills, and what must hold at the
//! end of each.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Dice;
use crate::asks::Asking;
use crate::calls::{Call, Kill};
use crate::client::{R03, R06, R11, Session};
use crate::errands::{Errands, Plan};
use crate::follower::Follower;
use crate::listings::Listing;
use crate::notes::{self, Notes};
use crate::peer::{KINDS, Peer, STATELESS, View};
use crate::program::{Program, Start, World, fresh_id};
use crate::skills::{EXTRAS, write_skills};
use crate::wait::{PATIENCE, print};

const ROUNDS: usize = 4;
const ORDERS: usize = 26;
/// Time in which everybody hears of a change.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Time in which a notification that must not come would have come.
const QUIET: Duration = Duration::from_millis(700);

struct Instance {
    id: String,
    dcc: &'static str,
    program: Option<Program>,
    has: [bool; 2],
}

pub struct Game {
    seed: u64,
    dice: Dice,
    world: World,
    instances: Vec<Instance>,
    peers: Vec<Peer>,
    followers: Vec<Follower>,
    next_id: [u64; 4],
    calls: Vec<Call>,
    askings: Vec<Asking>,
    errands: Errands,
    notes: Notes,
    listings: Vec<Listing>,
    kills: Vec<Kill>,
    /// Changes of this round, of each kind; only counted where it is calm.
    changes: [usize; 3],
    trail: Vec<String>,
    faults: Vec<String>,
}

impl Game {
    pub fn new(seed: u64) -> Game {
        let world = World::new();
        write_skills(&world.skills());
        let notes = Notes::new(&world.skills().join("work/resources"), 4);
        let instances = ["maya", "blender", "houdini"]
            .map(|dcc| Instance { id: fresh_id(), dcc, program: None, has: [false; 2] })
            .into();
        let mut game = Game {
            seed,
            dice: Dice::new(seed),
            world,
            instances,
            peers: Vec::new(),
            followers: Vec::new(),
            next_id: [0; 4],
            calls: Vec::new(),
            askings: Vec::new(),
            errands: Errands::default(),
            notes,
            listings: Vec::new(),
            kills: Vec::new(),
            changes: [0; 3],
            trail: Vec::new(),
            faults: Vec::new(),
        };
        for instance in 0..game.instances.len() {
            game.launch(instance);
        }
        game.wait_all_listed();
        game.peers = [R03, R06, R11, STATELESS]
            .iter()
            .enumerate()
            .map(|(number, revision)| Peer::connect(number, revision, game.world.gateway()).expect("a session"))
            .collect();
        game.errands.stranger = Peer::connect(4, R11, game.world.gateway()).ok();
        let ids: Vec<String> = game.instances.iter().map(|instance| instance.id.clone()).collect();
        let follow = |peer: &Peer| Follower::start(peer.clone(), notes::uris(peer.number, &ids));
        game.followers = game.peers.iter().map(follow).collect();
        game
    }

    /// Plays all rounds; what did not hold, with the seed and what had happened.
    pub fn play(mut self) -> Vec<String> {
        let begun = Instant::now();
        let mut played = 0;
        for round in 0..ROUNDS {
            // One in two has kills, and each seed has both.
            let is_calm = if round == 0 { true } else { round != 1 && self.dice.chance(50) };
            self.round(is_calm);
            played += self.next_id.iter().sum::<u64>();
            if !self.faults.is_empty() {
                break;
            }
        }
        let (about_tasks, seconds) = (self.errands.asked, begun.elapsed().as_secs_f64());
        print(&format!("seed {}: {played} requests and {about_tasks} about tasks, {seconds:.1} s", self.seed));
        let trail = self.trail.join(", ");
        let logs: Vec<String> =
            self.instances.iter().filter_map(|instance| instance.program.as_ref()).map(Program::stderr).collect();
        let describe = |fault: &String| format!("SEED={}: {fault}\n  after: {trail}\n{}", self.seed, logs.join("\n"));
        self.faults.iter().take(3).map(describe).collect()
    }

    fn round(&mut self, is_calm: bool) {
        self.trail.push(if is_calm { "calm" } else { "storm" }.to_owned());
        let before = self.peers[0].view().unwrap_or_default();
        let told: Vec<[usize; 3]> = self.followers.iter().map(Follower::told).collect();
        (self.kills, self.changes, self.next_id) = (Vec::new(), [0; 3], [0; 4]);
        let away = self.dice.below(self.peers.len());
        self.faults.extend(self.notes.begin(&self.followers));
        self.followers[away].go_away();
        self.notes.change(away);
        let mut reopened = BTreeSet::new();
        for _ in 0..ORDERS {
            thread::sleep(Duration::from_millis(self.dice.below(25) as u64));
            match self.dice.below(if is_calm { 84 } else { 100 }) {
                0..25 => self.call(),
                25..33 => self.ask(),
                33..40 => self.begin_task(),
                40..45 => {
                    let peer = self.dice.below(self.peers.len());
                    self.trail.push(format!("the note of {peer} changes"));
                    self.notes.change(peer);
                }
                45..60 => self.list(),
                60..70 => self.cancel(),
                70..76 => {
                    let peer = self.dice.below(self.peers.len());
                    self.trail.push(format!("{peer} reopens"));
                    reopened.insert(peer);
                    self.followers[peer].reopen();
                }
                76..84 => self.change(is_calm),
                84..93 => self.kill(),
                _ => self.restart(),
            }
        }
        let truth = self.settle();
        self.check_followers(&truth);
        if is_calm {
            self.check_counts(&told, away, &reopened);
            self.check_notes(away, &reopened);
        }
        self.check_return(away, &before, &truth);
        if is_calm && !self.peers[away].is_stateless() {
            self.faults.extend(self.notes.check(away, &self.followers[away]));
        }
        if !is_calm {
            self.faults.extend(self.notes.check_all_anew(&self.followers));
        }
        self.faults.extend(self.followers.iter().flat_map(Follower::take_faults));
    }

    /// Where it was calm, everybody was told of its own note if it changed.
    fn check_notes(&mut self, away: usize, reopened: &BTreeSet<usize>) {
        for (number, follower) in self.followers.iter().enumerate() {
            let may_have_missed = self.peers[number].is_stateless() && reopened.contains(&number);
            if number != away && !may_have_missed {
                self.faults.extend(self.notes.check(number, follower));
            }
        }
    }

    /// A call that asks its client, where another client may try to answer.
    fn ask(&mut self) {
        let (peer, target) = (self.dice.below(self.peers.len()), self.dice.below(self.instances.len()));
        let thief = self.dice.below(self.peers.len());
        self.next_id[peer] += 2;
        let ids = [self.next_id[peer] - 1, self.next_id[peer]];
        self.trail.push(format!("{peer} is asked by {target} in {}", ids[0]));
        let tool = self.tool(target, "ask");
        let is_thief = thief != peer && !self.peers[thief].is_stateless();
        let thief = is_thief.then(|| self.peers[thief].clone());
        self.askings.push(Asking::start(&self.peers[peer], ids, (target, tool), thief));
    }

    /// A call that becomes a task, in one of the two forms, through the gateway or not.
    fn begin_task(&mut self) {
        let target = self.dice.below(self.instances.len());
        let (has_session, wants_direct) = (self.dice.chance(50), self.dice.chance(30));
        let tool = ["run", "run", "ask", "first"][self.dice.below(4)];
        let (core, extension) = (self.peers[2].clone(), self.peers[3].declaring_tasks());
        let (client, other) = if has_session { (core, extension) } else { (extension, core) };
        let stranger = self.errands.stranger.clone().filter(|_| self.dice.chance(50));
        let direct = self.instances[target].address().filter(|_| wants_direct);
        let address = direct.unwrap_or(self.world.gateway());
        let number = self.errands.next_number();
        let way = if direct.is_some() { " itself" } else { "" };
        self.trail.push(format!("{} begins task {number} ({tool}) at {target}{way}", client.number));
        let plan = Plan {
            token: format!("client-{}-task-{number}", client.number),
            client: client.at(address),
            target,
            is_direct: direct.is_some(),
            thief: stranger.unwrap_or(other).at(address),
            tool: if direct.is_some() { format!("work__{tool}") } else { self.tool(target, tool) },
            steps: self.dice.below(12),
            number,
        };
        self.errands.start(plan, &mut self.dice);
    }

    fn call(&mut self) {
        let (peer, target) = (self.dice.below(self.peers.len()), self.dice.below(self.instances.len()));
        let (steps, wants_progress) = (self.dice.below(8), self.dice.chance(60));
        self.next_id[peer] += 1;
        let id = self.next_id[peer];
        self.trail.push(format!("{peer} calls {target} as {id}"));
        let tool = self.tool(target, "run");
        self.calls.push(Call::start(&self.peers[peer], id, (target, tool), steps, wants_progress));
    }

    /// A tool of the skill that is always loaded, as the gateway calls it.
    fn tool(&self, at: usize, name: &str) -> String {
        format!("{}__work__{name}", &self.instances[at].id[..8])
    }

    fn list(&mut self) {
        let peer = self.dice.below(self.peers.len());
        self.next_id[peer] += 1;
        let id = self.next_id[peer];
        self.trail.push(format!("{peer} lists"));
        let killed: Vec<usize> = self.kills.iter().map(|kill| kill.instance).collect();
        let instances = (0..self.instances.len()).filter(|instance| !killed.contains(instance)).collect();
        self.listings.push(Listing::start(&self.peers[peer], id, instances));
    }

    fn cancel(&mut self) {
        let running: Vec<usize> = (0..self.calls.len()).filter(|at| self.calls[*at].can_be_cancelled()).collect();
        if let Some(at) = (!running.is_empty()).then(|| running[self.dice.below(running.len())]) {
            self.trail.push(format!("{} cancels {}", self.calls[at].peer.number, self.calls[at].id));
            self.calls[at].cancel();
        }
    }

    /// Loads or unloads a skill at an instance that lives. Where it is calm, everybody who follows hears of it.
    fn change(&mut self, is_calm: bool) {
        let (at, extra) = (self.dice.below(self.instances.len()), self.dice.below(EXTRAS.len()));
        let instance = &mut self.instances[at];
        let Some(address) = instance.address() else { return };
        instance.has[extra] ^= true;
        let (skill, kinds) = EXTRAS[extra];
        let tool = if instance.has[extra] { "load_skill" } else { "unload_skill" };
        self.trail.push(format!("{tool} {skill} at {at}"));
        let hearers = self.hearers();
        Session::open(address, R06).structured(tool, json!({"skill_name": skill}));
        kinds.iter().for_each(|kind| self.changes[*kind] += 1);
        if is_calm {
            self.wait_told(&hearers, kinds);
        }
    }

    /// Who must hear of a change that is made now, with what each was told before. Whoever has no session and no stream
    /// at this moment will look at the lists instead.
    fn hearers(&self) -> Vec<(usize, [usize; 3])> {
        let must = |(number, follower): &(usize, &Follower)| {
            !follower.is_away() && (!self.peers[*number].is_stateless() || follower.stands())
        };
        self.followers.iter().enumerate().filter(must).map(|(number, follower)| (number, follower.told())).collect()
    }

    fn wait_told(&mut self, hearers: &[(usize, [usize; 3])], kinds: &[usize]) {
        let end = Instant::now() + TOLD_WITHIN;
        for (number, before) in hearers {
            let follower = &self.followers[*number];
            let has_heard = || kinds.iter().all(|kind| follower.told()[*kind] > before[*kind]);
            if !holds_by(end, has_heard) {
                let fault = format!("client {number} was told of {:?} after {before:?}", follower.told());
                return self.faults.push(fault);
            }
        }
    }

    /// `kill -9` of a process that lives, as long as another one does.
    fn kill(&mut self) {
        let alive: Vec<usize> = (0..self.instances.len()).filter(|at| self.instances[*at].program.is_some()).collect();
        if alive.len() < 2 || self.kills.len() >= 3 {
            return;
        }
        let victim = alive[self.dice.below(alive.len())];
        let is_gateway = |at: &usize| self.instances[*at].program.as_ref().is_some_and(Program::is_gateway);
        // Right after a takeover no entry may say yet who has taken over.
        let was_gateway = is_gateway(&victim) || !alive.iter().any(is_gateway);
        self.trail.push(format!("{victim}{} is killed", if was_gateway { ", the gateway," } else { "" }));
        let is_ready =
            |at: &usize| self.instances[*at].program.as_ref().is_some_and(|program| program.address.port() != 0);
        let has_successor = alive.iter().any(|at| *at != victim && is_ready(at));
        let at = Instant::now();
        if let Some(mut program) = self.instances[victim].program.take() {
            program.kill_9();
        }
        self.kills.push(Kill { at, over: Instant::now(), instance: victim, was_gateway, has_successor });
        self.instances[victim].has = [false; 2];
    }

    fn restart(&mut self) {
        if let Some(at) = (0..self.instances.len()).find(|at| self.instances[*at].program.is_none()) {
            self.trail.push(format!("{at} is started again"));
            self.launch(at);
        }
    }

    fn launch(&mut self, at: usize) {
        let skills = self.world.skills().display().to_string();
        let instance = &mut self.instances[at];
        let args = ["--dcc", instance.dcc, "--skill-paths", &skills, "--load-skills", "work"];
        instance.program = Some(self.world.launch(Start::new().args(args).instance_id(&instance.id)));
    }

    /// Starts again what was killed, and waits until all that was asked is answered; gives the lists as they are then.
    fn settle(&mut self) -> View {
        (0..self.instances.len()).for_each(|_| self.restart());
        let truth = self.wait_all_listed();
        let kills = std::mem::take(&mut self.kills);
        let tools: Vec<String> = (0..self.instances.len()).map(|at| self.tool(at, "run")).collect();
        for call in std::mem::take(&mut self.calls) {
            self.faults.extend(call.judge(&kills).err());
        }
        for asking in std::mem::take(&mut self.askings) {
            self.faults.extend(asking.judge(&kills).err());
        }
        for listing in std::mem::take(&mut self.listings) {
            self.faults.extend(listing.judge(&kills, &tools).err());
        }
        let addresses: Vec<SocketAddr> = self.instances.iter().filter_map(Instance::address).collect();
        self.faults.extend(self.errands.settle(&kills, self.world.gateway(), &addresses));
        truth
    }

    /// Waits until the gateway lists what all instances have; gives its lists.
    fn wait_all_listed(&mut self) -> View {
        for instance in &mut self.instances {
            instance.program.as_mut().expect("all are started").wait_ready();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            // The gateway may change hands until everybody is there.
            let view = Peer::connect(0, R11, self.world.gateway()).and_then(|peer| peer.view());
            match view {
                Ok(view) if self.instances.iter().all(|instance| instance.is_listed(&view)) => return view,
                Ok(view) if Instant::now() > end => {
                    self.faults.push(format!("the lists never became what they should: {view:?}"));
                    return view;
                }
                Err(error) if Instant::now() > end => panic!("SEED={}: no lists: {error}", self.seed),
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Everybody who follows has the lists as they are, and heard nothing that was not for it.
    fn check_followers(&mut self, truth: &View) {
        let end = Instant::now() + TOLD_WITHIN;
        for (number, follower) in self.followers.iter().enumerate() {
            if !follower.is_away() && !holds_by(end, || follower.view() == *truth) {
                let fault = format!("client {number} missed a change: it has {:?}, not {truth:?}", follower.view());
                self.faults.push(fault);
            }
            self.faults.extend(follower.take_faults());
        }
    }

    /// Where it was calm, everybody was told of each change once.
    fn check_counts(&mut self, before: &[[usize; 3]], away: usize, reopened: &BTreeSet<usize>) {
        for (number, follower) in self.followers.iter().enumerate() {
            let looked_instead = self.peers[number].is_stateless() && reopened.contains(&number);
            let heard = difference(follower.told(), before[number]);
            if number != away && !looked_instead && heard != self.changes {
                let fault = format!("client {number} was told {heard:?} times of {:?} changes", self.changes);
                self.faults.push(fault);
            }
        }
    }

    /// The client that was away comes back: it is told once of each kind that differs, and of no other.
    fn check_return(&mut self, away: usize, before: &View, truth: &View) {
        let follower = &self.followers[away];
        let told = follower.told();
        follower.come_back();
        let is_back = holds_by(Instant::now() + TOLD_WITHIN, || follower.stands() && follower.view() == *truth);
        thread::sleep(QUIET);
        let heard = difference(follower.told(), told);
        let due: Vec<usize> = (0..KINDS.len()).map(|kind| usize::from(before[kind] != truth[kind])).collect();
        let is_told = self.peers[away].is_stateless() || heard[..] == due[..];
        if !is_back || !is_told || follower.view() != *truth {
            let view = follower.view();
            let fault = format!("client {away} came back: told {heard:?}, due {due:?}; it has {view:?}, not {truth:?}");
            self.faults.push(fault);
        }
        self.faults.extend(follower.take_faults());
    }
}

impl Instance {
    /// Its own port, if it is known already.
    fn address(&self) -> Option<SocketAddr> {
        self.program.as_ref().map(|program| program.address).filter(|address| address.port() != 0)
    }

    fn is_listed(&self, view: &View) -> bool {
        let short = &self.id[..8];
        view[0].contains(&format!("{short}__work__run"))
            && view[0].contains(&format!("{short}__extra__more")) == self.has[0]
            && view[1].contains(&format!("{short}__notes__ask")) == self.has[1]
            && view[2].contains(&format!("dcc://{}/notes://one", self.id)) == self.has[1]
    }
}

fn difference(now: [usize; 3], before: [usize; 3]) -> [usize; 3] {
    [0, 1, 2].map(|kind| now[kind] - before[kind])
}

pub fn holds_by(end: Instant, condition: impl Fn() -> bool) -> bool {
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
