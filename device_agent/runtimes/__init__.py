"""What the agent knows of the runtimes: the formats they read, and what may be refused before they do."""
