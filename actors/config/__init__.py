"""Where settings come from: a TOML file, the environment, the command line; and the settings of clients."""
