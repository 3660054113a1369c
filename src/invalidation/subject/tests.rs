use super::*;

#[test]
fn smoke() {
    let prefix = Prefix::default();
    assert!(matches!(
        prefix.parse("cache.invalidate.user.42"),
        Ok(Address::One { .. })
    ));
}
