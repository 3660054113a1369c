//! Caches that a fence can stand beside.
