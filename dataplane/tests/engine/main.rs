//! The engine core driven through its commands, over a simulated clock, network and disk.

mod allocation;
mod clients;
mod faults;
mod flood;
mod life;
mod stage;
