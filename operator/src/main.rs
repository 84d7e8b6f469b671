//! The operator's process: flags, logs, and what ends it.

use std::process::ExitCode;

use clap::Parser;
use operator::settings::Settings;

fn main() -> ExitCode {
    let settings = Settings::parse();
    operator::telemetry::start_log(&settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(operator::run(settings)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}
