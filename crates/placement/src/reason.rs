//! Why a partition's map entry changes.

macro_rules! reasons {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// Why an entry changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $doc] $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The reason in `snake_case`, for logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    Assigned "assigned" "It had no primary yet.";
    Promoted "promoted" "An in-sync replica took over from a primary that is gone.";
    Resumed "resumed" "A restarted node goes on with its data.";
    Reassigned "reassigned" "Every in-sync copy was lost.";
    ReplicaLost "replica_lost" "An in-sync replica is gone.";
    LearnerDropped "learner_dropped" "A learner is given up.";
    Released "released" "An in-sync replica is no longer needed, or about to stop.";
    SuccessorNamed "successor_named" "The primary is to hand over.";
    SuccessorWithdrawn "successor_withdrawn" "The primary is to stay.";
    LearnerAdded "learner_added" "Nodes begin to learn it.";
    CaughtUp "caught_up" "A learner came in sync.";
    Late "late" "The primary gave up a node that does not acknowledge.";
    HandedOver "handed_over" "The primary handed over, and stays in sync.";
    SteppedDown "stepped_down" "The primary handed over, since it cannot store writes.";
}
