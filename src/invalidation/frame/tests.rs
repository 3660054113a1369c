use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

type OwnedMark = (String, u64, u64, u64);

fn header() -> impl Strategy<Value = Header> {
    let position = prop_oneof![
        Just(None),
        any::<u64>().prop_map(|at| Some(Position::Own(at))),
        any::<u64>().prop_map(|at| Some(Position::Floor(at))),
    ];
    (any::<u64>(), 1u64.., 0..=MAX_MICROS, position).prop_map(
        |(incarnation, sequence, sent, position)| Header {
            incarnation: Incarnation(incarnation),
            sequence,
            sent,
            position,
        },
    )
}

fn echo() -> impl Strategy<Value = Echo> {
    (any::<u64>(), 0..=MAX_MICROS, 0..=MAX_MICROS).prop_map(|(incarnation, sent, held)| Echo {
        incarnation: Incarnation(incarnation),
        sent,
        held,
    })
}

fn mark() -> impl Strategy<Value = OwnedMark> {
    ("[a-z-]{1,40}", any::<u64>(), any::<u64>(), any::<u64>())
}

proptest! {
    #[test]
    fn integers_round_trip(value in prop_oneof![any::<u64>(), 0u64..300], tail in vec(any::<u8>(), 0..4)) {
        let mut bytes = Vec::new();
        leb128::write(&mut bytes, value);
        prop_assert!(bytes.len() <= leb128::MAX_LEN);
        bytes.extend_from_slice(&tail);
        prop_assert_eq!(leb128::read(&bytes), Ok((value, tail.as_slice())));
    }

    #[test]
    fn singles_round_trip(header in header()) {
        let mut one = Vec::new();
        write_one(&mut one, &header);
        prop_assert_eq!(Frame::decode(&one), Ok(Frame { header, body: Body::One }));
        let mut all = Vec::new();
        write_all(&mut all, &header);
        prop_assert_eq!(Frame::decode(&all), Ok(Frame { header, body: Body::All }));
    }

    #[test]
    fn batches_round_trip(header in header(), ids in vec("[^\\x00]{1,20}", 0..20)) {
        let (mut scratch, mut out) = (vec![1, 2, 3], Vec::new());
        let mut batch = BatchWriter::new(&mut scratch);
        for id in &ids {
            prop_assert!(batch.push(IdRef::new(id).unwrap(), usize::MAX));
        }
        prop_assert_eq!(batch.count(), ids.len() as u64);
        batch.finish(&mut out, &header);
        let frame = Frame::decode(&out).unwrap();
        prop_assert_eq!(frame.header, header);
        let Body::Batch(read) = frame.body else { panic!("not a batch") };
        prop_assert!(read.iter().map(IdRef::as_str).eq(ids.iter().map(String::as_str)));
    }

    #[test]
    fn a_batch_keeps_its_limit(header in header(), ids in vec("[a-z]{1,90}", 1..40), limit in 100usize..1000) {
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        let mut batch = BatchWriter::new(&mut scratch);
        let kept = ids.iter().take_while(|id| batch.push(IdRef::new(id).unwrap(), limit)).count();
        prop_assert_eq!(kept as u64, batch.count());
        batch.finish(&mut out, &header);
        prop_assert!(out.len() <= limit);
    }

    #[test]
    fn beats_round_trip(
        header in header(), solicit: bool, reader: bool, bye: bool, name in ".{1,30}",
        lease in 0..=MAX_MICROS, echoes in vec(echo(), 0..5), marks in vec(mark(), 0..5),
    ) {
        let mut out = Vec::new();
        BeatWriter {
            incarnation: header.incarnation, sequence: header.sequence, sent: header.sent,
            solicit, reader, bye, name: &name, lease,
        }.write(&mut out, echoes.iter().copied(), marks.iter().map(borrow));
        let frame = Frame::decode(&out).unwrap();
        prop_assert_eq!(frame.header, Header { position: None, ..header });
        let beat = match frame.body {
            Body::Beat(beat) if !bye => beat,
            Body::Bye(beat) if bye => beat,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!((beat.solicit, beat.reader, beat.name, beat.lease), (solicit, reader, name.as_str(), lease));
        prop_assert!(beat.echoes().eq(echoes.iter().copied()));
        prop_assert!(beat.marks().eq(marks.iter().map(borrow)));
    }

    #[test]
    fn any_bytes_decode_or_err(bytes in vec(any::<u8>(), 0..200)) {
        let mut stamped = MAGIC.to_vec();
        stamped.extend_from_slice(&bytes);
        mirror::rewrite(&stamped);
    }

    /// What decodes is written back byte for byte, however a valid frame was bent before.
    #[test]
    fn bent_frames_decode_to_themselves_or_err(
        header in header(), ids in vec("[a-z]{1,9}", 0..5), at: prop::sample::Index, with: u8, cut: bool,
    ) {
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        let mut batch = BatchWriter::new(&mut scratch);
        ids.iter().for_each(|id| assert!(batch.push(IdRef::new(id).unwrap(), usize::MAX)));
        batch.finish(&mut out, &header);
        let at = at.index(out.len());
        out[at] = with;
        if cut {
            out.truncate(at + 1);
        }
        if Frame::is_stamped(&out) && let Some(again) = mirror::rewrite(&out) {
            prop_assert_eq!(again, out);
        }
    }
}

fn borrow((entity, mark, position, unsettled): &OwnedMark) -> Mark<'_> {
    Mark {
        entity: EntityRef::new(entity).unwrap(),
        mark: *mark,
        position: *position,
        unsettled: *unsettled,
    }
}

/// One byte string per error, so that each is known to be reachable.
#[test]
fn every_error_has_a_cause() {
    let head = |kind: u8, flags: u8| {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0x10 | kind, flags]);
        bytes.extend([7; 8]);
        bytes.extend([1, 0]);
        bytes
    };
    let with = |mut bytes: Vec<u8>, tail: &[u8]| {
        bytes.extend_from_slice(tail);
        bytes
    };
    let time = [0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    let cases = [
        (MAGIC.to_vec(), FrameError::Truncated),
        (vec![0xAF, 0x57, 0x20], FrameError::Version(2)),
        (head(5, 0), FrameError::Kind(5)),
        (head(0, 8), FrameError::Flags(8)),
        (head(0, flag::SOLICIT), FrameError::Flags(flag::SOLICIT)),
        (with(head(3, 1), &[0]), FrameError::Flags(1)),
        (with(head(0, 1), &[0x80, 0]), FrameError::Integer),
        (with(head(0, 1), &[0xFF; 10]), FrameError::Integer),
        (
            with(head(3, 0), &with(vec![1, b'n'], &time)),
            FrameError::Time,
        ),
        (with(head(2, 0), &[1, 0, 0]), FrameError::Text),
        (with(head(2, 0), &[1, 1, 0xFF]), FrameError::Text),
        (with(head(2, 0), &[9, 1, b'a']), FrameError::Count),
        (with(head(2, 0), &[1, 5, b'a']), FrameError::Truncated),
        (with(head(0, 0), &[0, 0]), FrameError::LeftOver(2)),
    ];
    for (bytes, error) in cases {
        assert_eq!(Frame::decode(&bytes), Err(error), "{bytes:02x?}");
    }
    let mut zero = head(0, 0);
    zero[12] = 0;
    assert_eq!(Frame::decode(&zero), Err(FrameError::Sequence));
}
