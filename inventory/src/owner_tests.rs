//! An owner against a log in memory: every frame goes where the test says, when it says so.

use proptest::prelude::*;

use super::*;
use crate::board::{Beat, NodeState};
use crate::definition::tests::one_run;
use crate::entry::{Passengers, PoolEntry, Take};
use crate::pool::tests::{founded, policy, say};
use crate::words::Request;

const RUN: RunId = RunId(0);
const CLASS: ClassId = ClassId(0);

/// One share's partition with its owner, the pool and the board.
struct World {
    pool: Pool,
    board: Board,
    boarded: u64,
    beats: u64,
    incarnation: Incarnation,
    log: Vec<Vec<u8>>,
    now: Now,
    out: Vec<Output>,
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn request(buyer: u8, key: u8, from: u8, to: u8, party: usize) -> OrderRequest {
    OrderRequest {
        key: Digest128([key; 16]),
        body: Digest128([key; 16]),
        buyer: Digest128([buyer; 16]),
        run: RUN,
        class: CLASS,
        journey: Journey::new(from, to).unwrap(),
        prefer: None,
        passengers: (0..party).map(|_| Digest128([buyer; 16])).collect::<Passengers>(),
        price: 0,
    }
}

impl World {
    /// One share with `coaches` coaches of 90 seats, `buffer` percent of them in the pool.
    fn new(stops: u8, coaches: u16, buffer: u8) -> Self {
        let mut pool = founded(one_run(stops, coaches, 1, buffer));
        say(&mut pool, PoolEntry::Policy(policy(1)));
        let ledger = pool.ledger().unwrap();
        Self {
            board: Board::new(ledger, Incarnation(1)),
            pool,
            boarded: 0,
            beats: 0,
            incarnation: Incarnation(0),
            log: Vec::new(),
            now: Now { wall: Millis(1_000_000), mono: Millis(50_000) },
            out: Vec::new(),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now { wall: self.now.wall.plus(ms), mono: self.now.mono.plus(ms) };
    }

    /// Folds the log, claims, reads the Claim back and is heard on the board.
    fn claim(&mut self, incarnation: u64) -> Owner {
        let address = "127.0.0.1:1".parse().unwrap();
        let new =
            Candidate::new(&self.pool, ShareId(1), node("n1"), address, Incarnation(incarnation));
        let mut candidate = new.unwrap();
        for (at, record) in self.log.iter().enumerate() {
            candidate.read(Offset(at as u64), record);
        }
        let claim = candidate.claim(self.now.wall);
        self.log.push(claim.clone());
        let at = Offset(self.log.len() as u64 - 1);
        assert_eq!(candidate.read(at, &claim), (Verdict::Accepted, Progress::Owns));
        let mut owner = candidate.into_owner(self.now);
        self.incarnation = Incarnation(incarnation);
        self.board = Board::new(self.pool.ledger().unwrap(), self.incarnation);
        self.give(&mut owner, Input::PoolEnd(self.pool.position()));
        // Before the board has told of the Claim for a while, nothing is sold or answered.
        for _ in 0..5 {
            self.beat(&mut owner);
            self.pass(400);
        }
        self.beat(&mut owner);
        owner
    }

    fn give(&mut self, owner: &mut Owner, input: Input<'_>) {
        let view = View { pool: &self.pool, board: &self.board };
        owner.handle(self.now, view, input, &mut self.out);
    }

    fn ask(&mut self, owner: &mut Owner, caller: u64, command: &Command) {
        self.give(owner, Input::Command(Caller(caller), command));
    }

    fn place(&mut self, owner: &mut Owner, caller: u64, request: OrderRequest) {
        self.ask(owner, caller, &Command::Place(request));
    }

    /// Seals what there is and writes it; the fate stays untold.
    fn write(&mut self, owner: &mut Owner) -> Option<(Seq, Offset)> {
        let (seq, frame) = owner.seal(self.now)?;
        self.log.push(frame);
        Some((seq, Offset(self.log.len() as u64 - 1)))
    }

    /// Ninety buyers, and as many seats.
    fn sell_all(&mut self, owner: &mut Owner) {
        for buyer in 0..90 {
            self.place(owner, buyer.into(), request(buyer, buyer, 0, 2, 1));
        }
        self.flow(owner);
    }

    /// Seals, writes and delivers until there is nothing left to say.
    fn flow(&mut self, owner: &mut Owner) {
        while let Some((seq, at)) = self.write(owner) {
            self.give(owner, Input::Delivered(seq, Fate::At(at)));
        }
    }

    /// The owner beats and its beat is read back.
    fn beat(&mut self, owner: &mut Owner) {
        self.beats += 1;
        let view = View { pool: &self.pool, board: &self.board };
        let beat = Beat {
            ledger: self.pool.ledger().unwrap(),
            node: node("n1"),
            address: "127.0.0.1:1".parse().unwrap(),
            incarnation: self.incarnation,
            number: self.beats,
            state: NodeState::Ready,
            full: true,
            pool: self.pool.position(),
            seen: self.board.position(),
            shares: vec![owner.beat(self.now, view)],
            folded: Vec::new(),
            rows: owner.rows(true),
        };
        self.board.sent(self.beats, self.now.mono);
        self.hear(&beat);
        self.give(owner, Input::Moved);
    }

    fn hear(&mut self, beat: &Beat) {
        let bytes = beat.encode();
        assert_eq!(&Beat::decode(&bytes).unwrap(), beat);
        self.board.read(self.now.mono, Offset(self.boarded), &bytes).unwrap();
        self.boarded += 1;
    }

    fn answers(&mut self) -> Vec<(u64, Answer)> {
        let out = std::mem::take(&mut self.out);
        out.into_iter()
            .filter_map(|o| match o {
                Output::Answer(caller, answer) => Some((caller.0, answer)),
                _ => None,
            })
            .collect()
    }

    fn answer(&mut self) -> Answer {
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0).1
    }

    /// The log folded from its start must be what the owner has in memory.
    fn folds_to(&self, owner: &Owner) {
        let initial = self.pool.initial(ShareId(1));
        let mut state = ShareState::new(self.pool.ledger().unwrap(), ShareId(1), &initial);
        for (at, record) in self.log.iter().enumerate() {
            fold(&mut state, Offset(at as u64), record);
        }
        assert_eq!(state.orders(), owner.state().orders());
        assert_eq!(state.stock(), owner.state().stock());
        assert!(state.timers().eq(owner.state().timers()));
        for (key, stock) in state.stock() {
            assert_eq!(&Digest::of(stock), &owner.digests[key]);
        }
    }
}

fn order(answer: &Answer) -> &OrderView {
    match answer {
        Answer::Order { view, .. } => view,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_hears_of_a_seat_before_the_log_has_it() {
    let mut w = World::new(5, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 7, request(1, 1, 0, 4, 1));
    assert!(w.answers().is_empty());
    let (seq, at) = w.write(&mut owner).unwrap();
    assert!(w.answers().is_empty());
    w.give(&mut owner, Input::Delivered(seq, Fate::At(at)));
    let answer = w.answer();
    assert_eq!(order(&answer).seats.as_slice(), [0]);
    assert_eq!(order(&answer).price, 100);
    assert_eq!(order(&answer).position, Some((ShareId(1), at)));
    w.folds_to(&owner);
}

#[test]
fn the_90th_seat_is_sold_and_the_91st_buyer_hears_sold_out() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.sell_all(&mut owner);
    let answers = w.answers();
    assert_eq!(answers.len(), 90);
    let seats: BTreeSet<u16> = answers.iter().map(|(_, a)| order(a).seats[0]).collect();
    assert_eq!(seats.len(), 90);
    w.place(&mut owner, 90, request(90, 90, 0, 1, 1));
    assert!(w.answers().is_empty(), "nothing is proven without the board");
    let beat = w.now.wall;
    w.beat(&mut owner);
    assert!(matches!(w.answer(), Answer::SoldOut { held: 90, as_of, .. } if as_of == beat));
    w.pass(150);
    w.place(&mut owner, 91, request(91, 91, 0, 1, 1));
    let answer = w.answer();
    assert!(matches!(answer, Answer::SoldOut { as_of, .. } if as_of == beat), "{answer:?}");
    w.folds_to(&owner);
}

#[test]
fn an_owner_whom_the_log_keeps_waiting_proves_nothing() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.sell_all(&mut owner);
    let id = order(&w.answers()[0].1).order;
    let found = |w: &World| {
        let journey = Journey::new(0, 2).unwrap();
        let (home, tried) = (ShareId(2), &[][..]);
        let sought = Sought { run: RUN, class: CLASS, journey, party: 1, home, tried };
        w.board.search(w.now.mono, &w.pool, &sought, |_| 0)
    };
    w.beat(&mut owner);
    assert!(matches!(found(&w), Search::Proven { held: 90, .. }));

    // The log has this, and does not say so.
    w.ask(&mut owner, 1, &Command::Cancel { order: id, buyer: Digest128([0; 16]) });
    let (seq, at) = w.write(&mut owner).unwrap();
    w.pass(STALL_MS - 1);
    w.beat(&mut owner);
    assert!(matches!(found(&w), Search::Proven { .. }));
    w.pass(1);
    w.beat(&mut owner);
    assert_eq!(found(&w), Search::Unproven("stalled"));

    w.give(&mut owner, Input::Delivered(seq, Fate::At(at)));
    w.beat(&mut owner);
    assert_eq!(found(&w), Search::Travel(ShareId(1)));
}

#[test]
fn what_the_log_kept_waiting_while_a_machine_slept_counts_as_waiting() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    let stage =
        |w: &World, owner: &Owner| owner.beat(w.now, View { pool: &w.pool, board: &w.board }).stage;
    let (seq, at) = w.write(&mut owner).unwrap();
    assert_eq!(stage(&w, &owner), ShareStage::Selling);
    owner.slept(STALL_MS);
    assert_eq!(stage(&w, &owner), ShareStage::Stalled);
    w.give(&mut owner, Input::Delivered(seq, Fate::At(at)));
    assert_eq!(stage(&w, &owner), ShareStage::Selling);
}

#[test]
fn sold_out_is_not_said_without_fresh_beats() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 0, request(0, 0, 0, 2, 5));
    for buyer in 1..18 {
        w.place(&mut owner, buyer.into(), request(buyer, buyer, 0, 2, 5));
    }
    w.flow(&mut owner);
    w.beat(&mut owner);
    w.answers();
    w.pass(crate::board::LEASE_MS + 1);
    w.place(&mut owner, 1, request(90, 90, 0, 1, 1));
    assert!(w.answers().is_empty());
    w.pass(PARK_MS + 1);
    w.give(&mut owner, Input::Tick);
    assert_eq!(w.answer(), Answer::Busy("stale"));
}

#[test]
fn a_group_that_fits_nowhere_hears_the_largest_that_does() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    for buyer in 1..30 {
        w.place(&mut owner, 0, request(buyer, buyer, 0, 2, 3));
    }
    w.flow(&mut owner);
    w.beat(&mut owner);
    w.answers();
    w.place(&mut owner, 1, request(90, 90, 0, 2, 4));
    assert_eq!(w.answer(), Answer::GroupTooLarge(3));
}

#[test]
fn a_retry_hears_the_same_and_another_body_is_refused() {
    let mut w = World::new(5, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 4, 1));
    w.place(&mut owner, 2, request(1, 1, 0, 4, 1));
    w.flow(&mut owner);
    let answers = w.answers();
    assert_eq!(order(&answers[0].1).order, order(&answers[1].1).order);
    let other = OrderRequest { body: Digest128([9; 16]), ..request(1, 1, 0, 4, 1) };
    w.place(&mut owner, 3, other);
    w.beat(&mut owner);
    assert_eq!(w.answer(), Answer::Refused(Refusal::KeyReused));
    w.place(&mut owner, 4, request(1, 2, 0, 4, 1));
    assert_eq!(w.answer(), Answer::Refused(Refusal::TooManyHolds(1)));
}

#[test]
fn a_paused_owner_s_frame_is_void_after_the_next_claim() {
    let mut w = World::new(3, 1, 0);
    let mut paused = w.claim(1);
    w.place(&mut paused, 1, request(1, 1, 0, 2, 1));
    let mut next = w.claim(2);
    w.place(&mut next, 2, request(2, 2, 0, 2, 1));
    w.flow(&mut next);
    let sold = order(&w.answer()).seats.clone();
    assert_eq!(sold.as_slice(), [0]);
    // The paused owner wakes: its frame lies behind the Claim, so it must read back.
    let (seq, at) = w.write(&mut paused).unwrap();
    w.give(&mut paused, Input::Delivered(seq, Fate::At(at)));
    assert_eq!(w.out, [Output::ReadBack { from: Offset(1), upto: Some(at) }]);
    w.out.clear();
    let claim = w.log[1].clone();
    w.give(&mut paused, Input::Record(Offset(1), &claim));
    let stopped = Output::Stop(Stopped::Outclaimed(Epoch(2)));
    assert_eq!(w.out, [Output::Answer(Caller(1), Answer::Unknown), stopped]);
    w.out.clear();
    // The next owner meets the void frame in its way and goes on.
    w.place(&mut next, 3, request(3, 3, 0, 2, 1));
    let (seq, at) = w.write(&mut next).unwrap();
    w.give(&mut next, Input::Delivered(seq, Fate::At(at)));
    let Output::ReadBack { from, upto: Some(upto) } = w.out.remove(0) else { panic!() };
    for at in from.0..=upto.0 {
        let record = w.log[usize::try_from(at).unwrap()].clone();
        w.give(&mut next, Input::Record(Offset(at), &record));
    }
    assert_eq!(order(&w.answer()).seats.as_slice(), [1]);
    w.folds_to(&next);
}

#[test]
fn an_unknown_fate_is_answered_unknown_and_the_successor_finds_the_order() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    let (seq, _) = w.write(&mut owner).unwrap();
    w.give(&mut owner, Input::Delivered(seq, Fate::Unknown));
    assert_eq!(w.answer(), Answer::Unknown);
    let mut next = w.claim(2);
    w.pass(crate::board::LEASE_MS + 1);
    w.place(&mut next, 2, request(1, 1, 0, 2, 1));
    w.flow(&mut next);
    assert!(w.answers().is_empty(), "an answer that writes nothing needs a lease");
    w.beat(&mut next);
    let answer = w.answer();
    assert_eq!(order(&answer).seats.as_slice(), [0]);
    assert!(matches!(answer, Answer::Order { new: false, .. }));
    w.folds_to(&next);
}

#[test]
fn a_delivery_without_offset_is_found_by_reading_back() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    let (seq, at) = w.write(&mut owner).unwrap();
    w.give(&mut owner, Input::Delivered(seq, Fate::Somewhere));
    assert_eq!(w.out, [Output::ReadBack { from: Offset(1), upto: None }]);
    w.out.clear();
    let record = w.log[1].clone();
    w.give(&mut owner, Input::Record(at, &record));
    assert_eq!(order(&w.answer()).seats.len(), 1);
    assert!(!owner.is_reading());
}

#[test]
fn an_unpaid_hold_ends_after_deadline_and_grace_and_not_before_the_takeover_grace() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    w.flow(&mut owner);
    let id = order(&w.answer()).order;
    w.pass(900_000 + 2_000);
    w.give(&mut owner, Input::Tick);
    assert!(w.write(&mut owner).is_none(), "the grace is not over");
    let mut next = w.claim(2);
    w.pass(1);
    w.give(&mut next, Input::Tick);
    assert!(w.write(&mut next).is_none(), "a take-over delays every end");
    w.pass(TAKEOVER_GRACE_MS);
    w.give(&mut next, Input::Tick);
    w.flow(&mut next);
    let ended = &next.state().order(id).unwrap().state;
    assert!(matches!(ended, OrderState::Ended { why: End::Expired, .. }));
    w.folds_to(&next);
    // A payment that comes now is returned, and says so.
    let (buyer, payment) = (Digest128([1; 16]), Digest128([5; 16]));
    w.ask(&mut next, 2, &Command::Pay { order: id, buyer: Some(buyer), payment, amount: 100 });
    w.flow(&mut next);
    assert!(order(&w.answer()).returned);
}

#[test]
fn a_cancelled_seat_is_on_sale_at_once_and_others_cannot_cancel_it() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    w.flow(&mut owner);
    let id = order(&w.answer()).order;
    w.beat(&mut owner);
    w.ask(&mut owner, 2, &Command::Cancel { order: id, buyer: Digest128([2; 16]) });
    assert_eq!(w.answer(), Answer::Refused(Refusal::NotFound));
    w.ask(&mut owner, 1, &Command::Cancel { order: id, buyer: Digest128([1; 16]) });
    w.place(&mut owner, 3, request(3, 3, 0, 2, 1));
    w.flow(&mut owner);
    let answers = w.answers();
    assert_eq!(order(&answers[0].1).status, Status::Ended(End::Cancelled));
    assert_eq!(order(&answers[1].1).seats.as_slice(), [0]);
    w.folds_to(&owner);
}

#[test]
fn stock_is_drawn_from_the_pool_before_anyone_hears_no() {
    // 9 blocks of 10 seats, one of which stays in the pool.
    let mut w = World::new(3, 1, 20);
    let mut owner = w.claim(1);
    for buyer in 0..80 {
        w.place(&mut owner, buyer.into(), request(buyer, buyer, 0, 2, 1));
    }
    w.flow(&mut owner);
    w.answers();
    w.place(&mut owner, 80, request(80, 80, 0, 2, 1));
    w.out.clear();
    let blocks = w.pool.pick(RUN, CLASS, 1, 3);
    let take = Take { share: ShareId(1), request: Request(1), blocks };
    say(&mut w.pool, PoolEntry::Take(take));
    w.give(&mut owner, Input::Moved);
    w.flow(&mut owner);
    assert_eq!(order(&w.answer()).seats.as_slice(), [80]);
    w.folds_to(&owner);
}

#[test]
fn a_share_that_is_given_up_says_so_last_and_sends_callers_on() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    w.give(&mut owner, Input::Yield(Some(node("n2"))));
    w.place(&mut owner, 2, request(2, 2, 0, 2, 1));
    w.flow(&mut owner);
    assert!(matches!(w.out[0], Output::Rehome(Caller(2), _)));
    assert!(matches!(w.out[1], Output::Answer(Caller(1), Answer::Order { .. })));
    assert_eq!(w.out[2], Output::Stop(Stopped::Yielded));
    let next = w.claim(2);
    assert_eq!(next.epoch(), Epoch(2));
    w.out.clear();
}

#[test]
fn a_lease_ends_while_its_machine_sleeps() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    w.flow(&mut owner);
    let read = Command::Read { order: order(&w.answer()).order, buyer: Digest128([1; 16]) };
    w.beat(&mut owner);
    w.ask(&mut owner, 2, &read);
    assert!(matches!(w.answer(), Answer::Order { .. }));
    // The monotonic clock has not moved, and the share may be another's by now.
    w.board.slept(6_000);
    w.ask(&mut owner, 3, &read);
    assert!(w.answers().is_empty(), "its own beats are from before the sleep");
}

#[test]
fn a_replaced_owner_that_hears_only_itself_says_nothing_from_memory() {
    let mut w = World::new(3, 1, 0);
    let mut old = w.claim(1);
    w.place(&mut old, 1, request(1, 1, 0, 2, 1));
    w.flow(&mut old);
    let id = order(&w.answer()).order;
    // Another process claims and cancels; the old owner's board was read anew from its end, so
    // that it has not heard of the claim.
    let mut next = w.claim(2);
    let buyer = Digest128([1; 16]);
    w.ask(&mut next, 2, &Command::Cancel { order: id, buyer });
    w.flow(&mut next);
    w.answers();
    w.incarnation = Incarnation(1);
    w.board = Board::new(w.pool.ledger().unwrap(), Incarnation(1));
    w.beat(&mut old);
    w.beat(&mut old);
    w.ask(&mut old, 3, &Command::Read { order: id, buyer });
    assert!(w.answers().is_empty());
    w.pass(PARK_MS);
    w.give(&mut old, Input::Tick);
    assert_eq!(w.answer(), Answer::Busy("lease"));
}

#[test]
fn a_replaced_owner_that_hears_of_an_old_frame_late_says_nothing_from_memory() {
    let mut w = World::new(3, 1, 0);
    let mut old = w.claim(1);
    w.place(&mut old, 1, request(1, 1, 0, 2, 1));
    let (seq, at) = w.write(&mut old).unwrap();
    // The frame is in the log and its writer is not told. Another claims, and cancels the order.
    let heard = w.board.clone();
    let mut next = w.claim(2);
    let buyer = Digest128([1; 16]);
    let id = next.state().orders().iter().next().unwrap().0;
    w.ask(&mut next, 2, &Command::Cancel { order: id, buyer });
    w.flow(&mut next);
    w.answers();
    // Asked now, the old owner must not answer behind a frame that was written long ago.
    w.board = heard;
    w.ask(&mut old, 3, &Command::Read { order: id, buyer });
    w.ask(&mut old, 4, &Command::Read { order: id, buyer: Digest128([9; 16]) });
    w.give(&mut old, Input::Delivered(seq, Fate::At(at)));
    let confirmed = w.answers();
    assert_eq!(confirmed.len(), 1, "what was written may be said: {confirmed:?}");
    assert_eq!(confirmed[0].0, 1);
    w.pass(PARK_MS);
    w.give(&mut old, Input::Tick);
    assert_eq!(w.answers(), [(3, Answer::Busy("lease")), (4, Answer::Busy("lease"))]);
}

#[test]
fn a_payment_for_an_order_that_is_forgotten_finds_no_order() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    w.flow(&mut owner);
    let (id, buyer) = (order(&w.answer()).order, Digest128([1; 16]));
    w.ask(&mut owner, 2, &Command::Cancel { order: id, buyer });
    w.flow(&mut owner);
    w.answers();
    w.pass(crate::state::ENDED_KEPT_MS);
    w.beat(&mut owner);
    let payment = Digest128([5; 16]);
    w.ask(&mut owner, 3, &Command::Pay { order: id, buyer: Some(buyer), payment, amount: 100 });
    w.flow(&mut owner);
    for _ in 0..5 {
        w.pass(400);
        w.beat(&mut owner);
        w.ask(&mut owner, 3, &Command::Pay { order: id, buyer: Some(buyer), payment, amount: 100 });
    }
    assert!(w.answers().iter().any(|(_, a)| *a == Answer::Refused(Refusal::NotFound)));
    w.place(&mut owner, 4, request(2, 2, 0, 2, 1));
    w.flow(&mut owner);
    w.folds_to(&owner);
}

#[test]
fn a_payment_that_is_told_again_after_the_refund_is_not_returned_twice() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    w.flow(&mut owner);
    let (id, buyer) = (order(&w.answer()).order, Digest128([1; 16]));
    let payment = Digest128([5; 16]);
    let pay = Command::Pay { order: id, buyer: Some(buyer), payment, amount: 100 };
    w.ask(&mut owner, 2, &pay);
    w.ask(&mut owner, 3, &Command::Cancel { order: id, buyer });
    w.ask(&mut owner, 4, &pay);
    w.flow(&mut owner);
    let answers = w.answers();
    assert_eq!(order(&answers[1].1).status, Status::Ended(End::Refunded));
    assert!(!order(&answers[2].1).returned);
    w.folds_to(&owner);
}

#[test]
fn a_whole_record_of_a_later_format_stops_the_owner_and_freezes_the_fold() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    let mut later = w.log[0].clone();
    later[82] = 2;
    let sum = blake3::hash(&later[16..]);
    later[..16].copy_from_slice(&sum.as_bytes()[..16]);
    w.log.push(later.clone());
    let (seq, at) = w.write(&mut owner).unwrap();
    w.give(&mut owner, Input::Delivered(seq, Fate::At(at)));
    w.out.clear();
    w.give(&mut owner, Input::Record(Offset(1), &later));
    assert!(w.out.contains(&Output::Stop(Stopped::Contradiction(Offset(1)))));
    let mut state = ShareState::new(w.pool.ledger().unwrap(), ShareId(1), &[]);
    assert!(matches!(fold(&mut state, Offset(0), &later), Verdict::Fault(_)));
    assert!(state.frozen().is_some());
}

proptest! {
    /// Whatever buyers do, memory is the fold of the log, and no leg is sold twice (the fold
    /// would fault).
    #[test]
    fn memory_equals_the_fold(
        acts in prop::collection::vec((0u8..4, 0u8..20, 0u8..6, 1u8..6, 1usize..4), 1..120)
    ) {
        let mut w = World::new(6, 1, 30);
        let mut owner = w.claim(1);
        let mut orders: Vec<(OrderId, u8)> = Vec::new();
        for (at, (act, buyer, from, len, party)) in acts.into_iter().enumerate() {
            let key = u8::try_from(at).unwrap();
            let to = (from + len).min(5);
            match act {
                0 | 1 if from < to => {
                    w.place(&mut owner, at as u64, request(buyer, key, from, to, party));
                }
                2 => if let Some((id, buyer)) = orders.get(usize::from(from)).copied() {
                    let buyer = Digest128([buyer; 16]);
                    w.ask(&mut owner, 0, &Command::Cancel { order: id, buyer });
                },
                3 => if let Some((id, buyer)) = orders.get(usize::from(from)).copied() {
                    let amount = owner.state().order(id).unwrap().price;
                    let (buyer, payment) = (Digest128([buyer; 16]), Digest128([key; 16]));
                    w.ask(&mut owner, 0, &Command::Pay { order: id, buyer: Some(buyer), payment, amount });
                },
                _ => {}
            }
            if buyer % 3 == 0 {
                w.flow(&mut owner);
                w.beat(&mut owner);
            }
            for output in std::mem::take(&mut w.out) {
                if let Output::Answer(_, Answer::Order { view, new: true }) = output
                    && matches!(view.status, Status::Held(_))
                {
                    orders.push((view.order, view.buyer.0[0]));
                }
            }
        }
        w.flow(&mut owner);
        w.folds_to(&owner);
    }
}

/// A pool that is read anew from its beginning comes by where the Claim found it.
#[test]
fn a_pool_that_is_read_anew_does_not_bring_a_revoked_policy_back() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    let at_claim = w.pool.clone();
    let suspended = crate::entry::Policy { state: crate::entry::SaleState::Suspended, ..policy(2) };
    say(&mut w.pool, PoolEntry::Policy(suspended));
    w.give(&mut owner, Input::Moved);
    w.place(&mut owner, 1, request(1, 1, 0, 2, 1));
    assert_eq!(w.answer(), Answer::Refused(Refusal::Suspended));
    let obeyed = std::mem::replace(&mut w.pool, at_claim);
    w.give(&mut owner, Input::Moved);
    w.place(&mut owner, 2, request(2, 2, 0, 2, 1));
    w.flow(&mut owner);
    assert!(w.answers().is_empty(), "it waits until it knows as much as before");
    w.pool = obeyed;
    w.give(&mut owner, Input::Moved);
    assert_eq!(w.answer(), Answer::Refused(Refusal::Suspended));
}

/// A paid order that lives elsewhere was refunded there without a word to its home, and was
/// forgotten there a day after. Its buyer asks for it.
#[test]
fn an_order_that_was_forgotten_where_it_lived_ends_at_home() {
    let mut w = World::new(3, 1, 0);
    let mut owner = w.claim(1);
    let order = OrderId { home: ShareId(1), epoch: owner.epoch(), number: 1 };
    let of = request(1, 1, 0, 2, 1);
    let (attempt, to) = (Attempt(1), ShareId(2));
    let sent = Sent { order, attempt, to, request: of.clone() };
    let seats: Seats = [500].into_iter().collect();
    let placed = Entry::Placed { order, attempt, seats, deadline: w.now.wall };
    let paid = Entry::Paid { order, payment: Digest128::default(), amount: 100 };
    for entry in [Entry::Sent(sent), placed, paid] {
        assert!(owner.write(w.now, &entry));
    }
    w.flow(&mut owner);
    w.pass(400);
    w.beat(&mut owner);
    w.out.clear();
    w.give(&mut owner, Input::Relayed(Caller(1), order, Answer::Refused(Refusal::NotFound)));
    let asked = Command::Resolve { order, attempt };
    let asks = |o: &Output| matches!(o, Output::Travel { command, .. } if *command == asked);
    assert!(w.out.iter().any(asks), "{:?}", w.out);
    assert_eq!(w.answer(), Answer::Refused(Refusal::NotFound));
    w.give(&mut owner, Input::Reply(order, attempt, Reply::No));
    w.flow(&mut owner);
    let state = &owner.state().order(order).unwrap().state;
    assert!(matches!(state, OrderState::Closed { why: End::Refunded, .. }), "{state:?}");
}

#[test]
fn a_second_frame_goes_when_it_brings_as_much_as_the_first_or_is_large() {
    let mut world = World::new(3, 12, 0);
    let mut owner = world.claim(1);
    let few = |world: &mut World, owner: &mut Owner, buyers: std::ops::Range<u8>| {
        for buyer in buyers {
            world.place(owner, buyer.into(), request(buyer, buyer, 0, 2, 1));
        }
    };
    few(&mut world, &mut owner, 0..3);
    let first = world.write(&mut owner).unwrap();
    few(&mut world, &mut owner, 3..5);
    assert_eq!((owner.waits_since(), world.write(&mut owner)), (None, None), "two behind three");
    few(&mut world, &mut owner, 5..6);
    assert!(owner.waits_since().is_some(), "three behind three");
    let second = world.write(&mut owner).unwrap();
    few(&mut world, &mut owner, 6..20);
    assert_eq!(world.write(&mut owner), None, "two are under way");
    for (seq, at) in [first, second] {
        world.give(&mut owner, Input::Delivered(seq, Fate::At(at)));
    }
    // Many, and behind them so many passengers that fewer orders make a large frame.
    few(&mut world, &mut owner, 20..155);
    world.write(&mut owner).unwrap();
    let mut orders = 0;
    while owner.waits_since().is_none() {
        let buyer = 155 + orders;
        world.place(&mut owner, 0, request(buyer, buyer, 0, 2, 5));
        orders += 1;
    }
    assert!((20..135).contains(&orders), "{orders}");
    assert!(world.write(&mut owner).is_some());
}
