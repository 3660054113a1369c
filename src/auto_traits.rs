//! What the types of the handles allow and refuse, as documentation tests: each refusal beside a
//! twin that differs in the one thing that is refused.
//!
//! A subscription has one owner; closing from elsewhere is what a closer is for.
//!
//! ```
//! fn cloned(of: &afterwrite::Subscription<u64>) -> afterwrite::Closer {
//!     of.closer().clone()
//! }
//! ```
//!
//! ```compile_fail,E0308
//! fn cloned(of: &afterwrite::Subscription<u64>) -> afterwrite::Subscription<u64> {
//!     of.clone()
//! }
//! ```
//!
//! It has one reader at a time.
//!
//! ```
//! async fn read(from: &mut afterwrite::Subscription<u64>) {
//!     from.recv().await;
//!     from.recv().await;
//! }
//! ```
//!
//! ```compile_fail,E0499
//! async fn read(from: &mut afterwrite::Subscription<u64>) {
//!     let (first, second) = (from.recv(), from.recv());
//!     first.await;
//!     second.await;
//! }
//! ```
//!
//! Payloads go from thread to thread.
//!
//! ```
//! use std::sync::Arc;
//! afterwrite::Registry::<Arc<u64>>::new().unwrap();
//! ```
//!
//! ```compile_fail,E0277
//! use std::rc::Rc;
//! afterwrite::Registry::<Rc<u64>>::new().unwrap();
//! ```
//!
//! They need not be `Sync`.
//!
//! ```
//! use std::cell::Cell;
//! afterwrite::Registry::<Cell<u64>>::new().unwrap();
//! ```
//!
//! Each subscriber gets its own.
//!
//! ```
//! #[derive(Clone)]
//! struct Payload;
//! afterwrite::Registry::<Payload>::new().unwrap();
//! ```
//!
//! ```compile_fail,E0277
//! struct Payload;
//! afterwrite::Registry::<Payload>::new().unwrap();
//! ```
//!
//! A producer travels to its shard; the futures of an asynchronous one are made there.
//!
//! ```
//! use std::rc::Rc;
//! let registry = afterwrite::Registry::<u64>::new().unwrap();
//! let _ = registry.submit_async("key", |_| {
//!     let here = Rc::new(1);
//!     async move { Some(*here) }
//! });
//! ```
//!
//! ```compile_fail,E0277
//! use std::rc::Rc;
//! let registry = afterwrite::Registry::<u64>::new().unwrap();
//! let here = Rc::new(1);
//! let _ = registry.submit_async("key", move |_| {
//!     let here = here.clone();
//!     async move { Some(*here) }
//! });
//! ```
//!
//! It borrows nothing that could go before it.
//!
//! ```
//! let registry = afterwrite::Registry::<u64>::new().unwrap();
//! let view = 1;
//! let _ = registry.submit("key", move |_| Some(view));
//! ```
//!
//! ```compile_fail,E0373
//! let registry = afterwrite::Registry::<u64>::new().unwrap();
//! let view = 1;
//! let _ = registry.submit("key", |_| Some(view));
//! ```
