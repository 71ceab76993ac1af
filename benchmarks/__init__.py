"""Our figures beside a peer's, measured in one run: `python -m benchmarks NAME [--json]`."""
