//! Folding shares and claiming them, on a thread of their own.
//!
//! Folding a long log takes seconds of CPU; buyers of the shares that this node owns already
//! must not wait for it. Each [`Contender`] is driven here; the finished owner is mailed to the
//! worker.

use std::collections::BTreeMap;
use std::time::Duration;

use inventory::claim::Standing;
use inventory::conductor;
use inventory::contend::{Contender, Step};
use inventory::owner::{Now, Owner};
use inventory::words::{Offset, ShareId};
use ledger::{Log, Partition, Slip, Tail, Torn};
use tokio::sync::{mpsc, watch};

use crate::station::{Clock, Mail};

/// Starts of contenders that wait for the thread: one for each share of the largest ledger.
const STARTS_MAX: usize = 1_024;

/// How often a contender looks again at the time when nothing else wakes it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a contender knows of its chances; none once the node has lost interest.
type Prospect = watch::Receiver<Option<(Standing, Now)>>;

struct Start<L> {
    contender: Contender,
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
    /// Starts the thread. It ends when this is dropped and no claim is in flight.
    pub(crate) fn new(mail: mpsc::Sender<Mail>) -> std::io::Result<Self> {
        let (starts, inbox) = mpsc::channel(STARTS_MAX);
        std::thread::Builder::new().name("candidates".into()).spawn(move || serve(inbox, &mail))?;
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

fn serve<L: Log>(mut inbox: mpsc::Receiver<Start<L>>, mail: &mpsc::Sender<Mail>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        tracing::error!("no runtime for contenders: this node will own nothing");
        return;
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(start) = inbox.recv().await {
            let mail = mail.clone();
            tasks.spawn_local(async move {
                let share = start.contender.share();
                let end = match stand(start, &mail).await {
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
    });
}

type Owns = (Box<Owner>, Offset);

/// A contender's whole life.
async fn stand<L: Log>(start: Start<L>, mail: &mpsc::Sender<Mail>) -> Result<Option<Owns>, Torn> {
    let Start { mut contender, mut log, clock, mut prospect } = start;
    let share = contender.share();
    let partition = Partition(share.0);
    let mut tail = log.tail(partition, contender.reads_from().0);
    let mut records = Vec::new();
    loop {
        contender.tell(known(&mut prospect));
        match contender.step(clock.now()) {
            Step::Read => read(&mut tail, &mut log, &mut records, &mut prospect).await?,
            Step::AskEnd => {
                let end = Offset(log.end(partition).await?);
                contender.tell(known(&mut prospect));
                if let Some((reason, claim)) = contender.claim(clock.now(), end) {
                    let why: &str = reason.into();
                    tracing::info!(%share, why, "claiming a share");
                    if log.append(partition, Slip(0), &claim).is_err() {
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
async fn read<L: Log>(
    tail: &mut L::Tail,
    log: &mut L,
    records: &mut Vec<ledger::Record>,
    prospect: &mut Prospect,
) -> Result<(), Torn> {
    let read = std::future::poll_fn(|cx| {
        // What became of the Claim is read in the log; its fate is only taken off the queue.
        let _ = log.poll_fates(cx, &mut Vec::new());
        tail.poll_records(cx, records)
    });
    tokio::select! {
        biased;
        result = read => result,
        Ok(()) = prospect.changed() => Ok(()),
        () = tokio::time::sleep(LOOK_AGAIN) => Ok(()),
    }
}
