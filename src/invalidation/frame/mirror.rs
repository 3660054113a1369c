//! A frame as plain values, read and written: what is read has to be what was written. For tests and
//! for the fuzzer alone.

use super::*;

/// All that a frame says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plain {
    /// Whose it is.
    pub incarnation: u64,
    /// Its number.
    pub sequence: u64,
    /// When it was sent.
    pub sent: u64,
    /// What the kind of frame carries.
    pub body: PlainBody,
}

/// A position, and whether it is only that of earlier frames.
pub type PlainPosition = Option<(u64, bool)>;

/// What follows the header. Positions stand with the kinds that may have one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlainBody {
    /// One id, which the subject names.
    One(PlainPosition),
    /// Everything.
    All(PlainPosition),
    /// Many ids.
    Batch(PlainPosition, Vec<String>),
    /// A beat.
    Beat(PlainBeat),
    /// A goodbye.
    Bye(PlainBeat),
}

/// The body of a beat or a goodbye.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlainBeat {
    /// Whether it asks for an echo.
    pub solicit: bool,
    /// Whether its sender only watches.
    pub reader: bool,
    /// The sender's name.
    pub name: String,
    /// How long it vouches.
    pub lease: u64,
    /// Incarnation, sent, held.
    pub echoes: Vec<(u64, u64, u64)>,
    /// Entity, mark, position, unsettled.
    pub marks: Vec<(String, u64, u64, u64)>,
}

impl PlainBeat {
    fn of(beat: &Beat<'_>) -> Self {
        let echo = |echo: Echo| (echo.incarnation.0, echo.sent, echo.held);
        let mark = |mark: Mark<'_>| {
            let entity = mark.entity.as_str().to_owned();
            (entity, mark.mark, mark.position, mark.unsettled)
        };
        let plain = Self {
            solicit: beat.solicit,
            reader: beat.reader,
            name: beat.name.to_owned(),
            lease: beat.lease,
            echoes: beat.echoes().map(echo).collect(),
            marks: beat.marks().map(mark).collect(),
        };
        assert_eq!(plain.echoes.len() as u64, beat.echoes.count);
        assert_eq!(plain.marks.len() as u64, beat.marks.count);
        plain
    }
}

/// Decodes, and walks every list to its stated end. Nothing if the bytes are no frame.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Plain> {
    if !Frame::is_stamped(bytes) {
        return None;
    }
    let Frame { header, body } = Frame::decode(bytes).ok()?;
    let position = header.position.map(|position| {
        let floor = matches!(position, Position::Floor(_));
        (position.highest(), floor)
    });
    let body = match body {
        Body::One => PlainBody::One(position),
        Body::All => PlainBody::All(position),
        Body::Batch(ids) => {
            let read: Vec<_> = ids.iter().map(|id| id.as_str().to_owned()).collect();
            assert_eq!(read.len() as u64, ids.0.count);
            PlainBody::Batch(position, read)
        }
        Body::Beat(beat) => PlainBody::Beat(PlainBeat::of(&beat)),
        Body::Bye(beat) => PlainBody::Bye(PlainBeat::of(&beat)),
    };
    Some(Plain {
        incarnation: header.incarnation.0,
        sequence: header.sequence,
        sent: header.sent,
        body,
    })
}

/// Encodes with what the outbox encodes with. The values have to be in range.
///
/// # Panics
/// If an id or an entity is none.
#[must_use]
pub fn write(plain: &Plain) -> Vec<u8> {
    let mut out = Vec::new();
    let header = |position: PlainPosition| Header {
        incarnation: Incarnation(plain.incarnation),
        sequence: plain.sequence,
        sent: plain.sent,
        position: position.map(|(position, floor)| match floor {
            true => Position::Floor(position),
            false => Position::Own(position),
        }),
    };
    match &plain.body {
        PlainBody::One(position) => write_one(&mut out, &header(*position)),
        PlainBody::All(position) => write_all(&mut out, &header(*position)),
        PlainBody::Batch(position, ids) => {
            let mut scratch = Vec::new();
            let mut batch = BatchWriter::new(&mut scratch);
            for id in ids {
                assert!(batch.push(IdRef::new(id).expect("an id"), usize::MAX));
            }
            batch.finish(&mut out, &header(*position));
        }
        PlainBody::Beat(beat) => write_beat(&mut out, plain, beat, false),
        PlainBody::Bye(beat) => write_beat(&mut out, plain, beat, true),
    }
    out
}

fn write_beat(out: &mut Vec<u8>, plain: &Plain, beat: &PlainBeat, bye: bool) {
    let echoes = beat.echoes.iter().map(|&(incarnation, sent, held)| Echo {
        incarnation: Incarnation(incarnation),
        sent,
        held,
    });
    let marks = beat
        .marks
        .iter()
        .map(|(entity, mark, position, unsettled)| Mark {
            entity: EntityRef::new(entity).expect("an entity"),
            mark: *mark,
            position: *position,
            unsettled: *unsettled,
        });
    BeatWriter {
        incarnation: Incarnation(plain.incarnation),
        sequence: plain.sequence,
        sent: plain.sent,
        solicit: beat.solicit,
        reader: beat.reader,
        bye,
        name: &beat.name,
        lease: beat.lease,
    }
    .write(out, echoes, marks);
}

/// Decodes and encodes again.
#[cfg(test)]
pub(super) fn rewrite(bytes: &[u8]) -> Option<Vec<u8>> {
    read(bytes).map(|plain| write(&plain))
}
