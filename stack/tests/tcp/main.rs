//! TCP against itself, against traces, and against another implementation, in simulated time.

mod bulk;
mod link;
