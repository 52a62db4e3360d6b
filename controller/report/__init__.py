"""What was found, drawn."""
