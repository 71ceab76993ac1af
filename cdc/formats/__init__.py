"""A canonical row as something else: Python values, JSON, TSV, Debezium's envelope. Imports the model only."""
