"""Text and pictures around reap_dist: calibration files from conversations and texts."""

__version__ = "0.1.0"
