//! Folding shares and claiming them, on a thread of their own.
//!
//! Folding a long log takes seconds of CPU; buyers of the shares that this node owns already
//! must not wait for it. Each [`Contender`] is driven here; the finished owner is mailed to the
//! worker.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use inventory::claim::Standing;
use inventory::conductor;
use inventory::contend::{Contender, Step};
use inventory::owner::{Now, Owner};
use inventory::words::{Offset, ShareId};
use ledger::{Log, Partition, Slip, Tail, Torn};
use tokio::sync::{mpsc, oneshot, watch};

use crate::station::{Clock, Mail};

/// Starts of contenders that wait for the thread: one for each share of the largest ledger.
const STARTS_MAX: usize = 1_024;

/// How often a contender looks again at the time when nothing else wakes it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a contender knows of its chances; none once the node has lost interest.
type Prospect = watch::Receiver<Option<(Standing, Now)>>;

/// A claim, and how to say whether the log took it.
struct Claim {
    share: ShareId,
    record: Vec<u8>,
    taken: oneshot::Sender<bool>,
}

struct Start<L> {
    contender: Contender,
    /// Only for reading.
    log: L,
    clock: Clock,
    prospect: Prospect,
}

/// The worker's end: which shares are being folded, and what they are told.
pub(crate) struct Candidates<L> {
    starts: mpsc::Sender<Start<L>>,
    running: BTreeMap<ShareId, watch::Sender<Option<(Standing, Now)>>>,
}

impl<L: Log> Candidates<L> {
    /// Starts the thread, which writes all claims with `log`. It ends when this is dropped and no
    /// claim is in flight.
    pub(crate) fn new(mail: mpsc::Sender<Mail>, log: L) -> std::io::Result<Self> {
        let (starts, inbox) = mpsc::channel(STARTS_MAX);
        let thread = std::thread::Builder::new().name("candidates".into());
        thread.spawn(move || serve(inbox, log, &mail))?;
        Ok(Self { starts, running: BTreeMap::new() })
    }

    /// Begins to fold a share. False if the thread has no room.
    pub(crate) fn start(&mut self, contender: Contender, log: L, clock: Clock) -> bool {
        let share = contender.share();
        let (tell, prospect) = watch::channel(contender.prospect());
        let taken = self.starts.try_send(Start { contender, log, clock, prospect }).is_ok();
        if taken {
            self.running.insert(share, tell);
        }
        taken
    }

    /// Tells a contender how it stands.
    pub(crate) fn tell(&self, share: ShareId, prospect: Option<(Standing, Now)>) {
        if let Some(tell) = self.running.get(&share) {
            tell.send_replace(prospect);
        }
    }

    /// Forgets contenders that the conductor does not have any more.
    pub(crate) fn retain(&mut self, contended: impl Fn(ShareId) -> bool) {
        self.running.retain(|share, _| contended(*share));
    }
}

fn serve<L: Log>(mut inbox: mpsc::Receiver<Start<L>>, log: L, mail: &mpsc::Sender<Mail>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        tracing::error!("no runtime for contenders: this node will own nothing");
        return;
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut tasks = tokio::task::JoinSet::new();
        let (claim, claims) = mpsc::channel(STARTS_MAX);
        let claiming = tokio::task::spawn_local(write(claims, log));
        while let Some(start) = inbox.recv().await {
            let (mail, claim) = (mail.clone(), claim.clone());
            tasks.spawn_local(async move {
                let share = start.contender.share();
                let end = match stand(start, &claim, &mail).await {
                    Ok(Some((owner, end))) => conductor::Mail::Owns(owner, end),
                    Ok(None) => conductor::Mail::Gone(share),
                    Err(torn) => {
                        tracing::warn!(%share, %torn, "a share's log could not be folded");
                        conductor::Mail::Gone(share)
                    }
                };
                // The worker is gone only when the process is.
                let _ = mail.send(Mail::Conductor(end)).await;
            });
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
        drop(claim);
        let _ = claiming.await;
    });
}

/// Appends claims until nobody has any more. One log for all contenders, which is ready when a
/// claim comes: nothing is to be connected first, while buyers wait.
async fn write<L: Log>(mut claims: mpsc::Receiver<Claim>, mut log: L) {
    let mut fates = Vec::new();
    std::future::poll_fn(|cx| {
        while let Poll::Ready(claim) = claims.poll_recv(cx) {
            let Some(Claim { share, record, taken }) = claim else { return Poll::Ready(()) };
            let _ = taken.send(log.append(Partition(share.0), Slip(0), &record).is_ok());
        }
        // What became of a claim is read in the log.
        while log.poll_fates(cx, &mut fates).is_ready() {
            fates.clear();
        }
        Poll::Pending
    })
    .await;
}

type Owns = (Box<Owner>, Offset);

/// A contender's whole life.
async fn stand<L: Log>(
    start: Start<L>,
    claims: &mpsc::Sender<Claim>,
    mail: &mpsc::Sender<Mail>,
) -> Result<Option<Owns>, Torn> {
    let Start { mut contender, log, clock, mut prospect } = start;
    let share = contender.share();
    let partition = Partition(share.0);
    let mut tail = log.tail(partition, contender.reads_from().0);
    let mut records = Vec::new();
    loop {
        contender.tell(known(&mut prospect));
        match contender.step(clock.now()) {
            Step::Read => read(&mut tail, &mut records, &mut prospect).await?,
            Step::AskEnd => {
                let end = Offset(log.end(partition).await?);
                contender.tell(known(&mut prospect));
                if let Some((reason, record)) = contender.claim(clock.now(), end) {
                    let why: &str = reason.into();
                    tracing::info!(%share, why, "claiming a share");
                    let (taken, answer) = oneshot::channel();
                    let claim = Claim { share, record, taken };
                    if claims.try_send(claim).is_err() || !answer.await.unwrap_or(false) {
                        contender.not_taken();
                    }
                }
            }
            Step::Owns => {
                let pool_end = Offset(log.end(Partition(0)).await?);
                return Ok(Some((Box::new(contender.into_owner(clock.now())), pool_end)));
            }
            Step::Forget => return Ok(None),
        }
        let now = clock.now();
        for record in records.drain(..) {
            let verdict = contender.read(now, Offset(record.offset), &record.bytes);
            tracing::trace!(%share, offset = record.offset, ?verdict, "folded");
        }
        if contender.has_just_folded() {
            let _ = mail.send(Mail::Conductor(conductor::Mail::Folded(share))).await;
        }
    }
}

/// What the worker said last; nothing is wanted any more once it is gone.
fn known(prospect: &mut Prospect) -> Option<(Standing, Now)> {
    let gone = prospect.has_changed().is_err();
    prospect.borrow_and_update().filter(|_| !gone)
}

/// Waits for records, for word from the worker, or a little.
async fn read(
    tail: &mut impl Tail,
    records: &mut Vec<ledger::Record>,
    prospect: &mut Prospect,
) -> Result<(), Torn> {
    let read = std::future::poll_fn(|cx| tail.poll_records(cx, records));
    tokio::select! {
        biased;
        result = read => result,
        Ok(()) = prospect.changed() => Ok(()),
        () = tokio::time::sleep(LOOK_AGAIN) => Ok(()),
    }
}
