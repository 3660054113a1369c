//! `visible_to_received` and `stuck_key`: from the moment that the view shows it.

use afterwrite_benches::waits;

fn main() {
    waits::print(&waits::visible_watermark(5));
    waits::print(&waits::visible_polling(40));
    waits::print(&waits::stuck_key(500));
}
