//! Encoding. Everything appends to a caller's buffer, so that many frames share one allocation.

use crate::invalidation::subject::IdRef;

use super::{Echo, Header, Incarnation, Kind, MAGIC, Mark, Position, VERSION, flag, leb128};

fn write_header(out: &mut Vec<u8>, kind: Kind, flags: u8, header: &Header) {
    let position = match header.position {
        Some(Position::Own(_)) => flag::POSITION,
        Some(Position::Floor(_)) => flag::POSITION | flag::FLOOR,
        None => 0,
    };
    out.extend_from_slice(&MAGIC);
    out.push(VERSION << 4 | kind as u8);
    out.push(flags | position);
    out.extend_from_slice(&header.incarnation.0.to_be_bytes());
    leb128::write(out, header.sequence);
    leb128::write(out, header.sent);
    if let Some(position) = header.position {
        leb128::write(out, position.highest());
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    leb128::write(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends the frame of a single drop; the id is in the subject.
#[inline]
pub(crate) fn write_one(out: &mut Vec<u8>, header: &Header) {
    write_header(out, Kind::One, 0, header);
}

/// Appends the frame that drops everything of an entity.
pub(crate) fn write_all(out: &mut Vec<u8>, header: &Header) {
    write_header(out, Kind::All, 0, header);
}

/// Gathers ids into one batch frame, whose size is known at every step.
#[derive(Debug)]
pub(crate) struct BatchWriter<'a> {
    ids: &'a mut Vec<u8>,
    count: u64,
}

impl<'a> BatchWriter<'a> {
    /// The most that a header and a count can take beside the ids.
    pub(crate) const OVERHEAD: usize = 12 + 4 * leb128::MAX_LEN;

    /// Begins a batch; `scratch` is cleared and holds the ids in the end, for [`write_batch`].
    pub(crate) fn new(scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Self {
            ids: scratch,
            count: 0,
        }
    }

    /// Adds an id unless the frame could then exceed `limit` bytes; says whether it did.
    pub(crate) fn push(&mut self, id: IdRef<'_>, limit: usize) -> bool {
        let id = id.as_str();
        let grown = self.ids.len() + leb128::MAX_LEN + id.len() + Self::OVERHEAD;
        if grown > limit {
            return false;
        }
        write_text(self.ids, id);
        self.count += 1;
        true
    }

    /// How many ids it holds.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Appends the whole frame to `out`.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn finish(self, out: &mut Vec<u8>, header: &Header) {
        write_batch(out, header, self.count, self.ids);
    }
}

/// Appends the frame of a batch that a [`BatchWriter`] gathered: how many, and its scratch.
pub(crate) fn write_batch(out: &mut Vec<u8>, header: &Header, count: u64, ids: &[u8]) {
    write_header(out, Kind::Batch, 0, header);
    leb128::write(out, count);
    out.extend_from_slice(ids);
}

/// A beat or a goodbye about to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BeatWriter<'a> {
    pub(crate) incarnation: Incarnation,
    pub(crate) sequence: u64,
    pub(crate) sent: u64,
    pub(crate) solicit: bool,
    pub(crate) reader: bool,
    pub(crate) bye: bool,
    pub(crate) name: &'a str,
    pub(crate) lease: u64,
}

impl BeatWriter<'_> {
    /// Appends the whole frame to `out`.
    pub(crate) fn write<'m>(
        self,
        out: &mut Vec<u8>,
        echoes: impl ExactSizeIterator<Item = Echo>,
        marks: impl ExactSizeIterator<Item = Mark<'m>>,
    ) {
        let mut flags = 0;
        if self.solicit {
            flags |= flag::SOLICIT;
        }
        if self.reader {
            flags |= flag::READER;
        }
        let header = Header {
            incarnation: self.incarnation,
            sequence: self.sequence,
            sent: self.sent,
            position: None,
        };
        let kind = if self.bye { Kind::Bye } else { Kind::Beat };
        write_header(out, kind, flags, &header);
        write_text(out, self.name);
        leb128::write(out, self.lease);
        leb128::write(out, echoes.len() as u64);
        for echo in echoes {
            out.extend_from_slice(&echo.incarnation.0.to_be_bytes());
            leb128::write(out, echo.sent);
            leb128::write(out, echo.held);
        }
        leb128::write(out, marks.len() as u64);
        for mark in marks {
            write_text(out, mark.entity.as_str());
            leb128::write(out, mark.mark);
            leb128::write(out, mark.position);
            leb128::write(out, mark.unsettled);
        }
    }
}
