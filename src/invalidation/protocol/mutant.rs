//! Rules that the simulator can break.

/// Ways to get the protocol wrong. Each is planted in one place, compiled out outside of unit
/// tests, and caught by the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "planted by the simulator alone")
)]
pub(crate) enum Mutant {
    /// A lease runs from the arrival of its beat.
    LeaseFromArrival,
    /// The first number heard of a publisher counts as the beginning.
    BaselineIsFirstHeard,
    /// A frame whose number was already passed is not applied.
    IgnoreOldSequences,
    /// A beat's marks are read before what was handed over is numbered.
    MarkBeforeDrain,
    /// A watch that ends leaves its cache as trusted as it was.
    WatchEndsSilently,
    /// `Suspect` is left without a new epoch.
    NoEpochOnLeaving,
    /// A fill is checked, and then stored, in two steps.
    CheckThenInsert,
    /// Who comes after an invalidation joins a load that began before it.
    JoinOlderFlight,
    /// A new incarnation of the same name ends the old one's claim to be heard.
    RestartExcusesSilence,
    /// A goodbye is said while a guard is open.
    GoodbyeWithOpenGuard,
    /// A frame counts as confirmed once it is flushed.
    FlushIsConfirmation,
    /// `Coherent` is never reached.
    AlwaysSuspect,
    /// A goodbye's marks are not compared.
    GoodbyeWithoutMarks,
    /// Positions in beats do not raise the floor.
    NoFloorFromBeats,
    /// A publisher's clock counts as understood without a round trip.
    NoCalibration,
    /// A guard that stays open for too long is not told.
    SilentGuard,
    /// What the server denies after the commit takes no number, and is not counted.
    DeniedUnnoticed,
    /// Nor does what comes after its commit while the end waits for a guard.
    ClosingUnnoticed,
    /// Beats are planned, and not sent, for as long as a guard holds up the end.
    MuteWhileClosing,
    /// A position that is only that of earlier frames counts as a frame's own.
    FloorIsOwnPosition,
    /// A subscription that the server took away is never asked for again.
    NeverAsksAgain,
    /// Nobody is waited for who is expected and was never heard.
    ExpectsNobody,
    /// Whatever bears this node's incarnation counts as its own.
    NeverDoubtsItself,
    /// A cache that comes later is not asked for the positions that this node itself emitted at.
    OwnPositionsUncounted,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

/// Breaks a rule of the fence, by the name that it has there, on this thread.
#[cfg(test)]
pub(crate) fn plant(fault: &'static str) {
    PLANTED.set(fault);
}

/// Whether this thread broke that rule.
#[cfg(test)]
pub(crate) fn planted(fault: &str) -> bool {
    PLANTED.get() == fault
}
