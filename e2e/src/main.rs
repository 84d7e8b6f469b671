//! `cargo e2e`: the test bed by hand. Run it with `--help`.

mod command;

use clap::Parser;

fn main() -> std::process::ExitCode {
    match command::Arguments::parse().run() {
        Ok(code) => u8::try_from(code).unwrap_or(1).into(),
        Err(error) => {
            eprintln!("e2e: {error}");
            1.into()
        }
    }
}
