//! Host descriptors: readiness and blocking.
