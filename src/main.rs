//! The command: arguments in, exit code out. Everything else is in the library.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use dcc_mcp_server::config::{self, Command, StatusConfig, help};
use dcc_mcp_server::{app, query};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).collect();
    match config::parse(arguments, std::env::vars_os()) {
        Ok(Command::Serve(config)) => match app::run(*config, env!("CARGO_PKG_VERSION")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.exit_code(), &error),
        },
        Ok(Command::Healthcheck { url }) => match query::healthcheck(&url) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error),
        },
        Ok(Command::Status(config)) => status(config),
        Ok(Command::Help) => print(&help::help()),
        Ok(Command::Version) => print(&format!("{}\n", help::version())),
        Err(error) => fail(2, &error),
    }
}

fn status(config: StatusConfig) -> ExitCode {
    match query::instances(config.gateway, config.auth_token_file, config.registry_dir, config.stale_timeout) {
        Ok(told) if config.json => print(&format!("{told}\n")),
        Ok(told) => print(&query::table(&told)),
        Err(error) => fail(1, &error),
    }
}

/// Not `print!`, which panics when the reader has gone (`… status | head -1`).
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(code: u8, error: &dyn Display) -> ExitCode {
    let _ = io::stderr().write_all(format!("dcc-mcp-server: {error}\n").as_bytes());
    ExitCode::from(code)
}
