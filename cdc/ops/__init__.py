"""Around a run: what a person sees, what metrics tell, what the config file and signals change."""
