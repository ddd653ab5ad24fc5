//! The command: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

use dcc_mcp_server::app;
use dcc_mcp_server::config::{self, Command};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).collect();
    match config::parse(arguments, std::env::vars_os()) {
        Ok(Command::Serve(config)) => match app::run(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("dcc-mcp-server: {error}");
                ExitCode::from(error.exit_code())
            }
        },
        Ok(Command::Help) => {
            print!("{}", config::help());
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("dcc-mcp-server {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dcc-mcp-server: {error}");
            ExitCode::from(2)
        }
    }
}
