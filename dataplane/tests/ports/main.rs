//! Ports on real interfaces, in network namespaces that each test makes and removes.

mod af_xdp;
mod endurance;
mod frames;
mod multicast;
mod namespaces;
mod own_stack;
mod queues;
mod tap;
