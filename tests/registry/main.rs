//! The registry's promises, one or more tests for each line of the contract, named after it.

mod budget;
mod caps;
mod close;
mod eager;
mod gates;
mod handles;
mod hostile;
mod losses;
mod observe;
mod order;
mod publish;
mod receive;
mod refusals;
mod scale;
mod settings;
mod stress;
mod subscribe;
mod support;
mod told;
mod watermark;
