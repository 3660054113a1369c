//! I2 at a server that lets a node publish and not subscribe: nothing can be confirmed.
#![cfg(feature = "nats")]

mod support;

use afterwrite::bus::Bus;
use afterwrite::invalidation::subject::Entity;
use afterwrite::invalidation::{ConfirmError, Emitted, Invalidator, Settings};
use support::nats::{connect_with, eager};
use support::server::Cluster;
use support::stage::eventually;

#[test]
fn i2_without_the_right_to_subscribe_nothing_is_confirmed() {
    let rights = "authorization { users: [{ user: deaf, password: p, permissions: { \
                  publish: \">\", subscribe: { allow: [\"_INBOX.>\"] } } }] }\n";
    let cluster = Cluster::with_config(rights);
    let bus = connect_with(
        &cluster.a,
        eager().user_and_password("deaf".into(), "p".into()),
    );
    let deaf = Invalidator::new(bus.clone(), Settings::new("deaf")).unwrap();
    eventually("the server refuses", || bus.status().subscribe_denied > 0);
    let user = Entity::new("user").unwrap();
    // It is heard all the same.
    assert_eq!(deaf.emit(&user, "1"), Ok(Emitted::Sent));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let confirmed = runtime.block_on(deaf.emit_confirmed(&user, "2"));
    assert_eq!(confirmed, Err(ConfirmError::Unconfirmable));
}
