//! The testbed: load generation, punctuality measured at the receiver, end-to-end tests, fuzz targets.

pub mod clip;
pub mod fuzz;
pub mod player;
pub mod serve;
