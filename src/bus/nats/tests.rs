use super::events::read_error;
use crate::bus::Event;

#[test]
fn refusals_are_read_from_the_servers_words() {
    let cases = [
        (
            r#"nats: Permissions Violation for Publish to "cache.invalidate.user.1""#,
            Event::PublishDenied {
                subject: "cache.invalidate.user.1".into(),
            },
        ),
        (
            r#"Permissions Violation for Subscription to "cache.>" using queue "q""#,
            Event::SubscribeDenied {
                subject: "cache.>".into(),
            },
        ),
        (
            r#"Permissions Violation for Publish to "unfinished"#,
            Event::Error {
                message: r#"Permissions Violation for Publish to "unfinished"#.into(),
            },
        ),
        (
            "nats: authorization violation",
            Event::Error {
                message: "nats: authorization violation".into(),
            },
        ),
    ];
    for (text, event) in cases {
        assert_eq!(read_error(text), event, "{text}");
    }
}
