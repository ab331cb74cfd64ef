//! TCP against itself, against traces, and against another implementation, in simulated time.

mod allocation;
mod bulk;
mod differential;
mod gigabit;
mod link;
mod random;
mod script;
mod traces;
