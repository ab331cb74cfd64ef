//! Fuzz target `config`: the configuration file.
//!
//! Whatever the bytes, reading ends with a configuration or with messages; a configuration that was read prints as a file that reads
//! back as the same configuration.

use std::path::Path;

use controlplane::config::{Config, ConfigError};

/// Runs one input.
pub fn run(data: &[u8]) {
    let name = Path::new("fuzz.toml");
    match Config::from_toml(data, name) {
        Ok(config) => {
            let printed = config.to_toml();
            match Config::from_toml(printed.as_bytes(), name) {
                Ok(again) => assert_eq!(config, again, "printed as:\n{printed}"),
                Err(error) => panic!("what is printed does not read back: {error}\n{printed}"),
            }
        }
        Err(error) => {
            if let ConfigError::File(mistakes) = &error {
                assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| mistake.line > 0 && mistake.column > 0));
            }
            assert!(!error.to_string().is_empty());
        }
    }
}
