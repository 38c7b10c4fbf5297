"""Veriframe's library: a video file in, one explained verdict out. Knows no queue, database or web page."""

__version__ = "0.1.0"
