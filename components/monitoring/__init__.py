"""Phase 6: detectors, the sidecar, live performance and the retrain trigger."""
