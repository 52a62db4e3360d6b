"""What the agent keeps in its state directory: models, the history, the journal of jobs, and the lock on all of it."""
