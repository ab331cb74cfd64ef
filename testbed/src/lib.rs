//! The testbed: load generation, punctuality measured at the receiver, end-to-end tests, fuzz targets.

pub mod clip;
pub mod fuzz;
pub mod sim;
pub mod lateness;
pub mod load;
pub mod noise;
pub mod procstat;
pub mod player;
pub mod serve;
