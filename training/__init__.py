"""Offline: images and videos in, detector bundles out. Never imported by `workers`."""
