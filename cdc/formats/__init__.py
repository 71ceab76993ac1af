"""A canonical row in other forms: Python values, JSON, TSV, Debezium's envelope. Imports only the model."""
