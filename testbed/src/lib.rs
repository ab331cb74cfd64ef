//! The testbed: load generation, punctuality measured at the receiver, network topologies, end-to-end tests,
//! fuzz targets.

pub mod bench;
pub mod burn;
pub mod clip;
pub mod disk;
pub mod figures;
pub mod fuzz;
pub mod lateness;
pub mod load;
pub mod machine;
pub mod net;
pub mod noise;
pub mod own_stack;
pub mod peers;
pub mod player;
pub mod procstat;
pub mod send;
pub mod serve;
pub mod sim;
