//! From a TrainSale's file to an open ledger: founded, adopted or amended.

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crds::checks::{Finding, check, not_implemented};
use crds::file::{Located, ParseError, locate};
use crds::sale::{AuthType, PaymentType, TrainSale};
use inventory::definition::Definition;
use inventory::entry::{Genesis, PoolEntry};
use inventory::pool::{Pool, ledger_id, pool_record};
use inventory::words::{Incarnation, Millis, Offset};
use ledger::file::{FileError, FileLedger, FileLog, Identity};
use ledger::{Fate, Log, Partition, Slip, Tail};

use crate::fleet::Error;

/// A ledger that is ready to be sold from.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Arc<FileLedger>,
    pub(crate) name: String,
    pub(crate) shares: u16,
    /// What was done, for whoever started it.
    pub(crate) said: String,
}

/// Reads and checks the file; every finding is named with its line.
pub(crate) fn read(path: &Path) -> Result<TrainSale, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::Sale(format!("{}: {e}", path.display())))?;
    let refuse = |found: Vec<Located>| Error::Sale(list(path, &found));
    let sale = TrainSale::from_yaml(&text).map_err(|e| match e {
        ParseError::Refused(found) => refuse(found),
        other => Error::Sale(format!("{}: {other}", path.display())),
    })?;
    let mut found = check(&sale);
    found.extend(not_implemented(&sale));
    found.extend(not_local(&sale));
    if found.is_empty() { Ok(sale) } else { Err(refuse(locate(&text, found))) }
}

fn list(path: &Path, found: &[Located]) -> String {
    let mut text = format!("{} cannot be sold:", path.display());
    for one in found {
        let _ =
            write!(text, "\n  line {}: {}: {}", one.line, one.finding.path, one.finding.message);
    }
    text
}

/// `.stationmaster/NAME.ledger` beside the file.
pub(crate) fn default_path(file: &Path, sale: &TrainSale) -> PathBuf {
    let name = sale.metadata.name.as_deref().unwrap_or("sale");
    let folder = file.parent().unwrap_or(Path::new("")).join(".stationmaster");
    folder.join(format!("{name}.ledger"))
}

/// Opens the ledger at `path`: founds it where there is none, amends it where the file says
/// more than it does, and refuses a file that would change what was sold.
pub(crate) async fn open(path: &Path, sale: &TrainSale) -> Result<Opened, Error> {
    let wanted = crds::definition::found(sale).map_err(|f| findings(path, &f))?;
    match FileLedger::open(path) {
        Ok(file) => adopt(path, sale, file).await,
        Err(FileError::Missing(_)) => found(path, wanted).await,
        Err(other) => Err(Error::Ledger(other.to_string())),
    }
}

fn findings(path: &Path, found: &[Finding]) -> Error {
    let mut text = format!("{} holds a ledger that this file cannot go on with:", path.display());
    for one in found {
        let _ = write!(text, "\n  {}: {}", one.path, one.message);
    }
    Error::Sale(text)
}

async fn found(path: &Path, definition: Definition) -> Result<Opened, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| Error::Ledger(e.to_string()))?;
    let (name, shares) = (definition.ledger.clone(), definition.shares);
    let partitions = NonZeroU16::MIN.saturating_add(shares);
    let file = FileLedger::found(path, Identity(id), partitions)
        .map_err(|e| Error::Ledger(e.to_string()))?;
    let genesis = PoolEntry::Genesis(Box::new(Genesis { topic_id: id, definition }));
    append(&mut file.handle(), &name, id, genesis).await?;
    let said = format!("A new ledger was founded in {}.", path.display());
    Ok(Opened { file: Arc::new(file), name, shares, said })
}

async fn adopt(path: &Path, sale: &TrainSale, file: FileLedger) -> Result<Opened, Error> {
    let id = file.identity().0;
    let name = crds::definition::found(sale).map_err(|f| findings(path, &f))?.ledger;
    let mut log = file.handle();
    let mut pool = Pool::new(&name);
    let torn = |e: ledger::Torn| Error::Ledger(e.to_string());
    let end = log.end(Partition(0)).await.map_err(torn)?;
    let mut tail = log.tail(Partition(0), 0);
    while pool.position().0 < end {
        let mut records = Vec::new();
        std::future::poll_fn(|cx| tail.poll_records(cx, &mut records)).await.map_err(torn)?;
        for record in records {
            pool.fold(Offset(record.offset), &record.bytes);
        }
    }
    if let Some(why) = pool.frozen() {
        return Err(Error::Ledger(format!("{}: {why}", path.display())));
    }
    let mut said = format!("The ledger in {} goes on: what was sold stays sold.", path.display());
    let shares = match pool.definition() {
        // A process that died between founding the file and writing Genesis left it empty.
        None => {
            let definition = crds::definition::found(sale).map_err(|f| findings(path, &f))?;
            let shares = definition.shares;
            let new = crds::definition::amend(&definition, sale).map_err(|f| findings(path, &f))?;
            let amended = new != definition;
            let genesis = PoolEntry::Genesis(Box::new(Genesis { topic_id: id, definition }));
            append(&mut log, &name, id, genesis).await?;
            if amended {
                let amend = PoolEntry::Amend { version: 2, definition: Box::new(new) };
                append(&mut log, &name, id, amend).await?;
            }
            shares
        }
        Some(old) => {
            let new = crds::definition::amend(old, sale).map_err(|f| findings(path, &f))?;
            if new != ***old {
                let version = pool.definition_version() + 1;
                let amend = PoolEntry::Amend { version, definition: Box::new(new) };
                append(&mut log, &name, id, amend).await?;
                said.push_str("\nIt was amended by what the file says now.");
            }
            old.shares
        }
    };
    Ok(Opened { file: Arc::new(file), name, shares, said })
}

/// Appends one pool record and waits until it is on the disk.
async fn append(
    log: &mut FileLog,
    name: &str,
    id: [u8; 16],
    entry: PoolEntry,
) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Millis(now.as_millis() as u64);
    let record = pool_record(ledger_id(name, id), Incarnation(0), now, &[entry])
        .map_err(|e| Error::Ledger(format!("what is sold is too long for one record: {e}")))?;
    log.append(Partition(0), Slip(0), &record).map_err(|e| Error::Ledger(e.to_string()))?;
    let mut fates = Vec::new();
    std::future::poll_fn(|cx| log.poll_fates(cx, &mut fates)).await;
    match fates.first() {
        Some((_, Fate::At(_))) => Ok(()),
        _ => Err(Error::Ledger("the first record could not be written".into())),
    }
}

/// What a fleet in one process cannot do: it has no Secrets and no gateway.
fn not_local(sale: &TrainSale) -> Vec<Finding> {
    let (auth, payment) = (&sale.spec.auth, &sale.spec.payment);
    let from = auth.header.as_ref().is_some_and(|h| h.from_cidrs.is_some());
    let asked = [
        ("spec.auth.type", auth.kind == AuthType::Jwt),
        ("spec.auth.header.fromCIDRs", from),
        ("spec.payment.type", payment.kind == PaymentType::Webhook),
        ("spec.settlement", sale.spec.settlement.is_some()),
    ];
    let asked = asked.into_iter().filter(|(_, asked)| *asked);
    asked
        .map(|(path, _)| Finding::new(path, "is not for local mode, which is for trying out"))
        .collect()
}
