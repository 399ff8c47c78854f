//! `dawn completions` and `dawn man`: for the shell and the manual.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::Failure;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn completions bash > ~/.local/share/bash-completion/completions/dawn\n  dawn completions zsh > ~/.zfunc/_dawn\n  dawn completions fish > ~/.config/fish/completions/dawn.fish"
)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands into a folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dawn man | man -l -\n  dawn man --out ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The folder; it is made where it is missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn completions(context: &Context, args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dawn", &mut script);
    context.out.bytes(&script)
}

pub(crate) fn man(context: &Context, args: &ManArgs) -> Result<(), Failure> {
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return context.out.bytes(&page);
    };
    let failed = |error: &std::io::Error| {
        Failure::io(
            &format!("the manual could not be written to {}", folder.display()),
            error,
        )
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(|error| failed(&error))?;
    if context.out.json {
        return context.out.document(&json!({ "folder": folder }));
    }
    context.out.line(format!(
        "the manual is in {}; read it with `man -M` or `man {}/dawn.1`",
        folder.display(),
        folder.display()
    ))
}
