"""The story of a migration: hand-over, strategy, checkpoints. Knows the model and the seams, neither a server nor a target."""
