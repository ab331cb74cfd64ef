//! The engine core driven through its commands, over a simulated clock, network and disk.

mod allocation;
mod cache;
mod clients;
mod faults;
mod flood;
mod guarantee;
mod isochronous;
mod lag;
mod life;
mod live;
mod record;
mod stage;
mod transfer;
