"""The embedded target: rows in MapStores in memory, images and a checkpoint database in a state folder."""
