"""Who the agent is, and who may call it."""
