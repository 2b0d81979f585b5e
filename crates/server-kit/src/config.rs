//! Settings in layers: flag over environment variable over TOML file over default.
//!
//! A server declares its settings once, as a clap `Parser` of long flags. What the environment and the file say is
//! put before clap as if it were flags, so that validation and messages are the same for all three; the message says
//! where a bad value came from. Nothing here reads the process's state except [`load_from_process`].

mod common;

use std::{collections::BTreeMap, ffi::OsString, fs, io, path::Path};

use clap::{
    Arg, ArgAction, Command,
    builder::StyledStr,
    error::{ContextKind, ContextValue},
};

pub use self::common::{Common, LogFormat, Task, bytes_in, duration_in, parse_bytes, parse_duration_setting};

const CONFIG: &str = "config";
const DEFAULT_FILE: &str = "config.toml";

/// Why the settings could not be loaded, or that help was asked for instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The configuration file is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A value from the environment or the file is refused.
    #[error("{origin}: {error}")]
    Layer {
        /// The environment variable, or the file and its key.
        origin: String,
        /// What is wrong with the value.
        error: clap::Error,
    },
    /// The flags are refused, or ask for `--help` or `--version`.
    #[error(transparent)]
    Flags(#[from] clap::Error),
}

impl ConfigError {
    /// Prints the message and ends the process: 0 after `--help` and `--version` (on stdout), else 2 (on stderr).
    pub fn exit(&self) -> ! {
        if let Self::Flags(error) = self {
            error.exit()
        }
        eprintln!("{self}");
        std::process::exit(2)
    }
}

/// Loads the settings `C` from flags (`args[0]` is the program), an environment and the TOML file that `--config` or
/// `CONFIG` names, or `config.toml` when that exists. Empty environment variables count as absent.
///
/// # Errors
/// The first thing that is wrong, or the text that `--help` or `--version` asks for.
pub fn load<C: clap::Parser>(args: Vec<OsString>, env: &dyn Fn(&str) -> Option<String>) -> Result<C, ConfigError> {
    load_shared(args, env, &[], &[])
}

/// [`load`] for one of several servers in a process: the file may also have the settings of `others`, and `defaults`
/// (name and value) come before the servers' own.
///
/// # Errors
/// As [`load`].
pub fn load_shared<C: clap::Parser>(
    args: Vec<OsString>,
    env: &dyn Fn(&str) -> Option<String>,
    others: &[Command],
    defaults: &[(&str, &str)],
) -> Result<C, ConfigError> {
    let mut command = with_sources(C::command());
    if let Err(error) = command.clone().try_get_matches_from(&args)
        && !error.use_stderr()
    {
        return Err(error.into());
    }
    let env = |name: &str| env(&name.to_uppercase()).filter(|value| !value.is_empty());
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_default();
    let flags: Vec<OsString> = args.collect();

    let file = FileLayer::read(last_flag(&flags, CONFIG).or_else(|| env(CONFIG)))?;
    let settings: Vec<Setting> = command.get_arguments().filter_map(Setting::of).collect();
    let theirs = others.iter().flat_map(Command::get_arguments).filter_map(Setting::of);
    file.refuse_unknown(&command, &settings, &theirs.collect::<Vec<_>>())?;
    let default = |setting: &Setting| {
        let (name, value) = defaults.iter().find(|(name, _)| setting.names.iter().any(|own| own == name))?;
        Some(((*value).to_owned(), format!("the default of `{name}`")))
    };

    let mut layered = vec![program];
    let mut origins = BTreeMap::new();
    for setting in settings.iter().filter(|setting| !setting.is_given(&flags)) {
        let from_env = setting.names.iter().find_map(|name| Some((env(name)?, name.to_uppercase())));
        let given = from_env.or_else(|| file.get(setting)).or_else(|| default(setting));
        let Some((value, origin)) = given else { continue };
        layered.push(format!("{}={value}", setting.flag).into());
        origins.insert(setting.flag.as_str(), origin);
    }
    layered.extend(flags);
    command.try_get_matches_from_mut(layered).and_then(|mut matches| C::from_arg_matches_mut(&mut matches)).map_err(
        |error| match blamed_flag(&error).and_then(|flag| origins.remove(flag.as_str())) {
            Some(origin) => ConfigError::Layer { origin, error },
            None => ConfigError::Flags(error),
        },
    )
}

/// [`load`] for `main`: from the process's arguments and environment; prints what is wrong and exits.
pub fn load_from_process<C: clap::Parser>() -> C {
    load(std::env::args_os().collect(), &|name| std::env::var(name).ok()).unwrap_or_else(|error| error.exit())
}

/// The settings of a command as a Markdown table, for a README that a test keeps true.
pub fn settings_table(command: Command) -> String {
    let mut table = "| setting | default | meaning |\n|---|---|---|\n".to_owned();
    for (arg, setting) in with_values(command).get_arguments().filter_map(|arg| Some((arg, Setting::of(arg)?))) {
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if defaults.is_empty() { String::new() } else { format!("`{}`", defaults.join(",")) };
        let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
        if let [_, aliases @ ..] = setting.names.as_slice()
            && !aliases.is_empty()
        {
            meaning += &format!(" (also `{}`)", aliases.join("`, `"));
        }
        table += &format!("| `{}` | {default} | {} |\n", setting.names[0], meaning.replace('|', "\\|"));
    }
    table
}

/// One setting: its flag, and its names in the file and (in upper case) the environment, the proper one first.
struct Setting {
    flag: String,
    names: Vec<String>,
}

impl Setting {
    fn of(arg: &Arg) -> Option<Self> {
        let long = arg.get_long().filter(|_| !arg.is_hide_set())?;
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let mut names = vec![arg.get_id().to_string()];
        for name in [long].into_iter().chain(aliases).map(|name| name.replace('-', "_")) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Some(Self { flag: format!("--{long}"), names })
    }

    fn is_given(&self, flags: &[OsString]) -> bool {
        flags.iter().filter_map(flag_name).any(|name| self.names.contains(&name))
    }
}

/// `--lru-size=5` → `lru_size`.
fn flag_name(flag: &OsString) -> Option<String> {
    Some(flag.to_str()?.strip_prefix("--")?.split('=').next()?.replace('-', "_"))
}

fn last_flag(flags: &[OsString], name: &str) -> Option<String> {
    let at = flags.iter().rposition(|flag| flag_name(flag).is_some_and(|given| given == name))?;
    match flags[at].to_str()?.split_once('=') {
        Some((_, value)) => Some(value.to_owned()),
        None => Some(flags.get(at + 1)?.to_str()?.to_owned()),
    }
}

/// The flag that an error is about: clap names it as `--lru-size <LRU_SIZE>`.
fn blamed_flag(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(text) => text.split_whitespace().next().map(str::to_owned),
        _ => None,
    }
}

/// Boolean settings take a value like all others, so that a flag can also turn off what the file turns on.
fn with_values(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg.action(ArgAction::Set).num_args(1).default_value("false"),
        _ => arg,
    })
}

fn with_sources(command: Command) -> Command {
    let config = Arg::new(CONFIG).long(CONFIG).value_name("FILE").help("TOML file with any of these settings");
    with_values(command).args_override_self(true).arg(config).mut_args(|arg| {
        if arg.is_positional() {
            return arg;
        }
        let env = arg.get_id().as_str().to_uppercase();
        let told = |help: &StyledStr| format!("{} [env: {env}]", help.ansi());
        let help = arg.get_help().map_or_else(|| format!("[env: {env}]"), told);
        match arg.get_long_help().map(told) {
            Some(long_help) => arg.help(help).long_help(long_help),
            None => arg.help(help),
        }
    })
}

/// The file's values as a flag would have them.
#[derive(Default)]
struct FileLayer {
    path: String,
    values: BTreeMap<String, String>,
}

impl FileLayer {
    fn read(path: Option<String>) -> Result<Self, ConfigError> {
        let path = match path {
            Some(path) => path,
            None if Path::new(DEFAULT_FILE).exists() => DEFAULT_FILE.to_owned(),
            None => return Ok(Self::default()),
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        let read = || {
            let table: toml::Table = toml::from_str(&text).map_err(|error| error.to_string())?;
            table.into_iter().map(|(key, value)| plain(&key, value).map(|value| (key, value))).collect()
        };
        match read() {
            Ok(values) => Ok(Self { path, values }),
            Err(reason) => Err(ConfigError::File { path, reason }),
        }
    }

    fn get(&self, setting: &Setting) -> Option<(String, String)> {
        setting
            .names
            .iter()
            .find_map(|name| Some((self.values.get(name)?.clone(), format!("`{name}` in {}", self.path))))
    }

    fn refuse_unknown(&self, command: &Command, settings: &[Setting], theirs: &[Setting]) -> Result<(), ConfigError> {
        let known =
            |key: &String| key != CONFIG && settings.iter().chain(theirs).any(|setting| setting.names.contains(key));
        let Some(unknown) = self.values.keys().find(|key| !known(key)) else { return Ok(()) };
        let flag = format!("--{}", unknown.replace('_', "-"));
        let nearest = command.clone().try_get_matches_from(["", &flag]).err().and_then(|error| {
            match error.get(ContextKind::SuggestedArg)? {
                ContextValue::String(flag) => Some(flag.trim_start_matches("--").replace('-', "_")),
                _ => None,
            }
        });
        let hint = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => {
                let names: Vec<_> = settings.iter().map(|setting| setting.names[0].as_str()).collect();
                format!("the settings are {}", names.join(", "))
            }
        };
        Err(ConfigError::File { path: self.path.clone(), reason: format!("unknown setting `{unknown}`; {hint}") })
    }
}

/// A TOML value as a flag would have it; an array's elements are separated by commas.
fn plain(key: &str, value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.into_iter().map(|item| plain(key, item)).collect();
            Ok(items?.join(","))
        }
        toml::Value::Table(_) => Err(format!("`{key}` is a table; a setting is a plain value or an array of them")),
        value => Ok(value.to_string()),
    }
}
