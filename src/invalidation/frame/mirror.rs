//! Reads a frame and writes it again: what is read has to be what was written.

use super::{BatchWriter, BeatWriter, Body, Frame, write_all, write_one};

/// Decodes, walks every list to its stated end, and encodes again.
pub(super) fn rewrite(bytes: &[u8]) -> Option<Vec<u8>> {
    let frame = Frame::decode(bytes).ok()?;
    let mut out = Vec::new();
    match frame.body {
        Body::One => write_one(&mut out, &frame.header),
        Body::All => write_all(&mut out, &frame.header),
        Body::Batch(ids) => {
            let mut scratch = Vec::new();
            let mut batch = BatchWriter::new(&mut scratch);
            ids.iter()
                .for_each(|id| assert!(batch.push(id, usize::MAX)));
            assert_eq!(batch.count(), ids.0.count);
            batch.finish(&mut out, &frame.header);
        }
        Body::Beat(beat) | Body::Bye(beat) => {
            let echoes: Vec<_> = beat.echoes().collect();
            let marks: Vec<_> = beat.marks().collect();
            assert_eq!(echoes.len() as u64, beat.echoes.count);
            assert_eq!(marks.len() as u64, beat.marks.count);
            BeatWriter {
                incarnation: frame.header.incarnation,
                sequence: frame.header.sequence,
                sent: frame.header.sent,
                solicit: beat.solicit,
                reader: beat.reader,
                bye: matches!(frame.body, Body::Bye(_)),
                name: beat.name,
                lease: beat.lease,
            }
            .write(&mut out, echoes.into_iter(), marks.into_iter());
        }
    }
    Some(out)
}
