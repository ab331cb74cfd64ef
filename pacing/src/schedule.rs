//! Due times of packets.
