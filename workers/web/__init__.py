"""The HTTP API: videos in, verdicts out. `app.create_app` is the entry."""
