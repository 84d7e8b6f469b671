//! What a shop with a database does: a transaction for each sale, on one MariaDB.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::kafka::free_ports;
use e2e::process::{ProcessId, Signal, is_root};
use e2e::{Error, Result};
use inventory::legs::Legs;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};

use super::crowd::{Counter, Shop, Wish, runtime};
use super::judge::{Kept, Order, Ticket};
use super::said;
use crate::sale::{RUNS, SEATS};
use crate::work::{Running, Site};

const TABLES: &str = include_str!("seat.sql");
const SELL: &str = include_str!("sell.sql");
const DATABASE: &str = "yardstick";
/// Its own tables take two seconds on a quiet machine.
const INSTALL_PATIENCE: Duration = Duration::from_secs(60);
const START_PATIENCE: Duration = Duration::from_secs(30);
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What is set: nothing that makes an answered order less safe. The log and the pages in memory
/// are large enough for a window, so that it measures sales and not their write-back.
const SETTINGS: [&str; 10] = [
    "--no-defaults",
    "--bind-address=127.0.0.1",
    "--skip-networking=0",
    "--skip-name-resolve",
    "--socket=mariadb.sock",
    "--max-connections=150",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=256M",
    "--innodb-log-file-size=256M",
    // Rows that a search has passed by are not locked to the end of the transaction.
    "--transaction-isolation=READ-COMMITTED",
];

/// A MariaDB with seats and the procedure that sells one.
pub(super) struct MariaDbShop {
    server: Running,
    folder: PathBuf,
    options: Opts,
}

impl MariaDbShop {
    /// Starts one in a new folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(site: &Site, mariadbd: &Path) -> Result<Self> {
        let port = free_ports(1)?;
        let folder = site.folder.join(format!("mariadb-{port}"));
        let log = format!("mariadb-{port}.log");
        let user: &[&str] = if is_root() { &["--user=root"] } else { &[] };
        // Whoever reaches loopback is root, for the seconds that it lives.
        let install = site.launch(&log, "mariadb-install-db".as_ref());
        let install = install.args(["--no-defaults", "--skip-test-db", "--skip-name-resolve"]);
        let install = install.args(["--auth-root-authentication-method=normal"]).args(user);
        let install = install.arg_path("--datadir=", &folder);
        let said = site.run(&log, install, INSTALL_PATIENCE)?;
        if !folder.join("mysql").is_dir() {
            return Err(Error::Refused(format!("mariadb-install-db made nothing:\n{said}")));
        }
        let launch = site.launch(&log, mariadbd).args(SETTINGS).args(user);
        let launch = launch.args([format!("--port={port}")]).arg_path("--datadir=", &folder);
        let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port);
        // Over the socket it would save the network, which the other engines have to pay for.
        let options = options.user(Some("root")).prefer_socket(false).into();
        let shop = Self { server: Running::start(launch)?, folder, options };
        runtime()?.block_on(shop.found(site))?;
        Ok(shop)
    }

    async fn found(&self, site: &Site) -> Result<()> {
        site.until("MariaDB answering", START_PATIENCE, "see its log", || {
            let port = self.options.tcp_port();
            let there = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
            if there.is_err() && !self.server.0.alive() {
                return Err(Error::Refused("mariadbd ended; see its log".to_owned()));
            }
            Ok(there.is_ok().then_some(()))
        })?;
        let mut asks = Conn::new(self.options.clone()).await.map_err(said("MariaDB"))?;
        let tables = TABLES.replace("RUN_LAST", &(RUNS - 1).to_string());
        let tables = tables.replace("SEAT_LAST", &(SEATS - 1).to_string());
        let create = format!("CREATE DATABASE {DATABASE}; USE {DATABASE};\n{tables}");
        asks.query_drop(create).await.map_err(said("MariaDB"))?;
        asks.query_drop(SELL).await.map_err(said("MariaDB"))?;
        asks.disconnect().await.map_err(said("MariaDB"))
    }

    async fn connected(&self) -> Result<Conn> {
        let options = OptsBuilder::from_opts(self.options.clone()).db_name(Some(DATABASE));
        Conn::new(options).await.map_err(said("MariaDB"))
    }
}

impl Drop for MariaDbShop {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the next run empties the folder of this one.
        let _ = self.server.0.signal(Signal::KILL);
        let _ = self.server.0.gone_within(KILL_PATIENCE);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One connection.
pub(super) struct MariaDbCounter(Conn);

impl Shop for MariaDbShop {
    type Counter = MariaDbCounter;

    fn server(&self) -> ProcessId {
        self.server.0
    }

    async fn open(&self) -> Result<MariaDbCounter> {
        self.connected().await.map(MariaDbCounter)
    }

    async fn kept(&self) -> Result<Kept> {
        let mut asks = self.connected().await?;
        let orders: Vec<(String, u16, u64, u16, u64)> = asks
            .query("SELECT id, run, legs, seat, number FROM orders")
            .await
            .map_err(said("MariaDB"))?;
        let orders = orders.into_iter().map(|(id, run, legs, seat, number)| {
            (id, Order { run, legs: Legs::from_bits(legs.into()), ticket: Ticket { seat, number } })
        });
        let seats: Vec<(u16, u16, u64)> =
            asks.query("SELECT run, seat, legs FROM seat").await.map_err(said("MariaDB"))?;
        let marked =
            seats.into_iter().map(|(run, seat, legs)| ((run, seat), Legs::from_bits(legs.into())));
        Ok(Kept { orders: orders.collect(), marked: marked.collect() })
    }
}

impl Counter for MariaDbCounter {
    async fn buy(&mut self, wish: &Wish) -> Result<Option<Ticket>> {
        let legs = u64::try_from(Legs::of(wish.journey).bits());
        let legs = legs.map_err(|_| Error::Refused("a run with too many legs".to_owned()))?;
        let answer = self.0.exec_first("CALL sell(?, ?, ?)", (&wish.key, wish.run, legs)).await;
        let answer: Option<(u16, u64)> = answer.map_err(said("MariaDB"))?;
        Ok(answer.map(|(seat, number)| Ticket { seat, number }))
    }
}
