"""The service: video IDs in, verdicts out. Thin over `detect_core`; never imports `training`."""
