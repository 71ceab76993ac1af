"""Around a run: preparation, progress, status, metrics, the config file, signals."""
