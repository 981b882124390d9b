//! The command: parses, calls the library, prints.

mod command;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// Pruning and sparsity research: scores, exact masks, sparse products, honest figures.
#[derive(Parser)]
#[command(name = "lacuna", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains, prunes, retrains, shrinks and multiplies on real scanned digits, and writes a report
    Demo(command::demo::Args),
    /// Turns a GGUF file into a Hugging Face folder
    Import(command::import::Args),
    /// Turns a Hugging Face folder into a GGUF file
    Export(command::export::Args),
    /// Makes a language model of random weights after a config, to be trained from scratch
    Init(command::init::Args),
    /// Measures a language model: perplexity of a text, multiple choice, last words, named tasks
    Eval(command::eval::Args),
    /// Makes vectors of sentences, and compares them with those of another model
    Embed(command::embed::Args),
    /// Writes the logits of a language model for given tokens
    Logits(command::logits::Args),
    /// Continues a text with a language model
    Generate(command::generate::Args),
    /// Prunes a language model's folder, or the weights of a safetensors file
    Prune(Box<command::prune::Args>),
    /// Makes a language model's folder smaller: fewer heads, feed-forward and hidden features, layers
    Shrink(Box<command::shrink::Args>),
    /// Puts a language model's folder into codes of 2, 3, 4 or 8 bits, in layouts that other tools open
    Quantize(Box<command::quantize::Args>),
    /// Trains a language model's folder, or lets a pruned one recover, with a teacher or without
    Train(Box<command::train::Args>),
    /// Runs the stages of a recipe, each a job (prune, shrink, quantize, train, export) on what the one before has written
    Run(command::run::Args),
    /// Lays the pruned weights of a model's folder in another way: compressed, or whole again
    Pack(command::pack::Args),
    /// Times sparse products against dense ones on this machine
    Bench(command::bench::Args),
    /// Says which storage multiplies fastest on this machine, by how much, and from which sparsity on sparse wins
    Advise(command::advise::Args),
    /// Says what a model folder or a safetensors file holds: shapes, sparsity, bytes, and of a model what may be pruned
    Inspect(command::inspect::Args),
}

/// The options of a subcommand that were typed, by their names without the dashes.
fn typed(matches: &ArgMatches) -> Vec<String> {
    let Some((name, given)) = matches.subcommand() else { return Vec::new() };
    let command = Cli::command();
    let options = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    let is_typed = |id: &str| given.ids().any(|g| g == id) && given.value_source(id) == Some(ValueSource::CommandLine);
    options.filter(|a| is_typed(a.get_id().as_str())).filter_map(|a| a.get_long().map(String::from)).collect()
}

fn main() -> ExitCode {
    // What is caught and becomes an error is one line, and that its error.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !lacuna::text::is_guarded() {
            hook(panic);
        }
    }));
    let parsed = Cli::command().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(e) if !e.use_stderr() => {
            // --help and --version
            return if e.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprintln!("error: no command is given; 'lacuna --help' lists them");
            return ExitCode::from(2);
        }
        Err(e) => {
            // clap's first paragraph, as one line.
            let text = e.render().to_string();
            let first: Vec<&str> = text.lines().take_while(|l| !l.trim().is_empty()).map(str::trim).collect();
            eprintln!("{}", if first.is_empty() { text.trim().to_string() } else { first.join(" ") });
            return ExitCode::from(2);
        }
    };
    let checked = lacuna::kernels::check_environment().and_then(|()| command::check_arguments());
    let result = checked.and_then(|()| match cli.command {
        Command::Demo(args) => command::demo::run(&args),
        Command::Import(args) => command::import::run(&args),
        Command::Export(args) => command::export::run(&args),
        Command::Init(args) => command::init::run(&args),
        Command::Eval(args) => command::eval::run(&args),
        Command::Embed(args) => command::embed::run(&args),
        Command::Logits(args) => command::logits::run(&args),
        Command::Generate(args) => command::generate::run(&args),
        Command::Prune(mut args) => {
            args.given = typed(&matches);
            command::prune::run(&args)
        }
        Command::Shrink(mut args) => {
            args.given = typed(&matches);
            command::shrink::run(&args)
        }
        Command::Quantize(mut args) => {
            args.given = typed(&matches);
            command::quantize::run(&args)
        }
        Command::Train(mut args) => {
            args.given = typed(&matches);
            command::train::run(&args)
        }
        Command::Run(args) => command::run::run(&args),
        Command::Pack(args) => command::pack::run(&args),
        Command::Bench(args) => command::bench::run(&args),
        Command::Advise(args) => command::advise::run(&args),
        Command::Inspect(args) => command::inspect::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}
