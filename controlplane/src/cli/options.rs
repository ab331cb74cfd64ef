//! The options of `tactus serve` on the command line, made from the same table as the keys of the file.

use clap::builder::TypedValueParser as _;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Config, Key, Setting};

/// What the command line sets, in the order of [`Key::ALL`].
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides(pub(super) Vec<Setting>);

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let defaults = Config::default();
        Key::ALL.into_iter().fold(command, |command, key| {
            let default = match key.get(&defaults) {
                toml::Value::String(text) => text,
                number => number.to_string(),
            };
            // Checked here, so that a mistake is reported as one of usage, with the option's name.
            let parser = clap::builder::StringValueParser::new()
                .try_map(move |text| key.set(&mut Config::default(), &text).map(|()| Setting { key, text }));
            command.arg(
                Arg::new(key.name())
                    .long(key.name())
                    .value_name(key.value_name())
                    .help(format!("{} [default: {default}]", key.help()))
                    .value_parser(parser),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Key::ALL.into_iter().filter_map(|key| matches.get_one::<Setting>(key.name()).cloned()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
