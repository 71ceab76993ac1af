"""The order of events in a migration: hand-over, strategy, checkpoints. Knows servers and targets only by interfaces.py."""
