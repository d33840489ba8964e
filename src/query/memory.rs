//! How queries share a limited memory: what can go through files has a share,
//! the merging of sorted parts another, divided evenly, and so has what can do
//! neither. In DataFusion's own pools sorts may take all there is, and of two
//! that merge the first takes all that is left.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// What DataFusion calls the merging of sorted parts.
const MERGE: &str = "ExternalSorterMerge";

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    bytes: usize,
    spilling: FairSpillPool,
    merging: Even,
    others: GreedyMemoryPool,
}

impl Shared {
    /// What is sorted in memory is counted twice while it is merged, so merging
    /// has as much as sorting.
    pub(crate) fn new(bytes: usize) -> Self {
        let quarter = bytes / 4;
        let half_of_the_rest = (bytes - quarter) / 2;
        Self {
            bytes,
            spilling: FairSpillPool::new(half_of_the_rest),
            merging: Even::new(half_of_the_rest),
            others: GreedyMemoryPool::new(quarter),
        }
    }

    /// What a sort may set aside for its merging, of so many at once.
    pub(crate) fn set_aside(&self, sorts: usize) -> usize {
        self.merging.bytes / sorts / 2
    }

    fn of(&self, consumer: &MemoryConsumer) -> &dyn MemoryPool {
        if consumer.can_spill() {
            &self.spilling
        } else if consumer.name().starts_with(MERGE) {
            &self.merging
        } else {
            &self.others
        }
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared({} bytes)", self.bytes)
    }
}

impl MemoryPool for Shared {
    fn name(&self) -> &str {
        "shared"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.of(consumer).register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.of(consumer).unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.of(reservation.consumer()).grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.of(reservation.consumer()).shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.of(reservation.consumer()).try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.spilling.reserved() + self.merging.reserved() + self.others.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

/// Gives each of those who are there the same share at most.
#[derive(Debug)]
struct Even {
    bytes: usize,
    consumers: AtomicUsize,
    used: AtomicUsize,
}

impl Even {
    fn new(bytes: usize) -> Self {
        Self { bytes, consumers: AtomicUsize::new(0), used: AtomicUsize::new(0) }
    }
}

impl fmt::Display for Even {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "even({} bytes)", self.bytes)
    }
}

impl MemoryPool for Even {
    fn name(&self) -> &str {
        "even"
    }

    fn register(&self, _: &MemoryConsumer) {
        self.consumers.fetch_add(1, Ordering::Relaxed);
    }

    fn unregister(&self, _: &MemoryConsumer) {
        self.consumers.fetch_sub(1, Ordering::Relaxed);
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let share = self.bytes / self.consumers.load(Ordering::Relaxed).max(1);
        let name = reservation.consumer().name();
        if reservation.size() + additional > share {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} asked for {additional} bytes more, has {} and may have {share}",
                reservation.size(),
            )));
        }
        self.grow(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}
