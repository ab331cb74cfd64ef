//! The testbed: load generation, punctuality measured at the receiver, network topologies, end-to-end tests,
//! fuzz targets.

pub mod bench;
pub mod clip;
pub mod fuzz;
pub mod lateness;
pub mod load;
pub mod net;
pub mod noise;
pub mod peers;
pub mod player;
pub mod procstat;
pub mod serve;
pub mod sim;
