//! The program under another version, for the tests of handing over: the first argument is the version, the others are
//! those of the program. Not part of it; the program itself cannot be told what version it is.

use std::process::ExitCode;

use dcc_mcp_server::app;
use dcc_mcp_server::config::{self, Command};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let version = arguments.next().and_then(|version| version.into_string().ok()).expect("a version");
    let Ok(Command::Serve(config)) = config::parse(arguments.collect(), std::env::vars_os()) else {
        return ExitCode::from(2);
    };
    match app::run(*config, version.leak()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
