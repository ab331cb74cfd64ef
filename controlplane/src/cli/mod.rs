//! The `tactus` command.
