//! A core's turn: take what has come, let the conductor decide, do what it wants.
//!
//! The only await is for work. A turn runs to its end without one, and there is no choice
//! here: every one of them is made in [`inventory::conductor`].

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use inventory::board::NodeState;
use inventory::claim::Standing;
use inventory::conductor::{self, Hands, Mark, NotTaken, Note, Onward, Outcome, Torn, Work};
use inventory::contend::Contender;
use inventory::draw::Drawing;
use inventory::owner::{Answer, Caller, Fate, Now, Stopped};
use inventory::pool::PoolVerdict;
use inventory::state::Command;
use inventory::words::{Address, ClassId, Digest128, Offset, RunId, ShareId};
use ledger::{Log, Partition, Record, Slip, Tail};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use crate::Ledgers;
use crate::candidates::Candidates;
use crate::draw::draw;
use crate::station::{Mail, Station};
use crate::telemetry::Word;

/// Timers are kept by this clock. Finer than any promise (holds end to the second, beats go
/// every 50 ms), coarse enough to cost nothing.
const TICK: Duration = Duration::from_millis(20);

/// What [`conductor::Conductor::holds_back`] asks for.
const PACE: Duration = Duration::from_millis(1);

/// Postings to partition 0 whose fate somebody waits for: the operator sends one at a time.
const POSTINGS_MAX: usize = 1_024;

/// Slips of the pool's appends have this bit, which the conductor's marks never have.
const POOL_SLIP: u64 = 1 << 63;

/// One core's worker.
pub(crate) struct Worker<S: Ledgers> {
    inbox: mpsc::Receiver<Mail>,
    tick: tokio::time::Interval,
    /// The next turn of frames that wait for theirs.
    pace: Option<Pin<Box<Sleep>>>,
    work: Work,
    /// What the logs gave, before it is work: kept for their room.
    fates: Vec<(Slip, ledger::Fate)>,
    records: Vec<Record>,
    postings: BTreeMap<u64, oneshot::Sender<ledger::Fate>>,
    slips: u64,
    hands: Own<S>,
}

/// The conductor's hands on this core.
struct Own<S: Ledgers> {
    station: Rc<Station>,
    ledgers: S,
    log: S::Log,
    board_log: S::Board,
    pool_tail: <S::Log as Log>::Tail,
    board_tail: <S::Board as Log>::Tail,
    read_backs: BTreeMap<ShareId, <S::Log as Log>::Tail>,
    candidates: Candidates<S::Log>,
}

impl<S: Ledgers> Worker<S> {
    pub(crate) async fn new(
        station: Rc<Station>,
        ledgers: S,
        inbox: mpsc::Receiver<Mail>,
    ) -> Result<Self, crate::Error> {
        let log = ledgers.log();
        let board_log = ledgers.board();
        let pool_end = Offset(log.end(Partition(0)).await?);
        station.world.borrow_mut().conductor.pool_ends_at(pool_end);
        let candidates = Candidates::new(station.mail.clone(), ledgers.log())?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Self {
            inbox,
            tick,
            pace: None,
            work: Work::default(),
            fates: Vec::new(),
            records: Vec::new(),
            postings: BTreeMap::new(),
            slips: 0,
            hands: Own {
                pool_tail: log.tail(Partition(0), 0),
                board_tail: board_log.tail_from_end(Partition(0)),
                station,
                ledgers,
                log,
                board_log,
                read_backs: BTreeMap::new(),
                candidates,
            },
        })
    }

    /// Works until the node is drained.
    pub(crate) async fn run(mut self) {
        loop {
            std::future::poll_fn(|cx| self.poll_work(cx)).await;
            let now = self.hands.station.now();
            self.turn(now);
            let station = &self.hands.station;
            let waiting = station.desk.waiting();
            if station.world.borrow().conductor.is_drained(now.mono, waiting) {
                return;
            }
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (work, hands) = (&mut self.work, &mut self.hands);
        let mut heard = false;
        hands.station.desk.collect(cx, &mut work.commands);
        while hands.log.poll_fates(cx, &mut self.fates).is_ready() {}
        for (slip, fate) in self.fates.drain(..) {
            heard |= fate != ledger::Fate::Unknown;
            if slip.0 & POOL_SLIP == 0 {
                work.fates.push((Mark(slip.0), fate_of(fate)));
            } else if let Some(waits) = self.postings.remove(&slip.0) {
                // Whoever asked may have gone.
                let _ = waits.send(fate);
            }
        }
        // Nobody waits for a beat's fate: it counts when it is read back.
        while hands.board_log.poll_fates(cx, &mut Vec::new()).is_ready() {}
        let records = &mut self.records;
        if let Err(torn) = drain(&mut hands.pool_tail, cx, records) {
            tracing::error!(%torn, "partition 0 is read from its beginning again");
            work.torn.push(Torn::Pool);
        }
        heard |= !records.is_empty();
        work.pool.extend(records.drain(..).map(|r| (Offset(r.offset), r.bytes)));
        if let Err(torn) = drain(&mut hands.board_tail, cx, records) {
            tracing::warn!(%torn, "the board is read from its end again");
            work.torn.push(Torn::Board);
        }
        work.board.extend(records.drain(..).map(|r| (Offset(r.offset), r.bytes)));
        for (share, tail) in &mut hands.read_backs {
            if let Poll::Ready(Err(torn)) = tail.poll_records(cx, records) {
                tracing::error!(%share, %torn, "a share could not be read back");
                work.torn.push(Torn::Share(*share));
            }
            let records = records.drain(..);
            work.read_back.extend(records.map(|r| (*share, Offset(r.offset), r.bytes)));
        }
        while let Poll::Ready(Some(mail)) = self.inbox.poll_recv(cx) {
            match mail {
                Mail::Conductor(mail) => work.mail.push(mail),
                Mail::AppendToPool(record, waits) => {
                    self.slips += 1;
                    let slip = POOL_SLIP | self.slips;
                    if let Err(refused) = hands.log.append(Partition(0), Slip(slip), &record) {
                        tracing::warn!(%refused, "the ledger took no pool record");
                    } else if let Some(waits) = waits
                        && self.postings.len() < POSTINGS_MAX
                    {
                        self.postings.insert(slip, waits);
                    }
                }
            }
        }
        if heard {
            let now = hands.station.now().mono;
            hands.station.world.borrow_mut().ledger_heard = Some(now);
        }
        if self.pace.as_mut().is_some_and(|pace| pace.as_mut().poll(cx).is_ready()) {
            (self.pace, work.paced) = (None, true);
        }
        work.ticked |= pin!(&mut self.tick).poll_tick(cx).is_ready();
        if work.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn turn(&mut self, now: Now) {
        let station = Rc::clone(&self.hands.station);
        let mut world = station.world.borrow_mut();
        let conductor = &mut world.conductor;
        conductor.turn(now, &mut self.work, &mut self.hands);
        match (conductor.holds_back(), &self.pace) {
            (true, None) => self.pace = Some(Box::pin(tokio::time::sleep(PACE))),
            (false, Some(_)) => self.pace = None,
            _ => {}
        }
        self.hands.read_backs.retain(|share, _| conductor.is_reading(*share));
        self.hands.candidates.retain(|share| conductor.is_contended(share));
        station.metrics.shares.set(conductor.shares_owned() as i64);
    }
}

/// Takes all that a tail has.
fn drain(
    tail: &mut impl Tail,
    cx: &mut Context<'_>,
    into: &mut Vec<Record>,
) -> Result<(), ledger::Torn> {
    while let Poll::Ready(result) = tail.poll_records(cx, into) {
        result?;
    }
    Ok(())
}

fn fate_of(fate: ledger::Fate) -> Fate {
    match fate {
        ledger::Fate::At(at) => Fate::At(Offset(at)),
        ledger::Fate::Somewhere => Fate::Somewhere,
        ledger::Fate::Unknown => Fate::Unknown,
    }
}

impl<S: Ledgers> Hands for Own<S> {
    fn append(&mut self, share: ShareId, mark: Mark, frame: &[u8]) -> Result<(), NotTaken> {
        self.station.metrics.frames.inc();
        self.station.metrics.frame_bytes.inc_by(frame.len() as u64);
        self.log.append(Partition(share.0), Slip(mark.0), frame).map_err(|why| {
            tracing::warn!(%share, %why, "the ledger took no frame");
            NotTaken
        })
    }

    fn append_to_board(&mut self, number: u64, beat: &[u8]) -> Result<(), NotTaken> {
        self.station.metrics.beats.inc();
        self.board_log.append(Partition(0), Slip(number), beat).map_err(|_| NotTaken)
    }

    fn answer(&mut self, caller: Caller, outcome: Outcome) -> Option<(Onward, Outcome)> {
        self.station.desk.answer(caller, outcome)
    }

    fn pass_on(&mut self, to: ShareId, command: Command, onward: Onward) {
        if self.station.desk.submit_for(to, command, onward).is_err() {
            tracing::warn!(share = %to, "the inbox is full");
            match onward {
                // The order asks again.
                Onward::Travel { .. } => {}
                // A buyer waits, and nobody else knows of it.
                Onward::Relay { caller, .. } => {
                    self.station.desk.answer(caller, Outcome::Answered(Answer::Busy("full")));
                }
            }
        }
    }

    fn send(&mut self, at: Address, to: ShareId, command: Command, onward: Onward) {
        let station = Rc::clone(&self.station);
        tokio::task::spawn_local(async move {
            let key = station.world.borrow().pool().key();
            let sent = match key {
                Some(key) => {
                    station.metrics.forwarded.inc();
                    station.courier.send(at, &key, to, &command).await
                }
                None => Err(conductor::Lost::NotSent),
            };
            station.post(Mail::Conductor(conductor::Mail::Returned(onward, sent)));
        });
    }

    fn draw(&mut self, share: ShareId, run: RunId, class: ClassId, blocks: u32) {
        let station = Rc::clone(&self.station);
        tokio::task::spawn_local(draw(station, Drawing::new(share, run, class, blocks)));
    }

    fn read_back(&mut self, share: ShareId, from: Offset) {
        tracing::info!(%share, %from, "reading back");
        self.read_backs.insert(share, self.log.tail(Partition(share.0), from.0));
    }

    fn reread_pool(&mut self) {
        self.pool_tail = self.log.tail(Partition(0), 0);
    }

    fn reread_board(&mut self) {
        self.board_tail = self.board_log.tail_from_end(Partition(0));
    }

    fn contend(&mut self, contender: Contender) -> Result<(), NotTaken> {
        let taken = self.candidates.start(contender, self.ledgers.log(), self.station.clock);
        if taken { Ok(()) } else { Err(NotTaken) }
    }

    fn tell(&mut self, share: ShareId, prospect: Option<(Standing, Now)>) {
        self.candidates.tell(share, prospect);
    }

    fn founded(&mut self, ledger: Digest128) {
        self.station.drawer.start(ledger);
    }

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::Pool(offset, PoolVerdict::Accepted(effects)) => {
                tracing::debug!(%offset, ?effects, "pool");
            }
            Note::Pool(_, PoolVerdict::Void(why)) => {
                let kind = (*why).into();
                self.station.metrics.void.get_or_create(&Word { kind }).inc();
            }
            Note::Pool(offset, PoolVerdict::Fault(why)) => {
                tracing::error!(%offset, why, "partition 0 cannot be read on");
            }
            Note::BeatPassed(offset) => tracing::debug!(%offset, "a beat was passed over"),
            Note::Ready => tracing::info!(state = ?NodeState::Ready, "ready"),
            Note::Owns(share, epoch) => tracing::info!(%share, %epoch, "owns a share"),
            Note::GivesUp(share, to) => tracing::info!(%share, ?to, "giving a share up"),
            Note::Stopped(share, why) => {
                if why == Stopped::Yielded {
                    tracing::info!(%share, "gave a share up");
                } else {
                    tracing::warn!(%share, %why, "an owner stopped");
                }
                let kind = why.into();
                self.station.metrics.stopped.get_or_create(&Word { kind }).inc();
            }
            Note::Torn(torn) => tracing::warn!(?torn, "a log is read anew"),
        }
    }
}
